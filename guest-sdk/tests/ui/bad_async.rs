use windlass_sdk::{Context, job};

#[job]
async fn run(_: &Context) {}

fn main() {}
