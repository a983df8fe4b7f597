//! The lanes with futures that stand for guests: fairness, ends of every kind, and what a lane tells of itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop here")]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::*;

#[derive(Default)]
struct Counter {
    polls: AtomicUsize,
    registered: AtomicUsize,
}

impl LaneObserver for Counter {
    fn registered(&self, _: usize) {
        self.registered.fetch_add(1, Ordering::Relaxed);
    }
    fn poll_begins(&self, _: usize, _: Duration) {
        self.polls.fetch_add(1, Ordering::Relaxed);
    }
    fn poll_ended(&self, _: usize) {}
    fn idle(&self, _: usize) {}
    fn awake(&self, _: usize) {}
}

/// Lanes of their own, with the runtime that they need.
struct Rig {
    lanes: Option<Lanes>,
    _runtime: tokio::runtime::Runtime,
}

impl Rig {
    fn new(lanes: usize) -> Rig {
        let nice = priority::Niceness::among_others().unwrap();
        let runtime = guest_runtime(nice).unwrap();
        let pacer = Pacer::new();
        let options = Options { lanes, runtime: runtime.handle().clone(), pacer, niceness: nice };
        Rig { lanes: Some(Lanes::start(&options, Arc::new(Counter::default())).unwrap()), _runtime: runtime }
    }

    fn lanes(&self) -> &Lanes {
        self.lanes.as_ref().unwrap()
    }
}

/// Burns CPU in slices until it is told to stop, or has burnt as many as it was given.
struct Spins {
    slices: usize,
    stop: Arc<AtomicBool>,
}

const SLICE_LENGTH: Duration = Duration::from_micros(60);

