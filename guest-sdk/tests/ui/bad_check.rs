use windlass_sdk::check;

#[check]
fn check() {}

fn main() {}
