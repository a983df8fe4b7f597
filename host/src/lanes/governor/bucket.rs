//! The token bucket: how much CPU time may be used at this moment. Pure; the time and the clocks' readings are arguments.
//!
//! Charged is the clock of the whole process, so that the host's own work is in it. Reading that clock costs more with every thread,
//! so it is read once a millisecond; in between counts what the lanes say of themselves, and the next reading sets it right.

/// How old the last reading of the process's clock may be.
const READ_EVERY_NS: u64 = 1_000_000;

/// The most that is saved up, for each CPU of the limit: well under one period of any quota.
const BURST_NS: f64 = 1_500_000.0;

/// The least that is saved up: below this a lane would do nothing but wake up.
const LEAST_BURST_NS: f64 = 100_000.0;

/// Lanes that used nothing for so long have nothing to do.
const LANES_QUIET_NS: u64 = 20_000_000;

/// How fast the bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate {
    /// CPU nanoseconds for each nanosecond.
    cpus: f64,
    /// The most that is saved up.
    burst_ns: f64,
    /// The most that is owed.
    most_debt_ns: f64,
}

impl Rate {
    /// A rate of `share` of `quota_ns` in each `period_ns`.
    ///
    /// What is used within any one period is then at most `share * quota + burst`, and has to stay below the quota: so the burst
    /// is smaller where the quota is. What is owed is forgotten beyond one quota, since the kernel forgets with each period too.
    pub(super) fn new(quota_ns: f64, period_ns: f64, share: f64) -> Rate {
        let cpus = quota_ns / period_ns;
        let slack_ns = quota_ns * (1.0 - share).max(0.0) * 0.75;
        let burst_ns = (BURST_NS * cpus.max(1.0)).min(slack_ns).max(LEAST_BURST_NS);
        Rate { cpus: cpus * share, burst_ns, most_debt_ns: quota_ns }
    }

    pub(super) fn cpus(&self) -> f64 {
        self.cpus
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    balance_ns: f64,
    filled_at_ns: u64,
    /// The process's clock when it was last read, and when that was.
    clock_ns: u64,
    read_at_ns: u64,
    /// Charged on the lanes' word since then.
    on_trust_ns: u64,
    /// Whether it ran empty and has not filled up since: one long sleep costs less than many short ones.
    is_empty: bool,
    lanes_worked_at_ns: u64,
    /// What the lanes, and what everything used, since [`Bucket::take_used`].
    lanes_used_ns: u64,
    all_used_ns: u64,
}

impl Bucket {
    pub(super) fn new() -> Bucket {
        Bucket {
            rate: Rate::new(0.0, 1.0, 1.0),
            balance_ns: 0.0,
            filled_at_ns: 0,
            clock_ns: 0,
            read_at_ns: 0,
            on_trust_ns: 0,
            is_empty: false,
            lanes_worked_at_ns: 0,
            lanes_used_ns: 0,
            all_used_ns: 0,
        }
    }

    /// Begins anew, with nothing owed and nothing saved up.
    pub(super) fn begin(&mut self, rate: Rate, now_ns: u64, clock_ns: u64) {
        *self = Bucket { rate, filled_at_ns: now_ns, clock_ns, read_at_ns: now_ns, ..Bucket::new() };
    }

    /// Fills at another rate from now on.
    pub(super) fn set_rate(&mut self, rate: Rate, now_ns: u64) {
        self.fill(now_ns);
        self.rate = rate;
    }

    /// A lane says what it used since it last said so.
    pub(super) fn lane_used(&mut self, cpu_ns: u64, now_ns: u64) {
        self.balance_ns -= cpu_ns as f64;
        self.on_trust_ns += cpu_ns;
        self.lanes_used_ns += cpu_ns;
        self.lanes_worked_at_ns = now_ns;
    }

    /// A child process used so much, which is in no clock of ours.
    pub(super) fn child_used(&mut self, cpu_ns: u64) {
        self.balance_ns -= cpu_ns as f64;
        self.all_used_ns += cpu_ns;
    }

    /// Whether the process's clock should be read.
    pub(super) fn wants_reading(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.read_at_ns) >= READ_EVERY_NS
    }

    /// The process's clock says this.
    pub(super) fn read(&mut self, clock_ns: u64, now_ns: u64) {
        let used_ns = clock_ns.saturating_sub(self.clock_ns);
        self.balance_ns -= used_ns as f64 - self.on_trust_ns as f64;
        self.all_used_ns += used_ns;
        self.on_trust_ns = 0;
        self.clock_ns = clock_ns;
        self.read_at_ns = now_ns;
    }

    /// How long, in nanoseconds, a lane has to wait; zero if it may go on.
    pub(super) fn wait_ns(&mut self, now_ns: u64) -> u64 {
        self.fill(now_ns);
        if self.balance_ns <= 0.0 {
            self.is_empty = true;
        } else if self.balance_ns >= self.rate.burst_ns {
            self.is_empty = false;
        }
        if !self.is_empty {
            return 0;
        }
        ((self.rate.burst_ns - self.balance_ns) / self.rate.cpus.max(1e-6)).ceil() as u64
    }

    /// What there is; negative if something is owed.
    pub(super) fn balance_ns(&mut self, now_ns: u64) -> f64 {
        self.fill(now_ns);
        self.balance_ns
    }

