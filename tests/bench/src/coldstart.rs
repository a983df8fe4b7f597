//! How long a start takes with 1,000 distinct artifacts, from the process's start to everything ready: without a cache of compiled
//! code, and with the one that the first start left.

use std::path::Path;
use std::time::Instant;

use windlass_tests::{Scene, guest, marked};

use crate::report::{Report, median};

pub(crate) fn run(short: bool) -> Report {
    let (plugins, warm_starts) = if short { (200, 3) } else { (1_000, 3) };
    let data = windlass_tests::temporary_folder();
    let cold = start(plugins, data.path());
    let warm = median((0..warm_starts).map(|_| start(plugins, data.path())).collect());
    let mut report = Report::new("coldstart");
    // The target is for 1,000; a fifth of them may take a fifth of it and what any start takes.
    report.at_most("warm_s", warm, if short { 0.5 } else { 1.5 });
    report.figure("cold_s", cold);
    report.figure("cold_over_warm", cold / warm);
    report.figure("cold_ms_per_plugin", cold * 1_000.0 / f64::from(plugins));
    report.figure("plugins", f64::from(plugins));
    report
}

/// Seconds until all are ready.
fn start(plugins: u32, data: &Path) -> f64 {
    let mut scene = Scene::new();
    let succeeds = guest("succeeds");
    let mut yaml = format!("readyTimeoutSeconds: 600\ndataDir: {}\nplugins:\n", data.display());
    for number in 0..plugins {
        scene = scene.file(&format!("a{number}.wasm"), &marked(succeeds.clone(), number));
        yaml += &format!("  p{number}: {{ source: file:a{number}.wasm }}\n");
    }
    let began = Instant::now();
    let mut host = scene.run(&yaml);
    host.wait_until_ready();
    let took = began.elapsed().as_secs_f64();
    let (_, health) = host.get("/health");
    assert!(!health.contains("Refused") && !health.contains("Unhealthy"), "{health}");
    host.stop();
    took
}
