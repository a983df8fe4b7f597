//! What share of the limit is used: raised slowly, cut when the kernel throttled. Pure.
//!
//! Additive increase, multiplicative decrease, as in Chiu and Jain (1989), with a memory: where it was throttled twice in a row is
//! where it stays below, and only now and then it looks whether that still holds.

/// The share to begin with.
const FIRST: f64 = 0.86;
/// The most: what is left belongs to health, and to what a burst takes.
const MOST: f64 = 0.92;
/// The least that being throttled can bring it to.
const LEAST: f64 = 0.5;
/// The least that late timers can bring it to: they may be late for other reasons.
const LEAST_BY_LATENESS: f64 = 0.7;
/// Added for each quiet period while below the ceiling: two hundredths a second at the usual period.
const RAISE: f64 = 0.002;
/// What one throttled period leaves of it.
const CUT: f64 = 0.95;
/// What late timers leave of it.
const CUT_BY_LATENESS: f64 = 0.98;
/// By how much the ceiling moves.
const STEP: f64 = 0.01;
/// Throttled at most once in so many periods is what it may cost to look.
const RARE: u64 = 200;
/// Quiet periods before the ceiling is raised: at first, and at most.
const PATIENCE: (u64, u64) = (150, 3_000);
/// Late ticks among the last [`TICKS`] that are no accident.
const LATE_TICKS: u32 = 3;
const TICKS: u32 = 5;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Share {
    value: f64,
    ceiling: f64,
    /// Periods since the kernel last throttled.
    quiet: u64,
    patience: u64,
    /// The last ticks of the health thread's timer, one bit each; set is late.
    ticks: u32,
}

impl Share {
    pub(super) fn new() -> Share {
        Share { value: FIRST, ceiling: MOST, quiet: RARE, patience: PATIENCE.0, ticks: 0 }
    }

    pub(super) fn value(&self) -> f64 {
        self.value
    }

    /// `periods` have passed, and the kernel throttled in so many of them. `by_lanes`: whether most of what was used in them was
    /// the lanes'; if not, holding the lanes back more would help nobody.
    pub(super) fn periods_passed(&mut self, periods: u64, throttled: u64, by_lanes: bool) {
        if throttled == 0 {
            self.quiet += periods;
            if self.value < self.ceiling {
                self.value = (self.value + RAISE * periods as f64).min(self.ceiling);
            } else if self.quiet >= self.patience && self.ceiling < MOST {
                self.ceiling = (self.ceiling + STEP).min(MOST);
                self.quiet = RARE.min(self.quiet);
            }
            return;
        }
        if by_lanes {
            if self.quiet < RARE {
                // Once may be an accident. Twice is the place not to go to.
                self.ceiling = (self.value - STEP).clamp(LEAST, MOST);
                self.patience = (self.patience * 2).min(PATIENCE.1);
            }
            self.value = (self.value * CUT).max(LEAST);
        }
        self.quiet = 0;
    }

    /// The health thread's timer fired, late or not: the only sign of a quota further out, which cannot be read.
    /// Returns whether the share was cut for it.
    pub(super) fn ticked(&mut self, late: bool) -> bool {
        self.ticks = (self.ticks << 1 | u32::from(late)) & ((1 << TICKS) - 1);
        // While the kernel says that it throttles, lateness tells nothing new.
        if self.ticks.count_ones() < LATE_TICKS || self.quiet == 0 || self.value <= LEAST_BY_LATENESS {
            return false;
        }
        self.ticks = 0;
        self.value = (self.value * CUT_BY_LATENESS).max(LEAST_BY_LATENESS);
        self.ceiling = self.value;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lives through `periods` with a kernel that throttles above `edge`; returns how many were throttled.
    fn live(share: &mut Share, periods: u64, edge: f64) -> u64 {
        let mut throttled = 0;
        for _ in 0..periods {
            let over = u64::from(share.value() > edge);
            throttled += over;
            share.periods_passed(1, over, true);
        }
        throttled
    }

    #[test]
    fn it_rises_slowly_to_the_most_where_nothing_throttles() {
        let mut share = Share::new();
        assert_eq!(live(&mut share, 10, 1.0), 0);
        assert!(share.value() < FIRST + 0.03);
        live(&mut share, 100, 1.0);
        assert_eq!(share.value(), MOST);
    }

    #[test]
    fn it_finds_the_edge_and_seldom_steps_over_it() {
        for edge in [0.6, 0.75, 0.83, 0.9] {
            let mut share = Share::new();
            live(&mut share, 400, edge);
            let throttled = live(&mut share, 10_000, edge);
            assert!(throttled <= 100, "{throttled} of 10,000 throttled with the edge at {edge}");
            assert!(share.value() > edge - 0.08, "{} with the edge at {edge}", share.value());
        }
    }

    #[test]
    fn it_follows_an_edge_that_goes_up_again() {
        let mut share = Share::new();
        live(&mut share, 400, 0.7);
        live(&mut share, 60_000, 1.0);
        assert_eq!(share.value(), MOST);
    }

    #[test]
    fn what_others_caused_costs_the_lanes_nothing() {
        let mut share = Share::new();
        for _ in 0..100 {
            share.periods_passed(1, 1, false);
        }
        assert_eq!(share.value(), FIRST);
    }

    #[test]
    fn late_timers_cut_a_little_and_have_a_floor() {
        let mut share = Share::new();
        share.periods_passed(1, 0, true);
        let before = share.value();
        assert!(![true, false, false, true].into_iter().any(|late| share.ticked(late)), "one in three is an accident");
        assert!(share.ticked(true) && share.value() < before);
        for _ in 0..1_000 {
            share.ticked(true);
        }
        assert_eq!(share.value(), LEAST_BY_LATENESS);
    }

    #[test]
    fn late_timers_tell_nothing_new_while_the_kernel_throttles() {
        let mut share = Share::new();
        share.periods_passed(1, 1, false);
        for _ in 0..10 {
            assert!(!share.ticked(true));
        }
    }
}
