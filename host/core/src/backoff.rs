//! How long to wait before another try: doubling from one second to five minutes, with a little chance in it.
//!
//! The doubling with a bound is Kubernetes'; the jitter keeps jobs that failed together from coming back together.

use std::time::Duration;

/// The first pause.
pub const FIRST: Duration = Duration::from_secs(1);

/// The longest pause.
pub const LONGEST: Duration = Duration::from_secs(300);

/// Bounds of a pause that the guest asked for.
pub const ASKED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// The pause after the `failures`-th failure in a row, counted from 1, within 20 % of 1 s, 2 s, 4 s, … 300 s.
pub fn pause(failures: u32, random: &mut fastrand::Rng) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let exact = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    exact.mul_f64(0.8 + 0.4 * random.f64())
}

/// The pause that the guest asked for, within bounds; exactly what it asked for where that lies within.
pub fn asked(retry_after: Duration) -> Duration {
    retry_after.clamp(ASKED.0, ASKED.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_their_jitter_and_stay_bounded() {
        let mut random = fastrand::Rng::with_seed(7);
        for failures in 1..2_000_u32 {
            let pause = pause(failures, &mut random);
            let exact = FIRST.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST);
            assert!(pause >= exact.mul_f64(0.8) && pause <= exact.mul_f64(1.2), "{failures}: {pause:?}");
        }
        assert_eq!(asked(Duration::ZERO), ASKED.0);
        assert_eq!(asked(Duration::from_secs(90)), Duration::from_secs(90));
        assert_eq!(asked(Duration::MAX), ASKED.1);
    }
}
