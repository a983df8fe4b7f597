//! Burns CPU for many seconds: counts primes by trial division, as a neighbour that takes all it can get.

use windlass_sdk::{Context, Error, job, log};

/// How far it counts unless the configuration says otherwise.
const LIMIT: u64 = 20_000_000;

/// Counts the primes below `limit`, says how far it is, and stops when it is asked to.
#[job(continuous, restart_delay_seconds = 1)]
fn run(ctx: &Context) -> Result<(), Error> {
    let limit = match ctx.config("limit") {
        Some(text) => text.parse().map_err(|_| Error::permanent(format!("config.limit `{text}` is no number")))?,
        None => LIMIT,
    };
    let mut primes = 0_u64;
    for number in 2..limit {
        if number.is_multiple_of(10_000) {
            if ctx.is_cancelled() {
                log::info!("asked to end at {number}");
                return Ok(());
            }
            ctx.progress(number, limit, "counting");
        }
        primes += u64::from(is_prime(number));
    }
    log::info!("{primes} primes below {limit}");
    Ok(())
}

fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use windlass_sdk::testing::TestContext;

    #[test]
    fn counts_the_primes_below_a_limit() {
        let test = TestContext::new().config("limit", "30000");
        assert!(super::run(test.context()).is_ok());
        assert_eq!(test.logs()[0].message, "3245 primes below 30000");
        assert_eq!(test.progress().len(), 2);
    }

    #[test]
    fn ends_when_it_is_asked_to() {
        let test = TestContext::new().cancelled_after(1);
        assert!(super::run(test.context()).is_ok());
        assert_eq!(test.logs()[0].message, "asked to end at 20000");
    }

    #[test]
    fn a_limit_that_is_no_number_is_permanent() {
        let test = TestContext::new().config("limit", "many");
        assert!(super::run(test.context()).is_err_and(|error| error.is_permanent()));
    }
}
