//! What lanes, wakers and the reaper share: the queue under its one mutex, and the way to each of them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::queue::{Queue, Turn};
use super::task::{End, Remains, Task};
use crate::wedge::{self, Point};

/// Held for the length of one push or pop; nothing is called while it is held.
struct Runnable {
    queue: Queue<Arc<Task>>,
    idle_lanes: usize,
    /// Lanes from this number on are parked.
    active_lanes: usize,
    stopping: bool,
}

/// What the reaper drops, away from the lanes.
pub(super) enum Dead {
    /// A task that was killed: its future goes, then its watcher hears of it.
    Task(Arc<Task>, End),
    /// What a task left behind.
    Remains(Box<dyn Send>),
}

/// A turn that is over: what it cost in CPU nanoseconds, and its task if that goes on.
pub(super) type LastTurn = (Turn, u64, Option<Arc<Task>>);

pub(super) struct Shared {
    runnable: Mutex<Runnable>,
    /// Told when there is something for an idle lane to do.
    work_there: Condvar,
    /// Told when parked lanes may go on.
    unparked: Condvar,
    /// Bounded by the number of tasks there are: each dies once.
    dead: Mutex<(VecDeque<Dead>, bool)>,
    death: Condvar,
}

impl Shared {
    pub(super) fn new() -> Arc<Shared> {
        Arc::new(Shared {
            runnable: Mutex::new(Runnable {
                queue: Queue::new(),
                idle_lanes: 0,
                active_lanes: usize::MAX,
                stopping: false,
            }),
            work_there: Condvar::new(),
            unparked: Condvar::new(),
            dead: Mutex::new((VecDeque::new(), false)),
            death: Condvar::new(),
        })
    }

    /// Locks the queue. A panic while it was held cannot leave it half changed for long: the next charge sets it right.
    fn lock(&self) -> MutexGuard<'_, Runnable> {
        self.runnable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn with_queue<R>(&self, change: impl FnOnce(&mut Queue<Arc<Task>>) -> R) -> R {
        change(&mut self.lock().queue)
    }

    pub(super) fn push(&self, task: Arc<Task>) {
        let mut runnable = self.lock();
        let key = task.group;
        // The group is there as long as one of its tasks is, and this is one.
        if runnable.queue.push(key, task).is_ok() && runnable.idle_lanes > 0 {
            drop(runnable);
            self.work_there.notify_one();
        }
    }

    /// Settles a lane's last turn, and puts its task back if it goes on.
    pub(super) fn settle(&self, last: Option<LastTurn>) {
        if last.is_some() {
            self.settle_locked(&mut self.lock(), last);
        }
    }

    fn settle_locked(&self, runnable: &mut Runnable, last: Option<LastTurn>) {
        let Some((turn, cpu_ns, again)) = last else { return };
        runnable.queue.charge(turn, cpu_ns);
        if let Some(task) = again {
            // As in `push`: the group outlives its tasks.
            let _ = runnable.queue.put_back(task.group, task);
            if runnable.idle_lanes > 0 {
                self.work_there.notify_one();
            }
        }
    }

    /// Settles the last turn, and waits for the next one; none when the lanes stop. While there are fewer lanes than this one's
    /// number, it sleeps. `idle` is called before the lane goes to sleep, `awake` after.
    pub(super) fn next(
        &self,
        lane: usize,
        last: Option<LastTurn>,
        idle: impl Fn(),
        awake: impl Fn(),
    ) -> Option<(Turn, Arc<Task>)> {
        let mut runnable = self.lock();
        self.settle_locked(&mut runnable, last);
        let mut slept = false;
        loop {
            if runnable.stopping {
                return None;
            }
            let is_parked = lane >= runnable.active_lanes;
            if !is_parked && let Some(next) = runnable.queue.pop() {
                if slept {
                    awake();
                }
                return Some(next);
            }
            if !slept {
                idle();
                slept = true;
            }
            if is_parked {
                // Whoever woke this lane for work meant one that may do it.
                if runnable.idle_lanes > 0 {
                    self.work_there.notify_one();
                }
                runnable = self.unparked.wait(runnable).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            runnable.idle_lanes += 1;
            runnable = self.work_there.wait(runnable).unwrap_or_else(PoisonError::into_inner);
            runnable.idle_lanes -= 1;
        }
    }

    /// Parks all lanes but the first `lanes`, each after the slice it is in, or lets them go on.
    pub(super) fn set_active_lanes(&self, lanes: usize) {
        self.lock().active_lanes = lanes.max(1);
        self.unparked.notify_all();
        self.work_there.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    pub(super) fn stop_lanes(&self) {
        self.lock().stopping = true;
        self.work_there.notify_all();
        self.unparked.notify_all();
    }

    pub(super) fn reap_task(&self, task: Arc<Task>, end: End) {
        self.reap(Dead::Task(task, end));
    }

    pub(super) fn reap_remains(&self, remains: Remains) {
        if let Some(remains) = remains {
            self.reap(Dead::Remains(remains));
        }
    }

    fn reap(&self, dead: Dead) {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).0.push_back(dead);
        self.death.notify_one();
    }

    /// Drops what is dead until [`Shared::stop_reaper`], and then what is left.
    pub(super) fn reap_until_stopped(&self) {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let batch = std::mem::take(&mut dead.0);
            if batch.is_empty() {
                if dead.1 {
                    return;
                }
                dead = self.death.wait(dead).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(dead);
            wedge::pass(Point::Reaper);
            for body in batch {
                // What panics while it is dropped has done its harm to itself; the others are still to be buried.
                let buried = catch_unwind(AssertUnwindSafe(|| match body {
                    Dead::Task(task, end) => task.finish(end),
                    Dead::Remains(remains) => drop(remains),
                }));
                if buried.is_err() {
                    tracing::error!("a run panicked while it was dropped: a fault of the host, please report it");
                }
            }
            dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn stop_reaper(&self) {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.death.notify_all();
    }
}
