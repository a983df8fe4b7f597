use windlass_sdk::{Context, job};

#[job(evry = "30s")]
fn run(_: &Context) {}

fn main() {}