    /// Whether the lanes have had something to do of late.
    pub(super) fn lanes_are_busy(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.lanes_worked_at_ns) < LANES_QUIET_NS
            // Those that wait to be paid back have something to do as well.
            || (self.is_empty && self.lanes_worked_at_ns != 0)
    }

    /// What the lanes, and what all have used since the last call.
    pub(super) fn take_used(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.lanes_used_ns), std::mem::take(&mut self.all_used_ns))
    }

    fn fill(&mut self, now_ns: u64) {
        let since_ns = now_ns.saturating_sub(self.filled_at_ns);
        self.filled_at_ns = self.filled_at_ns.max(now_ns);
        let filled = self.balance_ns + since_ns as f64 * self.rate.cpus;
        self.balance_ns = filled.min(self.rate.burst_ns).max(-self.rate.most_debt_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn rate(cpus: f64, share: f64) -> Rate {
        Rate::new(cpus * 100e6, 100e6, share)
    }

    /// Lanes that always have something to do in slices of 65 µs, beside a host that uses `host_cpus`: CPU time per window of one
    /// period, in milliseconds, sliding by a millisecond.
    fn windows(cpus: f64, share: f64, lanes: u64, host_cpus: f64) -> Vec<f64> {
        const SLICE: u64 = 65_000;
        let mut bucket = Bucket::new();
        bucket.begin(rate(cpus, share), 0, 0);
        let (mut now, mut clock) = (0, 0);
        let mut per_ms = vec![0.0; 10_001];
        while now < 10_000 * MS {
            if bucket.wants_reading(now) {
                bucket.read(clock, now);
            }
            let wait = bucket.wait_ns(now);
            let (step, used) = if wait > 0 { (wait, 0) } else { (SLICE, SLICE * lanes) };
            for _ in 0..lanes {
                if wait == 0 {
                    bucket.lane_used(SLICE, now);
                }
            }
            let host = (step as f64 * host_cpus) as u64;
            clock += used + host;
            per_ms[(now / MS) as usize] += (used + host) as f64 / 1e6;
            now += step;
        }
        (1000..9_900).map(|from| per_ms[from..from + 100].iter().sum()).collect()
    }

    #[test]
    fn no_period_is_exhausted_at_any_limit_and_the_share_is_used() {
        for (cpus, share, lanes, host) in [
            (1.0, 0.92, 1, 0.0),
            (0.5, 0.92, 1, 0.0),
            (0.25, 0.92, 1, 0.05),
            (0.05, 0.92, 1, 0.005),
            (2.0, 0.92, 2, 0.02),
            (1.5, 0.92, 2, 0.02),
        ] {
            let windows = windows(cpus, share, lanes, host);
            let most = windows.iter().copied().fold(0.0, f64::max);
            let mean = windows.iter().sum::<f64>() / windows.len() as f64;
            assert!(most < cpus * 100.0, "{most} ms in one period of {cpus} CPUs");
            assert!((mean / (cpus * share * 100.0) - 1.0).abs() < 0.02, "{mean} ms a period of {cpus} CPUs");
        }
    }

    #[test]
    fn a_debt_is_paid_back_and_forgotten_beyond_one_quota() {
        let mut bucket = Bucket::new();
        bucket.begin(rate(0.5, 0.8), 0, 0);
        bucket.read(30 * MS, MS);
        // 30 ms are owed and the burst wanted, at 0.4 CPUs, a millisecond of which has passed.
        let wait = bucket.wait_ns(MS);
        assert!(wait.abs_diff(77_750_000) < 10_000, "{wait}");
        assert_eq!(bucket.wait_ns(MS + wait), 0);
        bucket.read(10_000 * MS, 2 * MS + wait);
        assert!(bucket.balance_ns(2 * MS + wait) >= -50e6 - 1.0, "no more than one quota");
    }

    #[test]
    fn what_lanes_said_is_not_charged_twice() {
        let mut bucket = Bucket::new();
        bucket.begin(rate(1.0, 0.5), 0, 0);
        bucket.lane_used(MS, MS / 2);
        bucket.read(MS, MS);
        assert_eq!(bucket.balance_ns(MS), -500_000.0);
        assert_eq!(bucket.take_used(), (MS, MS));
        assert_eq!(bucket.take_used(), (0, 0));
    }

    #[test]
    fn a_child_is_charged_and_busy_lanes_are_known() {
        let mut bucket = Bucket::new();
        bucket.begin(rate(1.0, 0.5), 0, 0);
        assert!(!bucket.lanes_are_busy(100 * MS));
        bucket.child_used(MS);
        assert_eq!(bucket.balance_ns(0), -1e6);
        bucket.lane_used(1, 100 * MS);
        assert!(bucket.lanes_are_busy(101 * MS) && !bucket.lanes_are_busy(200 * MS));
    }

    #[test]
    fn a_tiny_quota_has_a_small_burst() {
        let tiny = rate(0.05, 0.92);
        assert!(tiny.burst_ns + tiny.cpus() * 100e6 < 5e6, "{tiny:?}");
        assert_eq!(rate(0.5, 0.9).burst_ns, 1.5e6);
    }
}
