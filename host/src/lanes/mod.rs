//! The executor for guests: a few threads at low priority, each polling one task for one slice at a time, fairly between groups.
//!
//! Guests never run on tokio's workers, and nothing but guests runs here. A task is a future; a group is whoever its tasks' time
//! is charged to. What either is for, the lanes do not know.

pub mod cgroup;
pub mod clock;
pub mod governor;
mod lane;
pub mod priority;
mod queue;
mod runtime;
mod shared;
pub mod slice;
mod task;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use governor::Pacer;
use priority::{Niceness, Role};
use queue::GroupKey;
pub use runtime::guest_runtime;
use shared::Shared;
use task::Task;
pub use task::{End, Meter, Remains, TaskHandle, Watcher, Work};

/// Is told what each lane does, so that someone can see whether it still moves. Called at every poll: must cost nanoseconds.
pub trait LaneObserver: Send + Sync + 'static {
    /// The lane's thread has begun; called on it, once, before anything else.
    fn registered(&self, lane: usize);
    /// A poll begins, after the task waited so long for it.
    fn poll_begins(&self, lane: usize, waited: Duration);
    /// That poll is over.
    fn poll_ended(&self, lane: usize);
    /// The lane has nothing to do and goes to sleep.
    fn idle(&self, lane: usize);
    /// It has been woken.
    fn awake(&self, lane: usize);
}

/// Looks at nothing: for one run that a person watches, and for benchmarks.
#[derive(Debug, Clone, Copy)]
pub struct Unobserved;

impl LaneObserver for Unobserved {
    fn registered(&self, _: usize) {}
    fn poll_begins(&self, _: usize, _: Duration) {}
    fn poll_ended(&self, _: usize) {}
    fn idle(&self, _: usize) {}
    fn awake(&self, _: usize) {}
}

/// How many lanes, and where their host calls find a runtime.
#[derive(Debug)]
pub struct Options {
    /// How many threads; at least one. All of them work, until [`LaneCount::set`] parks some.
    pub lanes: usize,
    /// The guests' own tokio runtime: its timers, sockets and blocking pool. Never the host's.
    pub runtime: tokio::runtime::Handle,
    /// Holds them back where there is a CPU limit.
    pub pacer: Arc<Pacer>,
    /// How nice threads are.
    pub niceness: Niceness,
}

/// The lanes' threads and the reaper. Dropping it stops them: tasks that are left are neither polled nor told of any more.
pub struct Lanes {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    reaper: Option<JoinHandle<()>>,
}

impl Lanes {
    /// Starts the threads, and waits until each has the niceness of its role.
    ///
    /// # Errors
    /// If a thread cannot be spawned or does not get its niceness.
    pub fn start(options: &Options, observer: Arc<dyn LaneObserver>) -> Result<Lanes> {
        let mut lanes = Lanes { shared: Shared::new(), threads: Vec::new(), reaper: None };
        let nice = options.niceness;
        for lane in 0..options.lanes.max(1) {
            let (shared, observer, runtime) = (lanes.shared.clone(), observer.clone(), options.runtime.clone());
            let pacer = options.pacer.clone();
            lanes.threads.push(spawn(format!("lane-{lane}"), Role::Guest, nice, move || {
                observer.registered(lane);
                let _runtime = runtime.enter();
                lane::run(&shared, &pacer, &*observer, lane);
            })?);
        }
        let (shared, runtime) = (lanes.shared.clone(), options.runtime.clone());
        lanes.reaper = Some(spawn("reaper".to_owned(), Role::Guest, nice, move || {
            // What a guest held may hold timers and sockets, which want their runtime when they are dropped.
            let _runtime = runtime.enter();
            shared.reap_until_stopped();
        })?);
        Ok(lanes)
    }

    /// The handle that parks lanes.
    pub fn count(&self) -> LaneCount {
        LaneCount(self.shared.clone())
    }

    /// Makes a group: its tasks together get `weight` hundredths of a share. It goes when its last task and handle are gone.
    pub fn group(&self, weight: u32) -> Group {
        let key = self.shared.with_queue(|queue| queue.add_group(weight));
        Group(Arc::new(GroupInner { key, shared: self.shared.clone() }))
    }

    /// Gives a task to the lanes. `cpu_budget` is looked at between slices.
    pub fn spawn(
        &self,
        group: &Group,
        work: Work,
        watcher: Arc<dyn Watcher>,
        cpu_budget: Option<Duration>,
    ) -> TaskHandle {
        let task = Task::new(group, self.shared.clone(), work, watcher, cpu_budget);
        let handle = TaskHandle(task.clone());
        task.submit();
        handle
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.shared.stop_lanes();
        for thread in self.threads.drain(..) {
            // A lane catches what its tasks throw; should it have died all the same, there is nothing left to stop.
            let _ = thread.join();
        }
        self.shared.stop_reaper();
        if let Some(thread) = self.reaper.take() {
            let _ = thread.join();
        }
    }
}

/// Says how many of the lanes work; the others are parked, which costs nothing.
#[derive(Clone)]
pub struct LaneCount(Arc<Shared>);

impl LaneCount {
    /// From now on so many, at least one. A lane that is to be parked ends its slice first.
    pub fn set(&self, lanes: usize) {
        self.0.set_active_lanes(lanes);
    }
}

impl fmt::Debug for LaneCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneCount").finish_non_exhaustive()
    }
}

/// Whose time the tasks of one plugin are charged to.
#[derive(Clone)]
pub struct Group(Arc<GroupInner>);

pub(in crate::lanes) struct GroupInner {
    key: GroupKey,
    shared: Arc<Shared>,
}

impl Group {
    fn key(&self) -> GroupKey {
        self.0.key
    }

    fn inner(&self) -> Arc<GroupInner> {
        self.0.clone()
    }
}

impl Drop for GroupInner {
    fn drop(&mut self) {
        // Empty by now, but for husks of tasks that were killed in the queue. They go outside of the lock.
        let husks = self.shared.with_queue(|queue| queue.remove_group(self.key));
        drop(husks);
    }
}

/// Spawns a thread, and waits until it has the niceness of its role.
fn spawn(name: String, role: Role, niceness: Niceness, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let what = format!("starting the thread {name}");
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            let ready = niceness.take(role);
            let go = ready.is_ok();
            // The other side waits for exactly this.
            let _ = tell.send(ready);
            if go {
                body();
            }
        })
        .with_context(|| what.clone())?;
    told.recv().context("the thread died at once").and_then(|ready| ready).context(what)?;
    Ok(thread)
}
