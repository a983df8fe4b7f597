//! How long a guest can hold a lane: the longest single poll of every fixture there is.
//!
//! `longest_poll_ms_FIXTURE` is the lane thread's CPU time within one poll, `wall_ms_FIXTURE` the time on the clock beside it. CPU time is
//! the figure: a lane is nice, so that on the clock a poll also holds the time in which anyone else was preferred, which the guest
//! cannot help. Each fixture runs for some rounds, again and again if it ends; the figure is the median of the rounds' longest polls, so that one
//! interruption of the machine is not taken for the guest's doing. Acts of the Rust fixture are named `actor_ACT`.
//!
//! `bulk_ms_FIXTURE` are single operations over much memory, which nothing can break up: their bound is `limits.memory`, and they have no target.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use windlass::lanes::{LaneObserver, clock};
use windlass::telemetry::{self, Format};
use windlass_tests::{guest, root};

use crate::report::{Report, median};
use crate::stage::{Cast, Stage};

/// Fixtures whose longest poll is one operation over tens of MiB: filled, copied, or handed to the host as a path.
const BULK: [&str; 5] =
    ["fills_memory", "copies_memory", "opens_a_long_path", "actor_holds_memory", "actor_logs_a_long_line"];

/// What no poll may exceed, in milliseconds.
const TARGET_MS: f64 = 5.0;

struct Size {
    rounds: usize,
    round: Duration,
}

pub(crate) fn run(short: bool) -> Report {
    // In a process whose log goes nowhere: the fixtures write much, and what that costs is part of the poll.
    let mut arguments = vec!["slice-inside"];
    arguments.extend(short.then_some("--short"));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "the measuring process failed: {}", output.status);
    let mut report = Report::new("slice");
    let mut longest = 0.0_f64;
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let [name, cpu_ms, wall_ms] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let [cpu_ms, wall_ms] = [cpu_ms, wall_ms].map(|ms| ms.parse::<f64>().unwrap());
        if BULK.contains(&name) {
            report.figure(format!("bulk_ms_{name}"), cpu_ms);
            continue;
        }
        longest = longest.max(cpu_ms);
        report.at_most(format!("longest_poll_ms_{name}"), cpu_ms, TARGET_MS);
        report.figure(format!("wall_ms_{name}"), wall_ms);
    }
    report.at_most("longest_poll_ms", longest, TARGET_MS);
    report
}

/// The measuring process: a line for each fixture, with its milliseconds of CPU and of wall-clock time.
pub(crate) fn inside(short: bool) {
    telemetry::init(Format::Json).unwrap();
    let size = match short {
        true => Size { rounds: 3, round: Duration::from_millis(100) },
        false => Size { rounds: 7, round: Duration::from_millis(300) },
    };
    let polls = Arc::new(Polls::default());
    let stage = Stage::new(1, 8, polls.clone());
    for name in wat_fixtures() {
        if let Some(cast) = stage.prepare(&name, guest(&name), &[]) {
            tell(&name, measure(&stage, &cast, &polls, &size));
        }
    }
    for act in acts() {
        let cast = stage.prepare("actor", guest("actor"), &[("act", &act)]).expect("the actor is a component");
        tell(&format!("actor_{act}"), measure(&stage, &cast, &polls, &size));
    }
}

fn tell(name: &str, (cpu_ms, wall_ms): (f64, f64)) {
    println!("{name} {cpu_ms} {wall_ms}");
}

/// All there are, so that one that is added is measured.
fn wat_fixtures() -> Vec<String> {
    let folder = root().join("tests/fixtures/wat");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".wat")?.to_owned()))
        .collect();
    names.sort();
    names
}

/// The acts of the Rust fixture, as its own source lists them.
fn acts() -> Vec<String> {
    let source = std::fs::read_to_string(root().join("tests/fixtures/rust/actor/src/lib.rs")).unwrap();
    let acts: Vec<_> = source
        .lines()
        .filter_map(|line| Some(line.trim().strip_prefix('"')?.split_once("\" =>")?.0.to_owned()))
        .collect();
    assert!(acts.len() > 10, "the actor's acts are not where they were: {acts:?}");
    acts
}

fn measure(stage: &Stage, cast: &Cast, polls: &Polls, size: &Size) -> (f64, f64) {
    let (mut cpu, mut wall) = (Vec::new(), Vec::new());
    for _ in 0..size.rounds {
        polls.take();
        let until = Instant::now() + size.round;
        while Instant::now() < until {
            one(stage, cast, until);
        }
        let (cpu_ns, wall_ns) = polls.take();
        cpu.push(cpu_ns as f64 / 1e6);
        wall.push(wall_ns as f64 / 1e6);
    }
    (median(cpu), median(wall))
}

/// One attempt, killed when its time is up, and gone when this returns.
fn one(stage: &Stage, cast: &Cast, until: Instant) {
    let (tell, told) = mpsc::channel();
    let Some(task) = stage.spawn(&stage.group(), cast, None, tell) else {
        // Memory comes back a little later than the end of the one that held it.
        std::thread::sleep(Duration::from_millis(1));
        return;
    };
    if told.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
        task.kill();
        told.recv().unwrap();
    }
}

/// The one lane's longest poll.
#[derive(Default)]
struct Polls {
    cpu_began_ns: AtomicU64,
    wall_began_ns: AtomicU64,
    longest_cpu_ns: AtomicU64,
    longest_wall_ns: AtomicU64,
}

impl Polls {
    /// The longest since this was last asked.
    fn take(&self) -> (u64, u64) {
        (self.longest_cpu_ns.swap(0, Ordering::SeqCst), self.longest_wall_ns.swap(0, Ordering::SeqCst))
    }
}

impl LaneObserver for Polls {
    fn registered(&self, _: usize) {}

    fn poll_begins(&self, _: usize, _: Duration) {
        self.wall_began_ns.store(clock::uptime_ns(Instant::now()), Ordering::Relaxed);
        self.cpu_began_ns.store(clock::thread_cpu_ns(), Ordering::Relaxed);
    }

    fn poll_ended(&self, _: usize) {
        let cpu_ns = clock::thread_cpu_ns().saturating_sub(self.cpu_began_ns.load(Ordering::Relaxed));
        let wall_ns = clock::uptime_ns(Instant::now()).saturating_sub(self.wall_began_ns.load(Ordering::Relaxed));
        self.longest_cpu_ns.fetch_max(cpu_ns, Ordering::SeqCst);
        self.longest_wall_ns.fetch_max(wall_ns, Ordering::SeqCst);
    }

    fn idle(&self, _: usize) {}

    fn awake(&self, _: usize) {}
}
