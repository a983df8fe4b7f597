//! The board: what the rest of the process publishes and the health thread reads. Atomics and one swapped pointer; no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::beat::Beat;
use crate::core::health::Snapshot;
use crate::lanes::LaneObserver;
use crate::lanes::governor::Gauges;

/// Upper bounds in seconds of the host's own histograms; one more bucket holds the rest.
pub const WAIT_BUCKETS_S: [f64; 12] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0];

/// Durations in fixed buckets. Many write, one reads; a reading may miss what is just being written.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative; the last holds what is longer than all bounds.
    buckets: [AtomicU64; WAIT_BUCKETS_S.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = WAIT_BUCKETS_S.iter().position(|bound| seconds <= *bound).unwrap_or(WAIT_BUCKETS_S.len());
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The counts of the buckets, not cumulative, and the sum in seconds.
    pub fn read(&self) -> (Vec<u64>, f64) {
        let counts = self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        (counts, self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9)
    }
}

/// See the module.
pub struct Board {
    snapshot: ArcSwap<Snapshot>,
    started_up: AtomicBool,
    made: Instant,
    /// From `made` until then, in nanoseconds.
    startup_ns: AtomicU64,
    draining: AtomicBool,
    /// `/health/live` has been red at least once.
    was_red: AtomicBool,
    lanes: Box<[Beat]>,
    scheduler: Beat,
    lateness: Histogram,
    lane_wait: Histogram,
    gauges: Arc<Gauges>,
}

impl Board {
    /// A board for so many lanes, parked ones included, with a first snapshot.
    pub fn new(lanes: usize, snapshot: Snapshot) -> Arc<Board> {
        Arc::new(Board {
            snapshot: ArcSwap::from_pointee(snapshot),
            started_up: AtomicBool::new(false),
            made: Instant::now(),
            startup_ns: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            was_red: AtomicBool::new(false),
            lanes: (0..lanes).map(|_| Beat::default()).collect(),
            scheduler: Beat::default(),
            lateness: Histogram::default(),
            lane_wait: Histogram::default(),
            gauges: Arc::default(),
        })
    }

    /// Swaps in what health says from now on.
    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// What health says now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Configuration is read, data is open, lanes beat.
    pub fn started_up(&self) {
        let took_ns = u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.startup_ns.store(took_ns, Ordering::Relaxed);
        self.started_up.store(true, Ordering::Release);
    }

    /// How long starting up took, from the board's making on; zero before it is over.
    pub fn startup(&self) -> Duration {
        Duration::from_nanos(self.startup_ns.load(Ordering::Relaxed))
    }

    /// Whether [`Board::started_up`] was said.
    pub fn is_started_up(&self) -> bool {
        self.started_up.load(Ordering::Acquire)
    }

    /// The host shuts down.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether [`Board::drain`] was said.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Liveness turned red.
    pub fn turned_red(&self) {
        self.was_red.store(true, Ordering::Release);
    }

    /// Whether liveness was ever red: the process then ends with 1, so that the reason is shown.
    pub fn was_red(&self) -> bool {
        self.was_red.load(Ordering::Acquire)
    }

    /// The lanes' beats.
    pub fn lanes(&self) -> &[Beat] {
        &self.lanes
    }

    /// The scheduler's beat.
    pub fn scheduler(&self) -> &Beat {
        &self.scheduler
    }

    /// What the governor tells.
    pub fn gauges(&self) -> &Arc<Gauges> {
        &self.gauges
    }

    /// Counts how late a run's first slice was.
    pub fn observe_lateness(&self, late: Duration) {
        self.lateness.observe(late);
    }

    /// How late runs began.
    pub fn lateness(&self) -> &Histogram {
        &self.lateness
    }

    /// How long runnable runs waited for a lane.
    pub fn lane_wait(&self) -> &Histogram {
        &self.lane_wait
    }
}

impl LaneObserver for Board {
    fn registered(&self, lane: usize) {
        if let Some(beat) = self.lanes.get(lane) {
            beat.register();
        }
    }

    fn poll_begins(&self, lane: usize, waited: Duration) {
        self.lane_wait.observe(waited);
        if let Some(beat) = self.lanes.get(lane) {
            beat.enter();
        }
    }

    fn poll_ended(&self, lane: usize) {
        if let Some(beat) = self.lanes.get(lane) {
            beat.leave();
        }
    }

    fn idle(&self, _: usize) {}

    fn awake(&self, _: usize) {}
}
