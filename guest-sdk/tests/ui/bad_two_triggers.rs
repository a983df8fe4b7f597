use windlass_sdk::{Context, job};

#[job(every = "30s", once)]
fn run(_: &Context) {}

fn main() {}
