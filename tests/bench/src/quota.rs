//! A thousand endless guests under a CPU limit, with the governor and without: how often the kernel throttles, how long a probe waits,
//! and what is left for guests.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use windlass_tests::cgroup::CpuGroup;
use windlass_tests::{Host, Scene, binary, get};

use crate::report::{Report, percentile};

/// CPUs, what guests should get of them at least, and how the figures are named.
const LIMITS: [(f64, f64, &str); 3] = [(1.0, 0.85, "1_0"), (0.5, 0.80, "0_5"), (0.25, 0.70, "0_25")];

/// Between two probes: often enough to meet a period that is used up, too seldom to use it up.
const PROBE_EVERY: Duration = Duration::from_millis(20);

struct Lengths {
    guests: u32,
    warm_up: Duration,
    governed: Duration,
    ungoverned: Duration,
    child: Duration,
}

pub(crate) fn run(short: bool) -> Report {
    let lengths = match short {
        true => Lengths {
            guests: 50,
            warm_up: Duration::from_secs(1),
            governed: Duration::from_secs(2),
            ungoverned: Duration::from_secs(1),
            child: Duration::from_millis(800),
        },
        false => Lengths {
            guests: 1_000,
            warm_up: Duration::from_secs(5),
            governed: Duration::from_secs(20),
            ungoverned: Duration::from_secs(8),
            child: Duration::from_secs(10),
        },
    };
    let mut report = Report::new("quota");
    for (cpus, share, name) in LIMITS {
        for governed in [true, false] {
            let Some(found) = measure(cpus, governed, &lengths) else {
                // Said on stderr; a report without figures is still a report.
                report.figure("skipped", 1.0);
                return report;
            };
            let prefix = if governed { "" } else { "ungoverned_" };
            let Found { throttled_share, guest_share, probes_ms, failed } = found;
            let (p99, p999) = (percentile(&probes_ms, 0.99), percentile(&probes_ms, 0.999));
            if governed {
                report.at_most(format!("throttled_share_{name}"), throttled_share, 0.01);
                report.at_most(format!("p99_ms_{name}"), p99, 5.0);
                report.at_least(format!("guest_share_{name}"), guest_share, share);
                report.at_most(format!("failed_probes_{name}"), failed as f64, 0.0);
            } else {
                report.figure(format!("{prefix}throttled_share_{name}"), throttled_share);
                report.figure(format!("{prefix}p99_ms_{name}"), p99);
                report.figure(format!("{prefix}guest_share_{name}"), guest_share);
                report.figure(format!("{prefix}failed_probes_{name}"), failed as f64);
            }
            report.figure(format!("{prefix}p999_ms_{name}"), p999);
            report.figure(format!("{prefix}p50_ms_{name}"), percentile(&probes_ms, 0.5));
        }
    }
    crate::quota_child::run(&mut report, lengths.child);
    report.figure("guests", f64::from(lengths.guests));
    report
}

struct Found {
    throttled_share: f64,
    guest_share: f64,
    /// Sorted.
    probes_ms: Vec<f64>,
    failed: usize,
}

fn measure(cpus: f64, governed: bool, lengths: &Lengths) -> Option<Found> {
    let mut yaml = String::from("plugins:\n");
    for number in 0..lengths.guests {
        yaml += &format!("  p{number}: {{ source: file:spins.wasm, continuous: true }}\n");
    }
    let scene = Scene::new().guest("spins");
    let config = scene.configure(&yaml).display().to_string();
    let mut arguments = vec!["run".to_owned(), "--config".to_owned(), config];
    if !governed {
        arguments.push("--no-governor".to_owned());
    }
    // Dropped after the host, whose group it is.
    let group = CpuGroup::limited(cpus)?;
    let host = Host::start_as(group.command(&binary()), scene, &arguments, &[]);
    host.wait_until_ready();
    std::thread::sleep(lengths.warm_up);
    let wanted = if governed { lengths.governed } else { lengths.ungoverned };
    let guests_before_s = guests_cpu_s(&host);
    let (began, before) = (Instant::now(), group.counted());
    let (probes_ms, failed) = probe(&host, wanted);
    // Whole seconds: what guests used is told once a second.
    std::thread::sleep(wanted.saturating_sub(began.elapsed()));
    let after = group.counted();
    let elapsed_s = began.elapsed().as_secs_f64();
    let guests_s = guests_cpu_s(&host) - guests_before_s;
    Some(Found {
        throttled_share: (after.throttled - before.throttled) as f64 / (after.periods - before.periods).max(1) as f64,
        guest_share: guests_s / (cpus * elapsed_s),
        probes_ms,
        failed,
    })
}

/// CPU time of all guests so far, as the host tells it.
fn guests_cpu_s(host: &Host) -> f64 {
    let (_, metrics) = host.get("/metrics");
    let lines = metrics.lines().filter(|line| line.starts_with("windlass_run_cpu_seconds_total{"));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Probes from a process of its own, outside the group; sorted milliseconds of those that answered, and how many did not.
fn probe(host: &Host, length: Duration) -> (Vec<f64>, usize) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["quota-prober", host.address(), &length.as_millis().to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let failed = text.lines().filter(|line| *line == "failed").count();
    let mut times: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    (times, failed)
}

/// The other process: a probe over a fresh connection every [`PROBE_EVERY`], one number a line.
pub(crate) fn prober(arguments: &[String]) {
    let [_, address, length_ms] = arguments else { return };
    let until = Instant::now() + Duration::from_millis(length_ms.parse().unwrap_or(0));
    while Instant::now() < until {
        let began = Instant::now();
        match get(address, "/health/live") {
            Ok((200, _)) if began.elapsed() < Duration::from_secs(1) => {
                println!("{}", began.elapsed().as_secs_f64() * 1e3);
            }
            _ => println!("failed"),
        }
        std::thread::sleep(PROBE_EVERY);
    }
}
