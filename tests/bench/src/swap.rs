//! What a swap costs those who are due: a plugin that runs a hundred times a second is swapped while two hundred neighbours spin. Each
//! due time is accounted for, each run tells on which version it began and ended, and how late each version's first start is, is compared with all other starts of the same plugin.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use windlass_tests::schedule::{Count, millis};
use windlass_tests::telling::{Between, telling, told};
use windlass_tests::{Host, Scene};

use crate::report::{Report, percentile};

const PERIOD_MS: f64 = 10.0;

/// What one run told: when it was due, on which version, and how late it began.
struct Run {
    due_ms: i64,
    version: u64,
    late_ms: f64,
}

pub(crate) fn run(short: bool) -> Report {
    let (swaps, neighbours) = if short { (20, 200) } else { (100, 200) };
    let scene = Scene::new().guest("spins").file("p.wasm", &telling(1, Between::Nothing));
    let file = scene.plugins().join("p.wasm");
    // A hundred runs a second are more than one of 200 equal shares of two cores: what is looked for is what a swap costs, not that.
    let mut yaml = String::from(
        "plugins:\n  p: { source: file:p.wasm, every: 10ms, backoffLimit: 0, limits: { weight: 1000 } }\n",
    );
    for number in 0..neighbours {
        yaml += &format!("  n{number}: {{ source: file:spins.wasm, continuous: true }}\n");
    }
    let mut host = scene.run(&yaml);
    host.wait_until_ready();
    let mut runs = BTreeMap::new();
    let first = Count::of(&watch(&host, &mut runs, Duration::from_secs(2), |_| false));
    for swap in 1..=swaps {
        let beside = file.with_extension("new");
        fs::write(&beside, telling(swap + 1, Between::Nothing)).unwrap();
        fs::rename(&beside, &file).unwrap();
        let is_live = |plugin: &Value| plugin["lastRuns"][0]["version"].as_u64() == Some(u64::from(swap) + 1);
        watch(&host, &mut runs, Duration::from_secs(30), is_live);
    }
    let last = Count::of(&watch(&host, &mut runs, Duration::from_secs(1), |_| false));
    let due = last.due_since(&first, PERIOD_MS);
    let missing = due - (last.accounted - first.accounted);
    let (mut swapped, mut unswapped) = (Vec::new(), Vec::new());
    let (mut version, mut dues, mut doubled) = (1, BTreeMap::new(), 0.0);
    for run in runs.values() {
        // The first start of a version is the first that is due, whatever ended first.
        if run.version > version {
            swapped.push(run.late_ms)
        } else {
            unswapped.push(run.late_ms)
        }
        version = version.max(run.version);
        if dues.insert(run.due_ms, ()).is_some() {
            doubled += 1.0;
        }
    }
    swapped.sort_by(f64::total_cmp);
    unswapped.sort_by(f64::total_cmp);
    let plain = percentile(&unswapped, 0.99);
    let mut report = Report::new("swap");
    report.at_most("lost", missing.max(0.0), 0.0);
    report.at_most("doubled", doubled + (-missing).max(0.0), 0.0);
    // Each version tells the number that it has by its code and by its manifest, at the begin and at the end of a run.
    host.stop();
    let told = told(host.all_lines().iter());
    let of =
        || told.values().filter(|told| told.plugin == "p" && told.outcomes.iter().any(|(how, _)| how == "Succeeded"));
    report.at_most("mixed", of().filter(|told| told.is_mixed(Some)).count() as f64, 0.0);
    let is_whole = |told: &&windlass_tests::telling::Told| told.begins.len() == 1 && told.ends.len() == 1;
    report.at_least("told", of().filter(is_whole).count() as f64, of().count() as f64);
    report.at_most("lateness_p99_ms", percentile(&swapped, 0.99), plain + 5.0);
    report.figure("lateness_unswapped_p99_ms", plain);
    report.figure("skipped", last.skipped - first.skipped);
    report.figure("due", due);
    report.figure("swaps", swapped.len() as f64);
    report
}

/// Looks at the plugin often enough that none of its last ten runs is missed, until `is_it` or for so long.
fn watch(host: &Host, runs: &mut BTreeMap<u64, Run>, patience: Duration, is_it: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + patience;
    loop {
        let plugin = host.plugin("p");
        for run in plugin["lastRuns"].as_array().unwrap() {
            let due_ms = millis(&run["due"]);
            let began_ms = millis(&run["ended"]) as f64 - seconds(run["duration"].as_str().unwrap()) * 1_000.0;
            let late_ms = (began_ms - due_ms as f64).max(0.0);
            let version = run["version"].as_u64().unwrap();
            runs.insert(run["run"].as_u64().unwrap(), Run { due_ms, version, late_ms });
        }
        if is_it(&plugin) || Instant::now() >= until {
            return plugin;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The seconds of a .NET time span shorter than a minute.
fn seconds(span: &str) -> f64 {
    span.rsplit(':').next().unwrap().parse().unwrap()
}
