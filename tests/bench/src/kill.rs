//! How long a run lives on after its deadline or budget, on a host whose lanes are wanted by 1,000 guests in endless loops.
//!
//! `parked_p99_ms`: it waits in a host call. `queued_p99_ms`: it computes, and waits for a lane. `running_p99_ms`: it computes, and has a lane
//! to itself by its weight. All three by `attemptDeadlineSeconds` or `activeDeadlineSeconds` in the shipping binary: the attempt's own duration, which begins with its first
//! slice and ends when its future is gone, store and memory included, less the deadline. The host counts the deadline from a little
//! later, when it has heard of the first slice; that is part of the figure. `p99_ms` is the worst of the three.
//!
//! `budget_p99_ms`: it has used up `limits.cpuSeconds`; from the beginning of the slice in which it did, which is up to a slice too early, until its
//! future is gone. Timed from within, on the host's own lanes.

use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use windlass::lanes::{End, Unobserved};
use windlass_tests::{Host, Scene, guest};

use crate::report::{Report, percentile};
use crate::stage::Stage;

/// What the 99th percentile may be, in milliseconds.
const TARGET_MS: f64 = 20.0;

/// One kind of victim: `number` plugins, each started every `every_ms` (a little more for each, so that they do not go in step).
struct Kind {
    name: &'static str,
    guest: &'static str,
    number: u64,
    every_ms: u64,
    deadline: &'static str,
    deadline_ms: u64,
    weight: u32,
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "parked",
        guest: "sleeps",
        number: 10,
        every_ms: 900,
        deadline: "attemptDeadlineSeconds",
        deadline_ms: 300,
        weight: 1,
    },
    // An attempt that is cut off while it waits for a lane is tried again; its run is not.
    Kind {
        name: "queued",
        guest: "spins",
        number: 10,
        every_ms: 900,
        deadline: "activeDeadlineSeconds",
        deadline_ms: 300,
        weight: 1,
    },
    // The others stand back behind these by a factor of 10,000: whenever one of these runs, it has a lane.
    Kind {
        name: "running",
        guest: "spins",
        number: 2,
        every_ms: 350,
        deadline: "attemptDeadlineSeconds",
        deadline_ms: 100,
        weight: 10_000,
    },
];

pub(crate) fn run(short: bool) -> Report {
    let (spinners, seconds, budgets) = if short { (200, 8, 60) } else { (1_000, 60, 500) };
    let mut report = Report::new("kill");
    let by_deadline = deadlines(spinners, Duration::from_secs(seconds));
    let mut worst = 0.0_f64;
    for (kind, mut late_ms) in KINDS.iter().zip(by_deadline) {
        let name = kind.name;
        late_ms.sort_by(f64::total_cmp);
        let p99 = percentile(&late_ms, 0.99);
        worst = worst.max(p99);
        report.at_most(format!("{name}_p99_ms"), p99, TARGET_MS);
        report.figure(format!("{name}_p50_ms"), percentile(&late_ms, 0.5));
        report.figure(format!("{name}_max_ms"), percentile(&late_ms, 1.0));
        report.figure(format!("{name}_kills"), late_ms.len() as f64);
    }
    report.at_most("p99_ms", worst, TARGET_MS);
    let mut late_ms = by_budget(spinners, budgets);
    late_ms.sort_by(f64::total_cmp);
    report.at_most("budget_p99_ms", percentile(&late_ms, 0.99), TARGET_MS);
    report.figure("budget_p50_ms", percentile(&late_ms, 0.5));
    report.figure("budget_max_ms", percentile(&late_ms, 1.0));
    report.figure("budget_kills", late_ms.len() as f64);
    report.figure("guests", f64::from(spinners));
    report
}

/// How late the runs of each kind were gone, in milliseconds.
fn deadlines(spinners: u32, time: Duration) -> [Vec<f64>; KINDS.len()] {
    let mut yaml = String::from("defaults: { backoffLimit: 0, health: { quarantine: false } }\nplugins:\n");
    for number in 0..spinners {
        yaml += &format!("  p{number}: {{ source: file:spins.wasm, continuous: true, limits: {{ weight: 1 }} }}\n");
    }
    for Kind { name, guest, number, every_ms, deadline, deadline_ms, weight } in &KINDS {
        for nth in 0..*number {
            let (every_ms, deadline_s) = (every_ms + 17 * nth, *deadline_ms as f64 / 1e3);
            yaml += &format!(
                "  {name}-{nth}: {{ source: file:{guest}.wasm, every: {every_ms}ms, {deadline}: {deadline_s}, \
                 limits: {{ weight: {weight} }} }}\n"
            );
        }
    }
    let host = Scene::new().guest("spins").guest("sleeps").run(&yaml);
    host.wait_until_ready();
    let mut late_ms: [Vec<f64>; KINDS.len()] = Default::default();
    let mut seen = BTreeSet::new();
    let until = Instant::now() + time;
    while Instant::now() < until {
        // The report keeps ten runs of each plugin: more than there are in this time.
        std::thread::sleep(Duration::from_secs(1));
        for (kind, late_ms) in KINDS.iter().zip(&mut late_ms) {
            for nth in 0..kind.number {
                late_ms.extend(new_runs(&host, kind, nth, &mut seen));
            }
        }
    }
    late_ms
}

/// How late those runs were that have not been seen yet.
fn new_runs(host: &Host, kind: &Kind, nth: u64, seen: &mut BTreeSet<u64>) -> Vec<f64> {
    let plugin = host.plugin(&format!("{}-{nth}", kind.name));
    let runs = plugin["lastRuns"].as_array().unwrap();
    let new = runs.iter().filter(|run| seen.insert(run["run"].as_u64().unwrap()));
    new.map(|run| {
        let outcome = run["outcome"].as_str().unwrap();
        assert!(outcome.starts_with("DeadlineExceeded"), "{}: {run:#}", kind.name);
        let late_ms = milliseconds(run["duration"].as_str().unwrap()) - kind.deadline_ms as f64;
        assert!(late_ms >= 0.0, "{} was killed before its deadline: {run:#}", kind.name);
        late_ms
    })
    .collect()
}

/// Reads `hh:mm:ss.fffffff`.
fn milliseconds(timespan: &str) -> f64 {
    timespan.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap()) * 1e3
}

/// How long runs lived on after the slice began in which they used up their CPU time, in milliseconds.
fn by_budget(spinners: u32, kills: usize) -> Vec<f64> {
    const AT_ONCE: usize = 20;
    const BUDGET: Duration = Duration::from_millis(2);
    let lanes = std::thread::available_parallelism().map_or(1, usize::from);
    let stage = Stage::new(lanes, spinners + 200, Arc::new(Unobserved));
    let spins = stage.prepare("spins", guest("spins"), &[]).expect("it is a guest");
    let (nobody, _kept) = mpsc::channel();
    let others: Vec<_> = (0..spinners)
        .map(|_| stage.spawn(&stage.group(), &spins, None, nobody.clone()).expect("there is room for it"))
        .collect();
    let (tell, told) = mpsc::channel();
    let spawn = || stage.spawn(&stage.group(), &spins, Some(BUDGET), tell.clone()).expect("there is room for it");
    for _ in 0..AT_ONCE {
        spawn();
    }
    let mut late_ms = Vec::new();
    while late_ms.len() < kills {
        let gone = told.recv().unwrap();
        assert_eq!(gone.end, End::OutOfCpu);
        late_ms.push(gone.since_last_poll.as_secs_f64() * 1e3);
        spawn();
    }
    drop(others);
    late_ms
}
