use windlass_sdk::job;

#[job]
fn run() {}

fn main() {}
