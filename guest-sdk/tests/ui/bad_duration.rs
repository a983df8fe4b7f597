use windlass_sdk::{Context, job};

#[job(every = "30 seconds")]
fn run(_: &Context) {}

fn main() {}
