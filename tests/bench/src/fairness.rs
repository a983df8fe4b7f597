//! Whether shares are equal: endless guests in a real host, CPU time by plugin out of its metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass_tests::{Host, Scene};

use crate::report::Report;

pub(crate) fn run(short: bool) -> Report {
    // A run in progress is sampled once a second, so that each plugin's figure is up to that old: a twentieth of 20 s, which is the target.
    let (plugins, seconds) = if short { (200, 4) } else { (1_000, 60) };
    let mut report = Report::new("fairness");
    let shares = shares(plugins, seconds, |_| 100);
    let (least, most) =
        shares.values().fold((f64::MAX, 0.0_f64), |(least, most), share| (least.min(*share), most.max(*share)));
    report.at_most("share_max_over_min", most / least, 1.05);
    report.figure("guests", f64::from(plugins));

    let weight = |number: u32| 100 << (number % 3);
    let weighed = self::shares(plugins * 3 / 10, seconds, weight);
    let mut sums = [0.0; 3];
    for (number, share) in &weighed {
        sums[(number % 3) as usize] += share;
    }
    let unit = sums.iter().sum::<f64>() / 7.0;
    let worst =
        [1.0, 2.0, 4.0].iter().zip(sums).map(|(weight, sum)| (sum / (unit * weight) - 1.0).abs()).fold(0.0, f64::max);
    report.at_most("weights_worst_deviation", worst, 0.05);
    report
}

/// CPU seconds of each plugin within some seconds.
fn shares(plugins: u32, seconds: u64, weight: impl Fn(u32) -> u32) -> BTreeMap<u32, f64> {
    let mut yaml = String::from("plugins:\n");
    for number in 0..plugins {
        let weight = weight(number);
        yaml +=
            &format!("  p{number}: {{ source: file:spins.wasm, continuous: true, limits: {{ weight: {weight} }} }}\n");
    }
    let host = Scene::new().guest("spins").run(&yaml);
    host.wait_until_ready();
    std::thread::sleep(Duration::from_secs(3));
    let before = cpu(&host);
    std::thread::sleep(Duration::from_secs(seconds));
    let after = cpu(&host);
    after.into_iter().map(|(number, cpu)| (number, cpu - before.get(&number).copied().unwrap_or(0.0))).collect()
}

fn cpu(host: &Host) -> BTreeMap<u32, f64> {
    let (_, metrics) = host.get("/metrics");
    let series = metrics.lines().filter_map(|line| line.strip_prefix("windlass_run_cpu_seconds_total{plugin=\"p"));
    series
        .map(|line| {
            let (number, value) = line.split_once("\"} ").unwrap();
            (number.parse().unwrap(), value.parse().unwrap())
        })
        .collect()
}
