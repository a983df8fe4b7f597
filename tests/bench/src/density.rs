//! What a loaded plugin weighs: resident memory of a host with many idle plugins made from ten artifacts. The artifacts are small, so that
//! what the compiler leaves behind does not hide what is weighed.

use windlass_tests::{Scene, guest, marked};

use crate::report::Report;

const ARTIFACTS: usize = 10;

pub(crate) fn run(short: bool) -> Report {
    let sizes: &[usize] = if short { &[1_000] } else { &[1_000, 10_000] };
    // The code is there in both; what is weighed is a plugin.
    let base = resident_kib(ARTIFACTS);
    let mut report = Report::new("density");
    for size in sizes {
        let per_plugin = (resident_kib(*size) - base) / (size - ARTIFACTS) as f64;
        report.at_most(format!("kib_per_plugin_{size}"), per_plugin, 20.0);
    }
    report.figure("kib_host_with_ten", base);
    report
}

fn resident_kib(plugins: usize) -> f64 {
    let mut scene = Scene::new();
    for number in 0..ARTIFACTS {
        scene = scene.file(&format!("a{number}.wasm"), &marked(guest("succeeds"), number as u32));
    }
    let mut yaml = String::from("defaults: { continuous: true, suspend: true }\nplugins:\n");
    for number in 0..plugins {
        yaml += &format!("  p{number}: {{ source: file:a{}.wasm }}\n", number % ARTIFACTS);
    }
    let host = scene.run(&yaml);
    host.wait_until_ready();
    // Whoever asked for everything once has made the host render it once: that is part of what it weighs.
    host.get("/health");
    let (_, metrics) = host.get("/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
    line.parse::<f64>().unwrap() / 1024.0
}
