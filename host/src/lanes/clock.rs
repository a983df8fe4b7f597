//! The clocks that lanes read: the thread's own CPU time, and time since the process began as one number.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// CPU time that the calling thread has used, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    to_ns(clock_gettime(ClockId::ThreadCPUTime))
}

/// CPU time that all threads of this process have used. Costs more with every thread: not for hot paths.
pub fn process_cpu() -> Duration {
    Duration::from_nanos(to_ns(clock_gettime(ClockId::ProcessCPUTime)))
}

/// Nanoseconds from a fixed moment early in the life of the process to `at`.
pub fn uptime_ns(at: Instant) -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    // One is added so that zero can stand for "never".
    u64::try_from(at.saturating_duration_since(*EPOCH.get_or_init(|| at)).as_nanos())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

fn to_ns(time: Timespec) -> u64 {
    u64::try_from(i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)).unwrap_or(0)
}
