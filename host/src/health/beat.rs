//! Beats: the sign that a thread still moves. Written wait-free by the thread, read by the health thread.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::lanes::clock;

/// One thread's beat. Odd turns are work, even ones are sleep.
#[derive(Debug, Default)]
pub struct Beat {
    thread: AtomicI32,
    turns: AtomicU64,
    /// When a declared sleep should be over, on [`clock::uptime_ns`]; 0 for a sleep without an end.
    asleep_until_ns: AtomicU64,
}

/// What the health thread reads off a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Changes with each poll and each sleep.
    pub turns: u64,
    /// Whether it works, or sleeps although it meant to be awake again.
    pub is_due: bool,
}

impl Beat {
    /// Called on the thread itself, before anything else.
    pub fn register(&self) {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        self.thread.store(thread, Ordering::Relaxed);
    }

    /// A piece of work begins: one poll, one turn of the scheduler.
    pub fn enter(&self) {
        if self.turns.load(Ordering::Relaxed).is_multiple_of(2) {
            self.turns.fetch_add(1, Ordering::Release);
        } else {
            // The scheduler goes from one turn into the next without sleeping.
            self.turns.fetch_add(2, Ordering::Release);
        }
    }

    /// That piece is over, and the thread may sleep for as long as it likes.
    pub fn leave(&self) {
        self.sleep_until(0);
    }

    /// That piece is over, and the thread means to be awake again after `patience`.
    pub fn sleep(&self, patience: Duration) {
        let patience_ns = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        self.sleep_until(clock::uptime_ns(Instant::now()).saturating_add(patience_ns));
    }

    fn sleep_until(&self, until_ns: u64) {
        self.asleep_until_ns.store(until_ns, Ordering::Relaxed);
        if !self.turns.load(Ordering::Relaxed).is_multiple_of(2) {
            self.turns.fetch_add(1, Ordering::Release);
        }
    }

    /// What the beat says now.
    pub fn read(&self) -> Reading {
        let turns = self.turns.load(Ordering::Acquire);
        let until_ns = self.asleep_until_ns.load(Ordering::Relaxed);
        let overslept = until_ns != 0 && clock::uptime_ns(Instant::now()) > until_ns;
        Reading { turns, is_due: !turns.is_multiple_of(2) || overslept }
    }

    /// The kernel's id of the thread; 0 before it registered.
    pub fn thread(&self) -> i32 {
        self.thread.load(Ordering::Relaxed)
    }
}
