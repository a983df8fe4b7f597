//! One task on the lanes: a future, who watches it, what it has used up, and the state that decides who may touch it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;
use std::time::{Duration, Instant};

use super::clock;
use super::queue::GroupKey;
use super::shared::Shared;

/// What a task leaves behind when it has ended by itself: dropped on the reaper, away from the lanes, where there is anything.
pub type Remains = Option<Box<dyn Send>>;

/// What a lane polls.
pub type Work = Pin<Box<dyn Future<Output = Remains> + Send>>;

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Its future returned.
    Returned,
    /// [`TaskHandle::kill`] was called before that.
    Killed,
    /// It used up the CPU time it was given.
    OutOfCpu,
    /// Its future panicked: a fault of the host, held to this one task.
    Panicked(String),
}

/// Is told of the two events in a task's life. Called on a lane or on the reaper: must be quick and must not block.
pub trait Watcher: Send + Sync {
    /// The first poll is over and the task goes on. Not called if it ended within its first poll.
    fn started(&self, meter: &Meter);
    /// The task is over and its future is gone (save its [`Remains`]). Called exactly once.
    fn ended(&self, end: End, meter: &Meter);
}

/// What a task has used up. Written by lanes, readable from anywhere at any time.
#[derive(Debug, Default)]
pub struct Meter {
    cpu_ns: AtomicU64,
    waited_ns: AtomicU64,
    polls: AtomicU64,
    first_poll_ns: AtomicU64,
    ended_ns: AtomicU64,
    queued_ns: AtomicU64,
}

impl Meter {
    /// CPU time on the lanes.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Ordering::Relaxed))
    }

    /// Time since the first poll that the task was runnable and had no lane, the present wait included.
    pub fn waited(&self) -> Duration {
        let now_waiting = match self.queued_ns.load(Ordering::Relaxed) {
            0 => 0,
            since if self.first_poll_ns.load(Ordering::Relaxed) != 0 => {
                clock::uptime_ns(Instant::now()).saturating_sub(since)
            }
            _ => 0,
        };
        Duration::from_nanos(self.waited_ns.load(Ordering::Relaxed) + now_waiting)
    }

    /// Whether it waits for a lane at this moment.
    pub fn is_queued(&self) -> bool {
        self.queued_ns.load(Ordering::Relaxed) != 0
    }

    /// How many slices it has had.
    pub fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    /// Time from the first poll to the end, or until now; zero before the first poll.
    pub fn elapsed(&self) -> Duration {
        let first = self.first_poll_ns.load(Ordering::Relaxed);
        if first == 0 {
            return Duration::ZERO;
        }
        let until = match self.ended_ns.load(Ordering::Relaxed) {
            0 => clock::uptime_ns(Instant::now()),
            ended => ended,
        };
        Duration::from_nanos(until.saturating_sub(first))
    }

    /// How long ago the first poll began; none before it.
    pub fn since_first_poll(&self) -> Option<Duration> {
        let first = self.first_poll_ns.load(Ordering::Relaxed);
        (first != 0).then(|| Duration::from_nanos(clock::uptime_ns(Instant::now()).saturating_sub(first)))
    }

    fn queued(&self, now: Instant) {
        self.queued_ns.store(clock::uptime_ns(now), Ordering::Relaxed);
    }

    /// Notes that a poll begins; returns how long the task waited for it.
    pub(super) fn poll_begins(&self, now: Instant) -> Duration {
        let now_ns = clock::uptime_ns(now);
        let waited_ns = now_ns.saturating_sub(self.queued_ns.swap(0, Ordering::Relaxed).min(now_ns));
        if self.first_poll_ns.load(Ordering::Relaxed) == 0 {
            self.first_poll_ns.store(now_ns, Ordering::Relaxed);
        } else {
            self.waited_ns.fetch_add(waited_ns, Ordering::Relaxed);
        }
        Duration::from_nanos(waited_ns)
    }

    /// Notes what a poll cost; returns the number of polls so far and the CPU time so far.
    pub(super) fn poll_ended(&self, cpu_ns: u64) -> (u64, u64) {
        // Only the lane that polls writes these two, and one lane polls at a time.
        let polls = self.polls.load(Ordering::Relaxed) + 1;
        self.polls.store(polls, Ordering::Relaxed);
        let total_ns = self.cpu_ns.load(Ordering::Relaxed) + cpu_ns;
        self.cpu_ns.store(total_ns, Ordering::Relaxed);
        (polls, total_ns)
    }

    fn ended(&self) {
        // A task that is killed in the queue has waited until now.
        let now_ns = clock::uptime_ns(Instant::now());
        let queued_ns = self.queued_ns.swap(0, Ordering::Relaxed);
        if queued_ns != 0 && self.first_poll_ns.load(Ordering::Relaxed) != 0 {
            self.waited_ns.fetch_add(now_ns.saturating_sub(queued_ns), Ordering::Relaxed);
        }
        self.ended_ns.store(now_ns, Ordering::Relaxed);
    }
}

