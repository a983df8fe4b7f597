//! What the governor tells health, and the one thing that health tells it: atomics that neither waits for.

use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Pid;

use crate::lanes::cgroup::Throttling;

/// Timers of the health thread that fire later than this were held back: on a machine that is merely busy it takes 5 ms at worst.
const LATE: Duration = Duration::from_millis(10);

/// What is told of pacing at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pacing {
    /// The limit in CPUs.
    pub limit_cpus: f64,
    /// What share of it lanes and everything else may use together.
    pub share: f64,
    /// How long lanes have slept for it, all together.
    pub paced: Duration,
    /// The kernel's counters.
    pub kernel: Throttling,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Lanes that are not parked.
    lanes: AtomicUsize,
    /// Zero without a limit.
    limit_bits: AtomicU64,
    share_bits: AtomicU64,
    paced_ns: AtomicU64,
    periods: AtomicU64,
    throttled_periods: AtomicU64,
    throttled_ns: AtomicU64,
    /// Ticks of the health thread's timer times two, plus one if the last was late.
    ticks: AtomicU64,
    /// The kernel's id of the health thread; zero before it said so.
    health_thread: AtomicI32,
}

impl Gauges {
    /// How many lanes are not parked.
    pub fn lanes(&self) -> usize {
        self.lanes.load(Ordering::Relaxed)
    }

    /// What is paced and by how much; none without a limit.
    pub fn pacing(&self) -> Option<Pacing> {
        let limit_cpus = f64::from_bits(self.limit_bits.load(Ordering::Relaxed));
        (limit_cpus > 0.0).then(|| Pacing {
            limit_cpus,
            share: f64::from_bits(self.share_bits.load(Ordering::Relaxed)),
            paced: Duration::from_nanos(self.paced_ns.load(Ordering::Relaxed)),
            kernel: Throttling {
                periods: self.periods.load(Ordering::Relaxed),
                throttled_periods: self.throttled_periods.load(Ordering::Relaxed),
                throttled: Duration::from_nanos(self.throttled_ns.load(Ordering::Relaxed)),
            },
        })
    }

    /// The health thread's timer fired, so much later than it should have.
    pub fn timer_fired(&self, late_by: Duration) {
        // One thread writes.
        let ticks = self.ticks.load(Ordering::Relaxed) >> 1;
        self.ticks.store((ticks + 1) << 1 | u64::from(late_by > LATE), Ordering::Relaxed);
    }

    /// Called on the health thread, which may use any core whatever the lanes are held to.
    pub fn this_is_health(&self) {
        self.health_thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
    }

    pub(super) fn health_thread(&self) -> Option<Pid> {
        Pid::from_raw(self.health_thread.load(Ordering::Relaxed))
    }

    /// How often it fired, and whether it was late the last time.
    pub(super) fn ticks(&self) -> (u64, bool) {
        let ticks = self.ticks.load(Ordering::Relaxed);
        (ticks >> 1, ticks & 1 == 1)
    }

    /// So many are not parked.
    pub fn set_lanes(&self, lanes: usize) {
        self.lanes.store(lanes, Ordering::Relaxed);
    }

    pub(super) fn set_pacing(&self, pacing: Option<Pacing>) {
        let Some(Pacing { limit_cpus, share, paced, kernel }) = pacing else {
            self.limit_bits.store(0, Ordering::Relaxed);
            return;
        };
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.share_bits.store(share.to_bits(), Ordering::Relaxed);
        self.paced_ns.store(ns(paced), Ordering::Relaxed);
        self.periods.store(kernel.periods, Ordering::Relaxed);
        self.throttled_periods.store(kernel.throttled_periods, Ordering::Relaxed);
        self.throttled_ns.store(ns(kernel.throttled), Ordering::Relaxed);
        self.limit_bits.store(limit_cpus.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn there_is_no_pacing_without_a_limit() {
        let gauges = Gauges::default();
        assert_eq!(gauges.pacing(), None);
        let pacing =
            Pacing { limit_cpus: 0.5, share: 0.9, paced: Duration::from_millis(7), kernel: Throttling::default() };
        gauges.set_pacing(Some(pacing));
        assert_eq!(gauges.pacing(), Some(pacing));
        gauges.set_pacing(None);
        assert_eq!(gauges.pacing(), None);
    }

    #[test]
    fn ticks_tell_how_many_and_whether_late() {
        let gauges = Gauges::default();
        gauges.timer_fired(Duration::from_millis(1));
        assert_eq!(gauges.ticks(), (1, false));
        gauges.timer_fired(Duration::from_millis(60));
        assert_eq!(gauges.ticks(), (2, true));
    }
}
