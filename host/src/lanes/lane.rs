//! A lane: one thread that takes the next task, polls it once, and puts it back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::governor::Pacer;
use super::shared::{LastTurn, Shared};
use super::task::{After, End, Remains, Task};
use super::{LaneObserver, clock, slice};
use crate::wedge::{self, Point};

/// Runs until [`Shared::stop_lanes`].
pub(super) fn run(shared: &Shared, pacer: &Pacer, observer: &dyn LaneObserver, lane: usize) {
    let mut last = None;
    let mut cpu_before_ns = clock::thread_cpu_ns();
    loop {
        if pacer.is_limited() {
            pace(shared, pacer, &mut last);
        }
        let next = shared.next(lane, last.take(), || observer.idle(lane), || observer.awake(lane));
        let Some((turn, task)) = next else { return };
        if !task.take_for_poll() {
            // Killed while it lay in the queue. Nothing was used, and nothing is charged.
            last = Some((turn, 0, None));
            continue;
        }
        let began = Instant::now();
        let waited = task.meter.poll_begins(began);
        observer.poll_begins(lane, waited);
        wedge::pass(Point::Lane);
        slice::begin(began);
        let polled = poll(&task);
        slice::end();
        // The time between two polls, which is the lanes' own work for them, is charged to the later one.
        let cpu_now_ns = clock::thread_cpu_ns();
        let cpu_ns = cpu_now_ns.saturating_sub(cpu_before_ns);
        cpu_before_ns = cpu_now_ns;
        let (polls, cpu_so_far_ns) = task.meter.poll_ended(cpu_ns);
        observer.poll_ended(lane);
        last = match polled {
            Polled::Pending => match task.after_poll(polls, cpu_so_far_ns) {
                After::Requeue => Some((turn, cpu_ns, Some(task))),
                After::Park => Some((turn, cpu_ns, None)),
                After::Over(end) => {
                    shared.reap_task(task, end);
                    Some((turn, cpu_ns, None))
                }
            },
            Polled::Over(end, remains) => {
                task.set_done();
                task.finish(end);
                shared.reap_remains(remains);
                Some((turn, cpu_ns, None))
            }
        };
    }
}

/// Charges the last turn, and sleeps where the limit demands it. Nothing is held meanwhile: what is queued can be killed or taken by
/// another lane.
fn pace(shared: &Shared, pacer: &Pacer, last: &mut Option<LastTurn>) {
    let cpu_ns = last.as_ref().map_or(0, |(_, cpu_ns, _)| *cpu_ns);
    if !pacer.must_wait(cpu_ns) {
        return;
    }
    shared.settle(last.take());
    loop {
        pacer.wait();
        if shared.is_stopping() || !pacer.is_limited() || !pacer.must_wait(0) {
            return;
        }
    }
}

enum Polled {
    Pending,
    Over(End, Remains),
}

fn poll(task: &Arc<Task>) -> Polled {
    let waker = Waker::from(task.clone());
    let mut work = task.work();
    let Some(future) = work.as_mut() else { return Polled::Over(End::Killed, None) };
    match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker)))) {
        Ok(Poll::Pending) => Polled::Pending,
        Ok(Poll::Ready(remains)) => {
            *work = None;
            Polled::Over(End::Returned, remains)
        }
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a panic without a message".to_owned());
            // What a future that panicked leaves behind is dropped on the reaper too: it may panic once more.
            let broken = work.take().map(|future| Box::new(future) as Box<dyn Send>);
            Polled::Over(End::Panicked(text), broken)
        }
    }
}