/// Parked: waits to be woken; nobody holds the future.
const IDLE: u8 = 0;
/// In the queue.
const QUEUED: u8 = 1;
/// A lane polls it.
const RUNNING: u8 = 2;
/// A lane polls it, and it was woken meanwhile.
const WOKEN: u8 = 3;
/// Over. Whoever moved it here takes the future out and tells the watcher.
const DONE: u8 = 4;

/// One future on the lanes. All moves between states are atomic, so that each task is polled by one lane at a time and its end is
/// told once.
pub(super) struct Task {
    state: AtomicU8,
    /// Someone wants it gone; looked at after each poll.
    kill: AtomicBool,
    /// Only whoever holds the task by its state locks this, so the lock never waits.
    work: Mutex<Option<Work>>,
    watcher: Arc<dyn Watcher>,
    /// CPU time after which it is ended, in nanoseconds.
    cpu_budget_ns: u64,
    pub(super) meter: Meter,
    pub(super) group: GroupKey,
    /// Keeps the group in the queue for as long as it has tasks.
    _group: Arc<super::GroupInner>,
    shared: Arc<Shared>,
}

/// What a lane does with a task after a poll.
pub(super) enum After {
    /// Back in the queue.
    Requeue,
    /// Nothing: a waker will bring it back.
    Park,
    /// It is over: finish it.
    Over(End),
}

impl Task {
    pub(super) fn new(
        group: &super::Group,
        shared: Arc<Shared>,
        work: Work,
        watcher: Arc<dyn Watcher>,
        cpu_budget: Option<Duration>,
    ) -> Arc<Task> {
        let cpu_budget_ns = cpu_budget.map_or(u64::MAX, |cpu| u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX));
        Arc::new(Task {
            state: AtomicU8::new(QUEUED),
            kill: AtomicBool::new(false),
            work: Mutex::new(Some(work)),
            watcher,
            cpu_budget_ns,
            meter: Meter::default(),
            group: group.key(),
            _group: group.inner(),
            shared,
        })
    }

    /// Puts a new task in the queue.
    pub(super) fn submit(self: Arc<Task>) {
        self.meter.queued(Instant::now());
        let shared = self.shared.clone();
        shared.push(self);
    }

    /// Takes a queued task for a poll; false if it was killed where it lay.
    pub(super) fn take_for_poll(&self) -> bool {
        self.moves(QUEUED, RUNNING)
    }

    /// The future, for the lane that holds the task.
    pub(super) fn work(&self) -> std::sync::MutexGuard<'_, Option<Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a poll that returned pending.
    pub(super) fn after_poll(&self, polls: u64, cpu_ns: u64) -> After {
        if self.kill.load(Ordering::SeqCst) {
            self.state.store(DONE, Ordering::SeqCst);
            return After::Over(End::Killed);
        }
        if cpu_ns > self.cpu_budget_ns {
            self.state.store(DONE, Ordering::SeqCst);
            return After::Over(End::OutOfCpu);
        }
        if polls == 1 {
            self.watcher.started(&self.meter);
        }
        if self.moves(RUNNING, IDLE) {
            // A kill between the look above and this move saw RUNNING and left the rest to this lane.
            if self.kill.load(Ordering::SeqCst) && self.moves(IDLE, DONE) {
                return After::Over(End::Killed);
            }
            return After::Park;
        }
        self.state.store(QUEUED, Ordering::SeqCst);
        self.meter.queued(Instant::now());
        After::Requeue
    }

    /// After a poll that returned for good, or panicked.
    pub(super) fn set_done(&self) {
        self.state.store(DONE, Ordering::SeqCst);
    }

    /// Drops the future if there still is one, and tells the watcher. For whoever moved the task to DONE, once.
    pub(super) fn finish(&self, end: End) {
        let work = self.work().take();
        drop(work);
        self.meter.ended();
        self.watcher.ended(end, &self.meter);
    }

    fn kill(self: &Arc<Task>) {
        self.kill.store(true, Ordering::SeqCst);
        // Where it lies, not when its turn comes: in the queue it is left as a husk that the lane skips.
        if self.moves(IDLE, DONE) || self.moves(QUEUED, DONE) {
            self.shared.reap_task(self.clone(), End::Killed);
        }
    }

    fn moves(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Wake for Task {
    fn wake(self: Arc<Task>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Task>) {
        loop {
            match self.state.load(Ordering::SeqCst) {
                IDLE => {
                    if self.moves(IDLE, QUEUED) {
                        self.meter.queued(Instant::now());
                        self.shared.push(self.clone());
                        return;
                    }
                }
                RUNNING => {
                    if self.moves(RUNNING, WOKEN) {
                        return;
                    }
                }
                _ => return,
            }
        }
    }
}

/// A task that was given to the lanes. Dropping the handle leaves the task alone.
#[derive(Clone)]
pub struct TaskHandle(pub(super) Arc<Task>);

impl TaskHandle {
    /// Ends the task: at once if it is queued or parked, else after the slice it is in. Its future is dropped on the reaper, and
    /// its watcher hears [`End::Killed`], unless it ended by itself before. Returns at once.
    pub fn kill(&self) {
        self.0.kill();
    }

    /// What the task has used up so far.
    pub fn meter(&self) -> &Meter {
        &self.0.meter
    }
}

impl fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle").field("meter", &self.0.meter).finish_non_exhaustive()
    }
}
