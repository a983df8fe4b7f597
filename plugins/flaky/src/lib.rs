//! Fails now and then and says that it is unwell: to see retries, health reports and quarantine.

use std::time::Duration;

use windlass_sdk::{Context, Error, Health, job, log};

/// Fails two attempts of three, and every fifth run for good.
#[job(every = "10s", backoff_limit = 2, health(failure_threshold = 2))]
fn run(ctx: &Context) -> Result<(), Error> {
    let run: u64 = ctx.run_id().parse().unwrap_or(0);
    if run % 5 == 4 {
        return Err(Error::permanent("the fifth of five never works"));
    }
    if ctx.attempt() < 3 {
        ctx.report_health(Health::degraded("having a bad day").with("attempt", ctx.attempt()));
        return Err(Error::transient("not yet").retry_after(Duration::from_secs(1)));
    }
    log::info!("worked at the third attempt");
    Ok(())
}

#[cfg(test)]
mod tests {
    use windlass_sdk::Status;
    use windlass_sdk::testing::TestContext;

    #[test]
    fn the_third_attempt_works() {
        let first = TestContext::new();
        assert!(super::run(first.context()).is_err_and(|error| !error.is_permanent()));
        assert_eq!(first.reports()[0].status(), Status::Degraded);
        assert!(super::run(TestContext::new().attempt(3).context()).is_ok());
    }
}
