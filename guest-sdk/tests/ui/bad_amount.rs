use windlass_sdk::{Context, job};

#[job(limits(memory = "lots"))]
fn run(_: &Context) {}

fn main() {}
