//! What 1,000 loaded plugins of distinct code keep in memory, beyond what a host without plugins keeps, at 1,024 descriptors.
//!
//! Anonymous and shared memory are what only the host's end gives back; pages of files are apart, since the kernel drops them when it wants
//! to. The code comes from the cache of a start before, as after a restart. The plugins are those of `coldstart`; what one with the code of an
//! SDK example weighs is told beside it, without a target.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use windlass_tests::{Host, Scene, binary, guest, marked};

use crate::report::Report;

/// Of how many descriptors the host may have, hard and soft.
const DESCRIPTORS: u32 = 1_024;

/// For how long a thousand compiles may go on.
const COMPILES: Duration = Duration::from_secs(600);

const ENTER: &str = "ulimit -n 1024 && exec \"$0\" \"$@\"";

pub(crate) fn run(short: bool) -> Report {
    let (plugins, examples) = if short { (200, 20) } else { (1_000, 200) };
    let data = windlass_tests::temporary_folder();
    let empty = Weight::of(&mut start(&[], 0, data.path()));
    let full = loaded(&["succeeds"], plugins, data.path());
    let mut report = Report::new("rss");
    // The target is for 1,000; some of them may keep as many of its parts.
    report.at_most("anonymous_and_shared_mib", full.kept_mib(&empty), 200.0 * f64::from(plugins) / 1_000.0);
    report.at_least("loaded", f64::from(full.loaded), f64::from(plugins));
    report.at_most("descriptors", f64::from(full.descriptors), f64::from(DESCRIPTORS));
    report.figure("anonymous_mib", mib_above(full.anonymous_kib, empty.anonymous_kib));
    report.figure("shared_mib", mib_above(full.shared_kib, empty.shared_kib));
    report.figure("file_mib", mib_above(full.file_kib, empty.file_kib));
    report.figure("empty_mib", mib_above(empty.anonymous_kib + empty.shared_kib, 0));
    report.figure("plugins", f64::from(plugins));
    // What the first of them cost is the same for any number.
    let some = loaded(&EXAMPLES, examples / 2, data.path());
    let more = loaded(&EXAMPLES, examples, data.path());
    report.figure("kib_per_example", more.kept_mib(&some) * 1_024.0 / f64::from(examples / 2));
    report.figure("examples", f64::from(examples));
    report
}

/// The SDK's examples: what an author's plugin weighs, most of it machine code.
const EXAMPLES: [&str; 3] = ["heartbeat", "primes", "flaky"];

/// What so many weigh whose code was in the cache before: what compiling leaves behind is not theirs.
fn loaded(guests: &[&str], plugins: u32, data: &Path) -> Weight {
    start(guests, plugins, data).stop();
    Weight::of(&mut start(guests, plugins, data))
}

fn mib_above(kib: u64, base_kib: u64) -> f64 {
    (kib as f64 - base_kib as f64) / 1_024.0
}

/// What a host has in memory when everything is loaded.
struct Weight {
    anonymous_kib: u64,
    shared_kib: u64,
    file_kib: u64,
    descriptors: u32,
    loaded: u32,
}

impl Weight {
    /// Anonymous and shared memory beyond another host's, in MiB.
    fn kept_mib(&self, less: &Weight) -> f64 {
        mib_above(self.anonymous_kib + self.shared_kib, less.anonymous_kib + less.shared_kib)
    }

    fn of(host: &mut Host) -> Weight {
        // Whoever asked for everything once has made the host render it once: that is part of what it weighs.
        host.get("/metrics");
        let health = host.json("/health");
        let entries = health["entries"].as_object().unwrap();
        let loaded = entries.iter().filter(|(name, entry)| *name != "windlass" && entry["status"] == "Healthy").count();
        let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let open = fs::read_dir(format!("/proc/{}/fd", host.pid())).unwrap().count();
        Weight {
            anonymous_kib: kib("RssAnon"),
            shared_kib: kib("RssShmem"),
            file_kib: kib("RssFile"),
            descriptors: u32::try_from(open).unwrap(),
            loaded: u32::try_from(loaded).unwrap(),
        }
    }
}

/// A host whose plugins are these guests in turn, each with code of its own, at few descriptors.
fn start(guests: &[&str], plugins: u32, data: &Path) -> Host {
    let guests: Vec<_> = guests.iter().map(|name| guest(name)).collect();
    let mut scene = Scene::new();
    let mut yaml = format!("readyTimeoutSeconds: 600\ndataDir: {}\nplugins:\n", data.display());
    if plugins == 0 {
        yaml += "  {}\n";
    }
    for number in 0..plugins {
        let bytes = marked(guests[number as usize % guests.len()].clone(), number);
        scene = scene.file(&format!("a{number}.wasm"), &bytes);
        yaml += &format!("  p{number}: {{ source: file:a{number}.wasm, suspend: true }}\n");
    }
    let mut command = Command::new("sh");
    command.args(["-c", ENTER]).arg(binary());
    let config = scene.configure(&yaml).display().to_string();
    let host = Host::start_as(command, scene, &["run".to_owned(), "--config".to_owned(), config], &[]);
    host.wait_until_ready_within(COMPILES);
    host
}