impl Future for Spins {
    type Output = Remains;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Remains> {
        let began = Instant::now();
        while began.elapsed() < SLICE_LENGTH {
            std::hint::spin_loop();
        }
        self.slices -= 1;
        if self.slices == 0 || self.stop.load(Ordering::Relaxed) {
            return Poll::Ready(None);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

struct Tells {
    started: AtomicBool,
    ended: mpsc::SyncSender<End>,
}

impl Watcher for Tells {
    fn started(&self, _: &Meter) {
        self.started.store(true, Ordering::Relaxed);
    }
    fn ended(&self, end: End, _: &Meter) {
        self.ended.send(end).unwrap();
    }
}

fn tells() -> (Arc<Tells>, mpsc::Receiver<End>) {
    let (ended, told) = mpsc::sync_channel(2);
    (Arc::new(Tells { started: AtomicBool::new(false), ended }), told)
}

/// Adds the CPU time of all its tasks up.
#[derive(Default)]
struct Sums(AtomicU64);

impl Watcher for Sums {
    fn started(&self, _: &Meter) {}
    fn ended(&self, _: End, meter: &Meter) {
        self.0.fetch_add(meter.cpu().as_nanos() as u64, Ordering::Relaxed);
    }
}

fn spinner(lanes: &Lanes, group: &Group, stop: &Arc<AtomicBool>) -> TaskHandle {
    lanes.spawn(group, Box::pin(Spins { slices: usize::MAX, stop: stop.clone() }), Arc::new(Sums::default()), None)
}

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_newcomer_among_a_thousand_spinners_gets_no_more_than_its_share() {
    let rig = Rig::new(2);
    let stop = Arc::new(AtomicBool::new(false));
    let groups: Vec<_> = (0..1000).map(|_| rig.lanes().group(100)).collect();
    let old: Vec<_> = groups.iter().map(|group| spinner(rig.lanes(), group, &stop)).collect();
    // What these turns cost is not known at first: until then some have more of them.
    let until = Instant::now() + SOON;
    while old.iter().any(|task| task.meter().polls() < 10) {
        assert!(Instant::now() < until, "some never have a turn");
        std::thread::sleep(Duration::from_millis(10));
    }
    let before: Duration = old.iter().map(|task| task.meter().cpu()).sum();
    let newcomer_group = rig.lanes().group(100);
    let newcomer = spinner(rig.lanes(), &newcomer_group, &stop);
    std::thread::sleep(Duration::from_secs(1));
    let share = (old.iter().map(|task| task.meter().cpu()).sum::<Duration>() - before) / 1000;
    let got = newcomer.meter().cpu();
    stop.store(true, Ordering::Relaxed);
    // Its share, and the slice that it may be ahead by.
    assert!(got <= share + 4 * SLICE_LENGTH && got > Duration::ZERO, "{got:?} where a share is {share:?}");
}

#[test]
fn a_hundred_tasks_of_one_group_get_one_groups_share() {
    let rig = Rig::new(2);
    let stop = Arc::new(AtomicBool::new(false));
    let (crowd, singles) = (rig.lanes().group(100), (0..9).map(|_| rig.lanes().group(100)).collect::<Vec<_>>());
    let many: Vec<_> = (0..100).map(|_| spinner(rig.lanes(), &crowd, &stop)).collect();
    let ones: Vec<_> = singles.iter().map(|group| spinner(rig.lanes(), group, &stop)).collect();
    std::thread::sleep(Duration::from_millis(1500));
    let crowd_cpu: Duration = many.iter().map(|task| task.meter().cpu()).sum();
    let one_cpu = ones.iter().map(|task| task.meter().cpu()).sum::<Duration>() / 9;
    stop.store(true, Ordering::Relaxed);
    let ratio = crowd_cpu.as_secs_f64() / one_cpu.as_secs_f64();
    assert!((0.8..1.25).contains(&ratio), "the crowd of 100 got {ratio} shares");
}

#[test]
fn short_runs_back_to_back_get_one_groups_share() {
    let rig = Rig::new(2);
    let stop = Arc::new(AtomicBool::new(false));
    let (short, singles) = (rig.lanes().group(100), (0..3).map(|_| rig.lanes().group(100)).collect::<Vec<_>>());
    let ones: Vec<_> = singles.iter().map(|group| spinner(rig.lanes(), group, &stop)).collect();
    let sums = Arc::new(Sums::default());
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        let (watcher, told) = tells();
        let task = Spins { slices: 1, stop: stop.clone() };
        let task = rig.lanes().spawn(&short, Box::pin(task), watcher, None);
        assert_eq!(told.recv_timeout(SOON), Ok(End::Returned));
        sums.0.fetch_add(task.meter().cpu().as_nanos() as u64, Ordering::Relaxed);
    }
    let short_cpu = Duration::from_nanos(sums.0.load(Ordering::Relaxed));
    let one_cpu = ones.iter().map(|task| task.meter().cpu()).sum::<Duration>() / 3;
    stop.store(true, Ordering::Relaxed);
    assert!(short_cpu <= one_cpu.mul_f64(1.25), "short runs got {short_cpu:?}, a spinner {one_cpu:?}");
}

#[test]
fn a_task_is_killed_where_it_lies_parked_queued_or_running() {
    let rig = Rig::new(1);
    let group = rig.lanes().group(100);
    let stop = Arc::new(AtomicBool::new(false));

    let (watcher, told) = tells();
    let parked = rig.lanes().spawn(&group, Box::pin(std::future::pending()), watcher.clone(), None);
    while !watcher.started.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
    parked.kill();
    assert_eq!(told.recv_timeout(SOON), Ok(End::Killed));

    let (watcher, told) = tells();
    let work = Box::pin(Spins { slices: usize::MAX, stop: stop.clone() });
    let running = rig.lanes().spawn(&group, work, watcher.clone(), None);
    while !watcher.started.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
    // The one lane is kept by a future that does not return: whoever comes now stays in the queue.
    let hold = Arc::new(AtomicBool::new(true));
    let (holding, held) = mpsc::sync_channel(1);
    let keeps = hold.clone();
    let (blocker, blocked) = tells();
    rig.lanes().spawn(
        &rig.lanes().group(100),
        Box::pin(async move {
            holding.send(()).unwrap();
            while keeps.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            None
        }),
        blocker,
        None,
    );
    held.recv_timeout(SOON).unwrap();
    let (watcher, queued_told) = tells();
    let queued = rig.lanes().spawn(&group, Box::pin(async { panic!("it must never begin") }), watcher, None);
    queued.kill();
    assert_eq!(queued_told.recv_timeout(SOON), Ok(End::Killed), "it must not wait for its turn");
    assert_eq!(queued.meter().polls(), 0);
    hold.store(false, Ordering::Relaxed);
    assert_eq!(blocked.recv_timeout(SOON), Ok(End::Returned));

    running.kill();
    assert_eq!(told.recv_timeout(SOON), Ok(End::Killed));
    running.kill();
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "an end is told once");
}

#[test]
fn a_budget_of_cpu_time_ends_a_task_between_slices() {
    let rig = Rig::new(1);
    let (watcher, told) = tells();
    let stop = Arc::new(AtomicBool::new(false));
    let work = Box::pin(Spins { slices: usize::MAX, stop });
    let task = rig.lanes().spawn(&rig.lanes().group(100), work, watcher, Some(Duration::from_millis(20)));
    assert_eq!(told.recv_timeout(SOON), Ok(End::OutOfCpu));
    assert!(task.meter().cpu() >= Duration::from_millis(20));
}

#[test]
fn a_panic_ends_one_task_and_the_lane_goes_on() {
    let rig = Rig::new(1);
    let group = rig.lanes().group(100);
    let (watcher, told) = tells();
    rig.lanes().spawn(&group, Box::pin(async { panic!("on purpose") }), watcher, None);
    assert_eq!(told.recv_timeout(SOON), Ok(End::Panicked("on purpose".to_owned())));
    let (watcher, told) = tells();
    rig.lanes().spawn(&group, Box::pin(async { None }), watcher, None);
    assert_eq!(told.recv_timeout(SOON), Ok(End::Returned));
}

#[test]
fn a_parked_task_uses_no_cpu_and_waits_for_no_lane() {
    let rig = Rig::new(1);
    let (watcher, told) = tells();
    let work = Box::pin(async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        None
    });
    let task = rig.lanes().spawn(&rig.lanes().group(100), work, watcher, None);
    assert_eq!(told.recv_timeout(SOON), Ok(End::Returned));
    let meter = task.meter();
    assert!(meter.elapsed() >= Duration::from_millis(300), "{meter:?}");
    assert!(meter.cpu() < Duration::from_millis(50) && meter.polls() < 10, "{meter:?}");
}

