use windlass_sdk::{Context, Error, Health, check, job};

#[job(
    name = "all-of-it",
    version = "2.0.0",
    every = "1h30m",
    concurrency_policy = "Allow",
    max_concurrent = 3,
    backoff_limit = 5,
    tags("a", "b"),
    limits(memory = "64Mi", cpu_seconds = 1.5, fuel = 10_000, weight = 50, logs = "2Mi"),
    health(failure_threshold = 2, max_silence_seconds = 60),
    wants("http: https://example.com/*")
)]
fn run(ctx: &Context) -> Result<(), Error> {
    let _ = ctx.run_id();
    Ok(())
}

#[check]
fn check() -> Health {
    Health::healthy()
}

fn main() {}
