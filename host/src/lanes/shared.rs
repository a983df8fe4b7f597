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
    stopping: bool,
}

/// What the reaper drops, away from the lanes.
pub(super) enum Dead {
    /// A task that was killed: its future goes, then its watcher hears of it.
    Task(Arc<Task>, End),
    /// What a task left behind.
    Remains(Box<dyn Send>),
}

pub(super) struct Shared {
    runnable: Mutex<Runnable>,
    /// Told when there is something for an idle lane to do.
    work_there: Condvar,
    /// Bounded by the number of tasks there are: each dies once.
    dead: Mutex<(VecDeque<Dead>, bool)>,
    death: Condvar,
}

impl Shared {
    pub(super) fn new() -> Arc<Shared> {
        Arc::new(Shared {
            runnable: Mutex::new(Runnable { queue: Queue::new(), idle_lanes: 0, stopping: false }),
            work_there: Condvar::new(),
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

    /// Settles the last turn, puts its task back if it goes on, and waits for the next one; none when the lanes stop.
    /// `idle` is called before the lane goes to sleep, `awake` after.
    pub(super) fn next(
        &self,
        last: Option<(Turn, u64, Option<Arc<Task>>)>,
        idle: impl Fn(),
        awake: impl Fn(),
    ) -> Option<(Turn, Arc<Task>)> {
        let mut runnable = self.lock();
        if let Some((turn, cpu_ns, again)) = last {
            runnable.queue.charge(turn, cpu_ns);
            if let Some(task) = again {
                // As in `push`: the group outlives its tasks.
                let _ = runnable.queue.push(task.group, task);
                if runnable.idle_lanes > 0 {
                    self.work_there.notify_one();
                }
            }
        }
        let mut slept = false;
        loop {
            if runnable.stopping {
                return None;
            }
            if let Some(next) = runnable.queue.pop() {
                if slept {
                    awake();
                }
                return Some(next);
            }
            if !slept {
                idle();
                slept = true;
            }
            runnable.idle_lanes += 1;
            runnable = self.work_there.wait(runnable).unwrap_or_else(PoisonError::into_inner);
            runnable.idle_lanes -= 1;
        }
    }

    pub(super) fn stop_lanes(&self) {
        self.lock().stopping = true;
        self.work_there.notify_all();
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
