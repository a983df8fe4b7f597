//! The classic timer worker: a line in the log every five seconds.

use windlass_sdk::{Context, Error, Health, check, job, log};

/// Says that it is there, and how late it came.
#[job(every = "5s")]
fn run(ctx: &Context) -> Result<(), Error> {
    let name = ctx.config("name").unwrap_or_else(|| "world".to_owned());
    let late = std::time::SystemTime::now().duration_since(ctx.due()).unwrap_or_default();
    log::info!("hello, {name}: run {}, {} ms late", ctx.run_id(), late.as_millis());
    Ok(())
}

/// A heart that beats is well.
#[check]
fn check() -> Health {
    Health::healthy()
}

#[cfg(test)]
mod tests {
    use windlass_sdk::testing::TestContext;

    #[test]
    fn greets_whom_the_configuration_names() {
        let test = TestContext::new().config("name", "Ada");
        assert!(super::run(test.context()).is_ok());
        assert!(test.logs()[0].message.starts_with("hello, Ada: run 1"));
    }

    #[test]
    fn is_well() {
        assert_eq!(super::check().status(), windlass_sdk::Status::Healthy);
    }
}
