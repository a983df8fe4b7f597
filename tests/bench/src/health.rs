//! How long a probe waits: over fresh connections from another process, on an idle host and on one with 1,000 endless guests.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use windlass_tests::{Host, Scene, get};

use crate::report::{Report, median, percentile};

pub(crate) fn run(short: bool) -> Report {
    let (guests, rounds, probes) = if short { (200, 2, 200) } else { (1_000, 5, 1_000) };
    let idle = Scene::new().run("plugins: {}\n");
    let mut yaml = String::from("plugins:\n");
    for number in 0..guests {
        yaml += &format!("  p{number}: {{ source: file:spins.wasm, continuous: true }}\n");
    }
    let busy = Scene::new().guest("spins").run(&yaml);
    busy.wait_until_ready();
    std::thread::sleep(Duration::from_secs(2));
    let (mut idle_all, mut busy_all, mut ratios, mut failed) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        // The other one is stopped meanwhile, so that idle is idle.
        busy.signal("STOP");
        let (quiet, failed_idle) = probe(&idle, probes);
        busy.signal("CONT");
        std::thread::sleep(Duration::from_millis(500));
        let (loud, failed_busy) = probe(&busy, probes);
        ratios.push(median(loud.clone()) / median(quiet.clone()));
        failed += failed_idle + failed_busy;
        idle_all.extend(quiet);
        busy_all.extend(loud);
    }
    idle_all.sort_by(f64::total_cmp);
    busy_all.sort_by(f64::total_cmp);
    let mut report = Report::new("health");
    report.at_most("busy_p50_over_idle_p50", median(ratios), 2.0);
    report.at_most("failed_probes", failed as f64, 0.0);
    for (name, all) in [("idle", &idle_all), ("busy", &busy_all)] {
        for (what, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
            report.figure(format!("{name}_{what}_ms"), percentile(all, share));
        }
    }
    report.figure("guests", f64::from(guests));
    report
}

/// Probes from a process of its own; milliseconds of those that answered, and how many did not.
pub(crate) fn probe(host: &Host, probes: usize) -> (Vec<f64>, usize) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["prober", host.address(), &probes.to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let times: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let failed = probes - times.len();
    (times, failed)
}

/// The other process: one probe after another, with a short pause, one number a line.
pub(crate) fn prober(arguments: &[String]) {
    let [_, address, probes] = arguments else { return };
    for _ in 0..probes.parse().unwrap_or(0) {
        let began = Instant::now();
        if let Ok((200, _)) = get(address, "/health/live") {
            let took = began.elapsed();
            if took < Duration::from_secs(1) {
                println!("{}", took.as_secs_f64() * 1e3);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
