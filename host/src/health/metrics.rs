//! `/metrics`: Prometheus' text format, family by family, in pieces.
//!
//! Written by hand rather than by a client library, since a library renders all at once: with 10,000 plugins the health thread would
//! answer no probe meanwhile. `promtool check metrics` reads it in the tests.

use std::fmt::Write as _;
use std::fs;

use super::board::{Board, Histogram, WAIT_BUCKETS_S};
use crate::core::health::{DURATION_BUCKETS_S, PluginView, Snapshot, State, Status};
use crate::core::outcome::Outcome;
use crate::lanes::clock;
use crate::lanes::governor::{Gauges, Pacing};

/// The media type of what is written here.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A family with one or more series for each plugin.
pub(super) struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    write: fn(&mut String, &str, &PluginView),
}

/// All families that have series for each plugin.
pub(super) const FAMILIES: &[Family] = &[
    Family { name: "windlass_runs_total", kind: "counter", help: "Runs that ended, by outcome.", write: runs },
    Family {
        name: "windlass_run_duration_seconds",
        kind: "histogram",
        help: "Time of an attempt from its first slice to its end.",
        write: durations,
    },
    Family {
        name: "windlass_last_success_timestamp_seconds",
        kind: "gauge",
        help: "When a run last succeeded.",
        write: |out, name, view| {
            if let Some(at) = view.last_success {
                gauge(out, name, view, at.as_millisecond() as f64 / 1000.0);
            }
        },
    },
    Family {
        name: "windlass_next_run_timestamp_seconds",
        kind: "gauge",
        help: "When the next run is due.",
        write: |out, name, view| {
            if let Some(at) = view.next_run {
                gauge(out, name, view, at.as_millisecond() as f64 / 1000.0);
            }
        },
    },
    Family {
        name: "windlass_plugin_status",
        kind: "gauge",
        help: "1 for the status that the plugin has, 0 for the others.",
        write: |out, name, view| {
            for status in [Status::Healthy, Status::Degraded, Status::Unhealthy] {
                let is = u8::from(view.status == status);
                let _ = writeln!(out, "{name}{{plugin=\"{}\",status=\"{status:?}\"}} {is}", view.name);
            }
        },
    },
    Family {
        name: "windlass_skipped_starts_total",
        kind: "counter",
        help: "Starts that did not take place, by reason.",
        write: |out, name, view| {
            for (reason, count) in &view.totals.skipped {
                let _ = writeln!(out, "{name}{{plugin=\"{}\",reason=\"{}\"}} {count}", view.name, reason.name());
            }
        },
    },
    Family {
        name: "windlass_plugin_info",
        kind: "gauge",
        help: "1; the labels tell version and artifact.",
        write: |out, name, view| {
            let Some(version) = &view.version else { return };
            let _ = write!(
                out,
                "{name}{{plugin=\"{}\",version=\"{}\",digest=\"{}\"",
                view.name, version.number.0, version.digest
            );
            for (label, value) in &*view.labels {
                let _ = write!(out, ",label_{}=\"{}\"", label_name(label), escaped(value));
            }
            out.push_str("} 1\n");
        },
    },
    Family {
        name: "windlass_run_cpu_seconds_total",
        kind: "counter",
        help: "CPU time of guests on the lanes.",
        write: |out, name, view| gauge(out, name, view, view.totals.cpu.as_secs_f64()),
    },
    Family {
        name: "windlass_fuel_total",
        kind: "counter",
        help: "Fuel that guests have burnt.",
        write: |out, name, view| {
            let _ = writeln!(out, "{name}{{plugin=\"{}\"}} {}", view.name, view.totals.fuel);
        },
    },
];

impl Family {
    /// What comes before the series.
    pub(super) fn head(&self) -> String {
        head(self.name, self.kind, self.help)
    }

    /// One plugin's series.
    pub(super) fn series(&self, out: &mut String, view: &PluginView) {
        if view.state != State::Ignored {
            (self.write)(out, self.name, view);
        }
    }
}

