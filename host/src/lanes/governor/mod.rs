//! The governor: keeps what the process burns under its CPU limit, so that the kernel never stops health with everything else.
//!
//! A thread of its own, at the host's priority, looks at the limit every few seconds, and where there is one at the kernel's counters
//! every period. From these follow the bucket's rate, the number of lanes and the cores in use. Lanes ask the [`Pacer`] before each
//! poll; that it is the whole process that is charged, is what keeps every period from being exhausted.

mod bucket;
mod children;
mod cores;
mod gauges;
mod pacer;
mod plan;
mod share;
mod watch;

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Pid;

use super::cgroup::Roots;
use super::priority::{self, Niceness};
use super::{LaneCount, clock};
use children::Children;
pub use gauges::{Gauges, Pacing};
pub use pacer::Pacer;
pub use plan::LanePlan;
use watch::Watch;

/// What a governor that governs needs.
#[derive(Debug)]
pub struct Options {
    /// Where the control groups are.
    pub roots: Roots,
    /// How the number of lanes follows from the limit.
    pub plan: LanePlan,
    /// Sets that number.
    pub lanes: LaneCount,
    /// What the lanes were started with.
    pub pacer: Arc<Pacer>,
    /// Where it tells what it does.
    pub gauges: Arc<Gauges>,
    /// How nice threads are.
    pub niceness: Niceness,
}

/// Paces lanes and compile children under the container's CPU limit. Dropping it lets everything go on unpaced.
#[derive(Debug)]
pub struct Governor {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    pacer: Arc<Pacer>,
    children: Children,
    /// Whether the thread is to end. Held for moments, never while anything is looked at.
    stop: Mutex<bool>,
    /// Told when it is, or when there is a child to look at.
    bell: Condvar,
}

/// A child process whose CPU time is charged and paced. Let go when it is dropped, and never left stopped by that; do so before the
/// child is reaped, since its number may be another's afterwards.
///
/// Whoever spawns the child sets `PR_SET_PDEATHSIG` to SIGKILL in it: should the host die while the child is stopped, nobody else
/// would continue or end it.
#[derive(Debug)]
#[must_use]
pub struct Adopted {
    inner: Arc<Inner>,
    child: Pid,
}

impl Governor {
    /// A governor that paces nothing.
    pub fn new() -> Arc<Governor> {
        Arc::new(Governor { inner: Inner::new(Pacer::new()), thread: None })
    }

    /// Looks at the limit, brings everything in line with it, and goes on doing so on a thread named `governor`.
    ///
    /// # Errors
    /// If the thread cannot be spawned or has not the niceness of its role. Never for what the control groups say.
    pub fn start(options: Options) -> Result<Arc<Governor>> {
        let inner = Inner::new(options.pacer.clone());
        let niceness = options.niceness;
        let mut watch = Watch::new(options, inner.clone());
        // Before the first guest is polled, and so that threads yet to be spawned inherit the cores.
        let first_nap = watch.turn();
        let runs = inner.clone();
        let thread = super::spawn("governor".to_owned(), priority::Role::Host, niceness, move || {
            let mut nap = first_nap;
            while runs.sleep(nap) {
                nap = watch.turn();
            }
            watch.end();
        })?;
        Ok(Arc::new(Governor { inner, thread: Some(thread) }))
    }

    /// Charges a child process to the same bucket as the lanes, and paces it: while lanes have work it gets about half. Without a
    /// limit this does nothing but note it.
    pub fn adopt(self: &Arc<Governor>, child: Pid) -> Adopted {
        self.inner.children.add(child, clock::uptime_ns(Instant::now()));
        if self.inner.pacer.is_limited() {
            // Under the lock, so that it is not rung between the thread's look and its sleep.
            let _thread_sleeps = self.inner.stop.lock().unwrap_or_else(PoisonError::into_inner);
            self.inner.bell.notify_all();
        }
        Adopted { inner: self.inner.clone(), child }
    }
}

impl Drop for Governor {
    fn drop(&mut self) {
        *self.inner.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.inner.bell.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has no one to answer to; if it panicked, the log says so.
            let _ = thread.join();
        }
        self.inner.pacer.end();
        self.inner.children.release();
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        self.inner.children.remove(self.child);
    }
}

impl Inner {
    fn new(pacer: Arc<Pacer>) -> Arc<Inner> {
        Arc::new(Inner { pacer, children: Children::default(), stop: Mutex::new(false), bell: Condvar::new() })
    }

    /// Sleeps for so long, or until the bell; false if the thread is to end.
    fn sleep(&self, nap: Duration) -> bool {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        if *stop {
            return false;
        }
        !*self.bell.wait_timeout(stop, nap).unwrap_or_else(PoisonError::into_inner).0
    }
}