#[test]
fn what_is_left_behind_is_dropped_away_from_the_lane() {
    struct Body(mpsc::SyncSender<String>);
    impl Drop for Body {
        fn drop(&mut self) {
            self.0.send(std::thread::current().name().unwrap().to_owned()).unwrap();
        }
    }
    let rig = Rig::new(1);
    let (sender, dropped_on) = mpsc::sync_channel(1);
    let (watcher, told) = tells();
    let work = Box::pin(async move { Some(Box::new(Body(sender)) as Box<dyn Send>) });
    rig.lanes().spawn(&rig.lanes().group(100), work, watcher, None);
    assert_eq!(told.recv_timeout(SOON), Ok(End::Returned));
    assert_eq!(dropped_on.recv_timeout(SOON).unwrap(), "reaper");
}

#[test]
fn each_lane_registers_and_all_threads_have_their_niceness() {
    let nice = priority::Niceness::among_others().unwrap();
    let runtime = guest_runtime(nice).unwrap();
    let counter = Arc::new(Counter::default());
    let pacer = Pacer::new();
    let options = Options { lanes: 3, runtime: runtime.handle().clone(), pacer, niceness: nice };
    let lanes = Lanes::start(&options, counter.clone()).unwrap();
    let blocking = runtime.handle().spawn_blocking(move || nice.verify(priority::Role::Guest));
    runtime.block_on(blocking).unwrap().unwrap();
    drop(lanes);
    assert_eq!(counter.registered.load(Ordering::Relaxed), 3);
}
