use windlass_sdk::{Context, job};

#[job]
fn run(_: &Context) {}

fn main() {}
