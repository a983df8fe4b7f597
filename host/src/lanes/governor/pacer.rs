//! Where lanes ask whether they may go on. Without a limit that is one relaxed load of an atomic.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bucket::{Bucket, Rate};
use crate::lanes::clock;

/// The longest sleep without a look at whether the lanes are to stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// The bucket that all lanes share, and the sleep of those that found it empty.
#[derive(Debug)]
pub struct Pacer {
    is_limited: AtomicBool,
    /// Held for nanoseconds; for one reading of the process's clock at most once a millisecond. Health never takes it.
    bucket: Mutex<Bucket>,
    /// Told when the limit goes.
    limit_gone: Condvar,
    paced_ns: AtomicU64,
}

impl Pacer {
    /// One that lets everything pass, until a governor says otherwise.
    pub fn new() -> Arc<Pacer> {
        Arc::new(Pacer {
            is_limited: AtomicBool::new(false),
            bucket: Mutex::new(Bucket::new()),
            limit_gone: Condvar::new(),
            paced_ns: AtomicU64::new(0),
        })
    }

    /// Whether there is a limit.
    pub(in crate::lanes) fn is_limited(&self) -> bool {
        self.is_limited.load(Ordering::Relaxed)
    }

    /// Charges what a lane used since its last call, and says whether it has to [`Pacer::wait`] before it goes on.
    pub(in crate::lanes) fn must_wait(&self, cpu_ns: u64) -> bool {
        let now_ns = clock::uptime_ns(Instant::now());
        let mut bucket = self.lock();
        if cpu_ns > 0 {
            bucket.lane_used(cpu_ns, now_ns);
        }
        if bucket.wants_reading(now_ns) {
            bucket.read(process_clock_ns(), now_ns);
        }
        bucket.wait_ns(now_ns) > 0 && self.is_limited()
    }

    /// Sleeps until there should be something in the bucket again, the limit goes, or a moment has passed.
    pub(in crate::lanes) fn wait(&self) {
        let began = Instant::now();
        let mut bucket = self.lock();
        let wait = Duration::from_nanos(bucket.wait_ns(clock::uptime_ns(began))).min(LONGEST_SLEEP);
        if !wait.is_zero() && self.is_limited() {
            drop(self.limit_gone.wait_timeout(bucket, wait).unwrap_or_else(PoisonError::into_inner));
            let slept_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.paced_ns.fetch_add(slept_ns, Ordering::Relaxed);
        }
    }

    /// For how long lanes have slept here, all together.
    pub(super) fn paced(&self) -> Duration {
        Duration::from_nanos(self.paced_ns.load(Ordering::Relaxed))
    }

    /// Paces from now on.
    pub(super) fn begin(&self, rate: Rate) {
        let mut bucket = self.lock();
        bucket.begin(rate, clock::uptime_ns(Instant::now()), process_clock_ns());
        self.is_limited.store(true, Ordering::Relaxed);
    }

    /// Lets everything pass from now on.
    pub(super) fn end(&self) {
        let bucket = self.lock();
        self.is_limited.store(false, Ordering::Relaxed);
        drop(bucket);
        self.limit_gone.notify_all();
    }

    pub(super) fn set_rate(&self, rate: Rate) {
        self.lock().set_rate(rate, clock::uptime_ns(Instant::now()));
    }

    /// Does something with the bucket; what is called must be quick.
    pub(super) fn with_bucket<R>(&self, look: impl FnOnce(&mut Bucket, u64) -> R) -> R {
        let now_ns = clock::uptime_ns(Instant::now());
        look(&mut self.lock(), now_ns)
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        // A bucket is numbers that the next reading sets right.
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn process_clock_ns() -> u64 {
    u64::try_from(clock::process_cpu().as_nanos()).unwrap_or(u64::MAX)
}
