//! What many plugins do at once. One of these at a time: each fills the machine.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use windlass_tests::{Group, Launch, PATIENCE, Scene};

use super::How::Scene as By;
use super::runner::{self, BYSTANDERS, Bystanders};
use super::{Row, rows};

/// Held by whoever fills the machine.
static MACHINE: Mutex<()> = Mutex::new(());

rows! {
    ten_thousand_due_at_once: Row {
        fault: "10,000 plugins are due at the same instant",
        outcome: Some("Succeeded"),
        status: "Healthy",
        reason: None,
        well_within: Duration::from_secs(20),
        how: By(ten_thousand_due_at_once),
    };
    queued_behind_a_thousand: Row {
        fault: "a deadline is reached while queued behind 1,000 others that spin (the punctual ones have a hundred times the weight)",
        outcome: Some("DeadlineExceeded(Starved)"),
        status: "Healthy",
        reason: Some("starved past their deadline"),
        well_within: Duration::from_secs(10),
        how: By(queued_behind_a_thousand),
    };
    memory_of_the_container: Row {
        fault: "many plugins at once reach the container's memory limit",
        outcome: Some("OutOfMemory(Host)"),
        status: "Degraded",
        reason: Some("limits.memory"),
        well_within: Duration::from_secs(20),
        how: By(memory_of_the_container),
    };
}

pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sum of one of the metrics of all plugins.
fn sum(host: &windlass_tests::Host, metric: &str) -> u64 {
    let (_, text) = host.get("/metrics");
    text.lines()
        .filter(|line| line.starts_with(metric))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .map(|value| value as u64)
        .sum()
}

fn ten_thousand_due_at_once(row: &Row) {
    const MANY: u64 = 10_000;
    let _machine = alone();
    let mut more = String::from("readyTimeoutSeconds: 600\nplugins:\n");
    for number in 0..MANY {
        more += &format!("  p{number}: {{ source: file:succeeds.wasm, every: 8s }}\n");
    }
    // The bystanders are among them: the list goes on with them.
    let scene = Scene::new().guest("succeeds");
    let mut yaml = more;
    for name in BYSTANDERS {
        yaml += &format!(
            "  {name}: {{ source: file:succeeds.wasm, every: 200ms, concurrencyPolicy: Allow, maxConcurrent: 10 }}\n"
        );
    }
    let host = scene.launch(&yaml, &Launch::default());
    let runs = "windlass_runs_total{plugin=\"p";
    let until = Instant::now() + PATIENCE * 3;
    while sum(&host, runs) < MANY {
        assert!(Instant::now() < until, "only {} have run", sum(&host, runs));
        std::thread::sleep(Duration::from_millis(200));
    }
    // A stop for as long as their period: then all of them are due in the same moment, which no configuration can bring about so exactly.
    host.signal("STOP");
    std::thread::sleep(Duration::from_secs(8));
    host.signal("CONT");
    let began = Instant::now();
    let mut bystanders = Bystanders::watch(&host);
    // Ten thousand go before them: those who use little go first, and all of these used less.
    bystanders.worst = row.well_within;
    let before = sum(&host, runs);
    while sum(&host, runs) < before + MANY {
        assert!(began.elapsed() < row.well_within, "{} of {MANY} have run", sum(&host, runs) - before);
        std::thread::sleep(Duration::from_millis(200));
    }
    eprintln!("{}: all have run after {:?}", row.fault, began.elapsed());
    bystanders.were_punctual(&host);
    let entry = &host.json("/health")["entries"]["p9999"];
    assert_eq!(entry["status"], row.status, "{entry}");
    assert_eq!(host.wait_for_run("p9999")["outcome"].as_str(), row.outcome);
}

fn queued_behind_a_thousand(row: &Row) {
    const MANY: usize = 1_000;
    let _machine = alone();
    let mut yaml = String::from("readyTimeoutSeconds: 600\nplugins:\n");
    for number in 0..MANY {
        yaml += &format!("  a{number}: {{ source: file:spins.wasm, continuous: true }}\n");
    }
    for name in BYSTANDERS {
        yaml += &format!(
            "  {name}: {{ source: file:succeeds.wasm, every: 200ms, concurrencyPolicy: Allow, maxConcurrent: 10, \
             limits: {{ weight: 10000 }} }}\n"
        );
    }
    yaml += "  zzz: { source: file:spins.wasm, every: 1h, activeDeadlineSeconds: 3, backoffLimit: 3 }\n";
    let host = Scene::new().guest("spins").guest("succeeds").launch(&yaml, &Launch::default());
    host.wait_until_ready();
    let bystanders = Bystanders::watch(&host);
    let run = host.wait_for_run("zzz");
    bystanders.were_punctual(&host);
    assert_eq!(run["outcome"].as_str(), row.outcome, "{run}");
    let took = runner::since(&run["due"], &run["ended"]);
    assert!(took <= row.well_within.as_secs_f64(), "{took} s: {run}");
    eprintln!(
        "{}: gone {took} s after it was due, {} s of them without a lane",
        row.fault, run["waitedForLaneSeconds"]
    );
    let plugin = host.plugin("zzz");
    assert_eq!((&plugin["failuresInRow"], &plugin["status"]), (&0.into(), &row.status.into()), "{plugin}");
    let told = host.json("/health")["entries"]["windlass"]["description"].to_string();
    assert!(told.contains(row.reason.unwrap()), "{told}");
}

fn memory_of_the_container(row: &Row) {
    const LIMIT: u64 = 1 << 30;
    let Some(group) = Group::new("memory") else { return };
    let _machine = alone();
    group.set("memory.limit_in_bytes", &LIMIT.to_string());
    let mut yaml = String::from("plugins:\n");
    for number in 0..20 {
        yaml += &format!(
            "  h{number}: {{ source: file:hoards_and_touches.wasm, every: 500ms, backoffLimit: 0, health: {{ quarantine: false }}, \
             limits: {{ memory: 256Mi }} }}\n"
        );
    }
    for name in BYSTANDERS {
        yaml += &format!(
            "  {name}: {{ source: file:succeeds.wasm, every: 200ms, concurrencyPolicy: Allow, maxConcurrent: 10 }}\n"
        );
    }
    let scene = Scene::new().guest("hoards_and_touches").guest("succeeds");
    let host = scene.launch(&yaml, &Launch { groups: &[&group], ..Launch::default() });
    host.wait_until_ready();
    let bystanders = Bystanders::watch(&host);
    let is_refused = |name: &str| {
        // It costs no attempt, so the run goes on after a pause.
        let plugin = host.plugin(name);
        let is_shown = |part: &str| plugin["exception"].as_str().is_some_and(|shown| shown.contains(part));
        plugin["status"] == row.status && is_shown(row.outcome.unwrap()) && is_shown(row.reason.unwrap())
    };
    let began = Instant::now();
    let refused = loop {
        if let Some(name) = (0..20).map(|number| format!("h{number}")).find(|name| is_refused(name)) {
            break name;
        }
        assert!(began.elapsed() < row.well_within, "nobody reached it");
        std::thread::sleep(Duration::from_millis(50));
    };
    std::thread::sleep(Duration::from_secs(3));
    bystanders.were_punctual(&host);
    let peak: u64 = group.get("memory.max_usage_in_bytes").trim().parse().unwrap();
    eprintln!("{}: {} MiB of {} MiB at most; first {refused}", row.fault, peak >> 20, LIMIT >> 20);
    assert!(group.get("memory.oom_control").contains("oom_kill 0"), "{}", group.get("memory.oom_control"));
    drop(host);
}
