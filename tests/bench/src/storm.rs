//! A compile storm: how long probes wait, and how late jobs are, while 200 artifacts are compiled at once at the start.

use std::time::{Duration, Instant};

use windlass_tests::{Scene, guest, marked};

use crate::health::{self, Probed, probe};
use crate::report::{Report, percentile};

/// How many probes are sent between two looks at how far the storm is.
const PROBES: usize = 50;

pub(crate) fn run(short: bool) -> Report {
    let (artifacts, jobs) = if short { (30, 100) } else { (200, 100) };
    let mut scene = Scene::new().guest("succeeds");
    let mut yaml = String::from("readyTimeoutSeconds: 600\nplugins:\n");
    // By name, so that the jobs run when the storm begins.
    for number in 0..jobs {
        yaml += &format!("  a{number}: {{ source: file:succeeds.wasm, every: 500ms }}\n");
    }
    let components = ["heartbeat", "primes", "flaky"].map(guest);
    for number in 0..artifacts {
        let bytes = marked(components[number as usize % components.len()].clone(), number);
        scene = scene.file(&format!("z{number}.wasm"), &bytes);
        yaml += &format!("  z{number}: {{ source: file:z{number}.wasm, suspend: true }}\n");
    }
    let began = Instant::now();
    let group = health::own_group();
    let mut host = health::launch(scene, &yaml, group.as_ref());
    let mut probed = Probed::default();
    loop {
        probed.add(probe(host.address(), PROBES));
        if host.get("/health/ready").0 == 200 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(600), "the storm does not end");
    }
    let storm_s = began.elapsed().as_secs_f64();
    let (_, metrics) = host.get("/metrics");
    host.stop();
    // The same number on each side; the machine's limit is taken when the storm is over.
    let mut limit = health::limit(probed.sorted_ms().len());
    let failed = probed.failed;
    let (times, limit) = (probed.sorted_ms(), limit.sorted_ms());
    let lateness = Buckets::read(&metrics, "windlass_lateness_seconds");
    let mut report = Report::new("storm");
    report.at_most("lateness_p99_ms", lateness.quantile(0.99) * 1_000.0, 250.0);
    report.at_most("probe_p99_over_limit", percentile(times, 0.99) / percentile(limit, 0.99), 1.25);
    report.at_most("failed_probes", failed as f64, 0.0);
    for (what, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        report.figure(format!("probe_{what}_ms"), percentile(times, share));
    }
    report.figure("limit_p99_ms", percentile(limit, 0.99));
    report.figure("lateness_p50_ms", lateness.quantile(0.5) * 1_000.0);
    report.figure("runs", lateness.count());
    report.figure("compiles_per_s", f64::from(artifacts) / storm_s);
    report.figure("storm_s", storm_s);
    report
}

/// A histogram of Prometheus' text format: upper bounds and cumulative counts.
struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    fn read(metrics: &str, name: &str) -> Buckets {
        let prefix = format!("{name}_bucket{{le=\"");
        let bucket = |line: &str| {
            let (bound, count) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
            Some((if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? }, count.parse().ok()?))
        };
        let buckets: Vec<_> = metrics.lines().filter_map(bucket).collect();
        assert!(!buckets.is_empty(), "{name} is not in: {metrics}");
        Buckets(buckets)
    }

    fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// As Prometheus does it: by a straight line within the bucket. Infinite in the last one.
    fn quantile(&self, share: f64) -> f64 {
        let wanted = self.count() * share;
        let (mut below, mut before) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= wanted && *count > before {
                return if bound.is_finite() {
                    below + (bound - below) * (wanted - before) / (count - before)
                } else {
                    *bound
                };
            }
            (below, before) = (*bound, *count);
        }
        f64::NAN
    }
}