/// Everything that is not about one plugin.
pub(super) fn host(board: &Board, snapshot: &Snapshot, is_live: bool) -> String {
    let mut out = head("windlass_build_info", "gauge", "1; the labels tell the build.");
    let _ = writeln!(out, "windlass_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    out += &head("windlass_live", "gauge", "1 while /health/live is green.");
    let _ = writeln!(out, "windlass_live {}", u8::from(is_live));
    let startup = board.startup();
    if !startup.is_zero() {
        out += &head("windlass_startup_seconds", "gauge", "How long starting up took, once it is over.");
        let _ = writeln!(out, "windlass_startup_seconds {}", startup.as_secs_f64());
    }
    histogram(&mut out, "windlass_lateness_seconds", "How late the first slice of a run was.", board.lateness());
    histogram(&mut out, "windlass_lane_wait_seconds", "How long a runnable run waited for a lane.", board.lane_wait());
    pacing(&mut out, board.gauges());
    process(&mut out, snapshot);
    out
}

/// What the governor does. Without a CPU limit it does nothing, and there is nothing to tell but the number of lanes.
fn pacing(out: &mut String, gauges: &Gauges) {
    let mut one = |name: &str, kind: &str, help: &str, value: f64| {
        *out += &head(name, kind, help);
        let _ = writeln!(out, "{name} {value}");
    };
    one("windlass_lanes", "gauge", "Lanes that are not parked.", gauges.lanes() as f64);
    let Some(Pacing { limit_cpus, share, paced, kernel }) = gauges.pacing() else { return };
    one("windlass_cpu_limit_cores", "gauge", "The CPU limit that is kept.", limit_cpus);
    one("windlass_cpu_share", "gauge", "The share of the CPU limit that may be used at present.", share);
    one("windlass_paced_seconds_total", "counter", "How long lanes slept for the limit's sake.", paced.as_secs_f64());
    one("windlass_cpu_periods_total", "counter", "The kernel's nr_periods.", kernel.periods as f64);
    one(
        "windlass_cpu_throttled_periods_total",
        "counter",
        "The kernel's nr_throttled: periods in which it stopped everything, health too.",
        kernel.throttled_periods as f64,
    );
    one(
        "windlass_cpu_throttled_seconds_total",
        "counter",
        "For how long the kernel stopped CPUs.",
        kernel.throttled.as_secs_f64(),
    );
}

fn head(name: &str, kind: &str, help: &str) -> String {
    format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
}

fn gauge(out: &mut String, name: &str, view: &PluginView, value: f64) {
    let _ = writeln!(out, "{name}{{plugin=\"{}\"}} {value}", view.name);
}

fn runs(out: &mut String, name: &str, view: &PluginView) {
    // A series that is not there yet cannot be alerted on: the two that matter always are.
    for outcome in Outcome::NAMES {
        let count = view.totals.runs.get(outcome).copied().unwrap_or(0);
        if count > 0 || outcome == "Succeeded" || outcome == "Failed" {
            let _ = writeln!(out, "{name}{{plugin=\"{}\",outcome=\"{outcome}\"}} {count}", view.name);
        }
    }
}

fn durations(out: &mut String, name: &str, view: &PluginView) {
    let label = format!("plugin=\"{}\",", view.name);
    let totals = &view.totals;
    buckets(out, name, &label, &DURATION_BUCKETS_S, &totals.duration_buckets, totals.duration_sum_s);
}

fn histogram(out: &mut String, name: &'static str, help: &str, histogram: &Histogram) {
    *out += &head(name, "histogram", help);
    let (counts, sum) = histogram.read();
    buckets(out, name, "", &WAIT_BUCKETS_S, &counts, sum);
}

fn buckets(out: &mut String, name: &str, label: &str, bounds: &[f64], counts: &[u64], sum: f64) {
    let mut so_far = 0;
    let bounds = bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(counts) {
        so_far += count;
        let _ = writeln!(out, "{name}_bucket{{{label}le=\"{bound}\"}} {so_far}");
    }
    let own = label.trim_end_matches(',');
    let own = if own.is_empty() { String::new() } else { format!("{{{own}}}") };
    let _ = writeln!(out, "{name}_sum{own} {sum}\n{name}_count{own} {so_far}");
}

/// The conventional metrics of a process; what the kernel does not tell is left out.
fn process(out: &mut String, snapshot: &Snapshot) {
    let mut one = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            *out += &head(name, kind, help);
            let _ = writeln!(out, "{name} {value}");
        }
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.map(|limit| limit as f64);
    one("process_cpu_seconds_total", "counter", "CPU time of the process.", Some(clock::process_cpu().as_secs_f64()));
    one("process_resident_memory_bytes", "gauge", "Resident memory.", kib("VmRSS:").map(|kib| kib * 1024.0));
    one(
        "process_virtual_memory_bytes",
        "gauge",
        "Virtual memory, most of it reserved only.",
        kib("VmSize:").map(|kib| kib * 1024.0),
    );
    one("process_threads", "gauge", "Threads.", kib("Threads:"));
    one("process_open_fds", "gauge", "Open descriptors.", descriptors);
    one("process_max_fds", "gauge", "The most descriptors there may be.", limit);
    one(
        "process_start_time_seconds",
        "gauge",
        "When the host started.",
        Some(snapshot.started.as_millisecond() as f64 / 1000.0),
    );
}

fn label_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
