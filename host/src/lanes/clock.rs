//! The clocks that lanes read: the thread's own CPU time, and time since the process began as one number.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// CPU time that the calling thread has used, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    to_ns(clock_gettime(ClockId::ThreadCPUTime))
}

/// CPU time that all threads of this process have used. Costs more with every thread: not for hot paths.
pub fn process_cpu() -> Duration {
    Duration::from_nanos(to_ns(clock_gettime(ClockId::ProcessCPUTime)))
}

/// CPU time that all threads of a child have used, those that ended too, in nanoseconds; none once it is gone.
///
/// `/proc/PID/schedstat` is the first thread's alone, and `/proc/PID/stat` counts in hundredths of a second: a child would be paced by
/// guesses. The clock of another process is exact, and one system call.
pub fn child_cpu_ns(child: Pid) -> Option<u64> {
    // How the kernel numbers the clocks of processes: what `clock_getcpuclockid` returns.
    let clock = !child.as_raw_nonzero().get() << 3 | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec through the pointer, which is to one that outlives it; any number of a clock may be asked
    // for, and one that does not exist is an error.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) } != 0;
    (!failed)
        .then(|| u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0))
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
