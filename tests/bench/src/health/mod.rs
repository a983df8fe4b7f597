//! How long a probe of the health port waits, on Windlass and in the shapes that people have today.
//!
//! Each side is a process of its own, stopped while another one is measured. All are asked by one and the same prober, from a process of
//! its own, over fresh connections, with 1 s of patience. A probe that gets no 200 within it has failed, and counts as 1 s. Each side
//! has a control group of its own, as a container has; the prober is outside, as the kubelet is. Where groups are not writable, all are in
//! one group, which `own_groups` says with a 0: lanes are less nice there than in a container.
//!
//! | side | what answers, beside what |
//! | --- | --- |
//! | `idle` | Windlass without plugins |
//! | `busy` | Windlass with 1,000 guests in endless loops |
//! | `limit` | Windlass without plugins, beside as many endless native loops at nice 10 as there are cores: the machine's own limit |
//! | `one_runtime` | a handler on a tokio runtime that also runs 1,000 job loops, native code that never awaits |
//! | `fuel_yields` | a handler on a tokio runtime that also runs the 1,000 guests, which yield after each slice of fuel |
//! | `own_thread` | a handler on a thread and runtime of its own, the same guests on other threads of normal priority |
//!
//! Each has `SIDE_p50_ms`, `SIDE_p99_ms`, `SIDE_p999_ms`, `SIDE_max_ms`, `SIDE_failed` and `SIDE_probes`. Ratios are made of rounds that
//! alternate between their two sides, so that a drift of the machine falls out.

mod prober;
mod process;
mod rivals;

use std::time::Duration;

use windlass_tests::{Group, Host, Launch, Scene};

use crate::report::{Report, median, percentile};
pub(crate) use prober::{Probed, probe, prober};
use process::{Held, Rival};
pub(crate) use rivals::rival;

/// How long a side that was let go runs before it is measured.
const SETTLE: Duration = Duration::from_millis(300);

/// How much is done.
struct Size {
    guests: u32,
    rounds: u32,
    /// Probes of each side in one round.
    probes: usize,
    /// Probes in all of the sides that are slow.
    slow_probes: usize,
    /// Probes in all of the side that does not answer: each takes a second.
    hopeless_probes: usize,
}

const SHORT: Size = Size { guests: 200, rounds: 3, probes: 300, slow_probes: 100, hopeless_probes: 3 };
const LONG: Size = Size { guests: 1_000, rounds: 10, probes: 1_200, slow_probes: 1_000, hopeless_probes: 20 };

pub(crate) fn run(short: bool) -> Report {
    let size = if short { SHORT } else { LONG };
    let mut report = Report::new("health");
    against_the_limit(&size, &mut report);
    for (side, probes) in
        [("one_runtime", size.hopeless_probes), ("fuel_yields", size.slow_probes), ("own_thread", size.slow_probes)]
    {
        let group = own_group();
        let rival = Rival::start(side, size.guests, group.as_ref());
        std::thread::sleep(SETTLE);
        let mut probed = probe(rival.address(), probes);
        tell(&mut report, side, &mut probed);
    }
    report.figure("guests", f64::from(size.guests));
    report
}

/// The sides that are compared round by round: Windlass idle, busy, and the machine's own limit.
fn against_the_limit(size: &Size, report: &mut Report) {
    let (quiet_group, busy_group) = (own_group(), own_group());
    report.figure("own_groups", f64::from(u8::from(busy_group.is_some())));
    let quiet_host = launch(Scene::new(), "plugins: {}\n", quiet_group.as_ref());
    let busy_host = busy_host(size.guests, busy_group.as_ref());
    let loops = Rival::start("native_loops", 0, quiet_group.as_ref());
    let [quiet, busy, loops] = [quiet_host.pid(), busy_host.pid(), loops.pid()].map(Held::stop);
    let (mut idle_all, mut busy_all, mut limit_all) = (Probed::default(), Probed::default(), Probed::default());
    let (mut over_idle, mut over_limit) = (Vec::new(), Vec::new());
    for round in 0..size.rounds {
        let busy_now = during(&[&busy], || probe(busy_host.address(), size.probes));
        let limit_now = during(&[&quiet, &loops], || probe(quiet_host.address(), size.probes));
        over_limit.push(busy_now.p50() / limit_now.p50());
        // An idle machine varies least: it is looked at every other time.
        if round % 2 == 0 {
            let idle_now = during(&[&quiet], || probe(quiet_host.address(), size.probes));
            over_idle.push(busy_now.p50() / idle_now.p50());
            idle_all.add(idle_now);
        }
        busy_all.add(busy_now);
        limit_all.add(limit_now);
    }
    let [busy_ms, limit_ms] = [&mut busy_all, &mut limit_all].map(Probed::sorted_ms);
    report.at_most("p50_over_limit", median(over_limit), 1.5);
    report.at_most("p99_over_limit", percentile(busy_ms, 0.99) / percentile(limit_ms, 0.99), 1.25);
    report.at_most("busy_p50_over_idle_p50", median(over_idle), 2.0);
    report.at_most("busy_max_ms", percentile(busy_ms, 1.0), 50.0);
    report.at_most("failed_probes", (busy_all.failed + idle_all.failed) as f64, 0.0);
    tell(report, "idle", &mut idle_all);
    tell(report, "busy", &mut busy_all);
    tell(report, "limit", &mut limit_all);
}

/// The machine's own limit by itself, for benchmarks of other loads: a host without plugins, beside endless native loops.
pub(crate) fn limit(probes: usize) -> Probed {
    let group = own_group();
    let host = launch(Scene::new(), "plugins: {}\n", group.as_ref());
    let _loops = Rival::start("native_loops", 0, group.as_ref());
    std::thread::sleep(SETTLE);
    probe(host.address(), probes)
}

/// A control group for one side, without a limit; none, said loudly, where groups are not writable. Drop what runs in it first.
pub(crate) fn own_group() -> Option<Group> {
    Group::new("cpu")
}

/// A host in a group.
pub(crate) fn launch(scene: Scene, yaml: &str, group: Option<&Group>) -> Host {
    scene.launch(yaml, &Launch { groups: group.as_slice(), ..Launch::default() })
}

/// A host whose every lane is always wanted.
fn busy_host(guests: u32, group: Option<&Group>) -> Host {
    let mut yaml = String::from("plugins:\n");
    for number in 0..guests {
        yaml += &format!("  p{number}: {{ source: file:spins.wasm, continuous: true }}\n");
    }
    let host = launch(Scene::new().guest("spins"), &yaml, group);
    host.wait_until_ready();
    // Until each has begun: what beginning costs is another benchmark's.
    std::thread::sleep(Duration::from_secs(2));
    host
}

/// Lets some go on, measures, and stops them again.
fn during<R>(sides: &[&Held], measure: impl FnOnce() -> R) -> R {
    sides.iter().for_each(|side| side.go_on());
    std::thread::sleep(SETTLE);
    let measured = measure();
    sides.iter().for_each(|side| side.hold());
    measured
}

fn tell(report: &mut Report, side: &str, probed: &mut Probed) {
    let (failed, all) = (probed.failed, probed.sorted_ms());
    for (what, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
        // `busy_max_ms` stands there already, with its target.
        if (side, what) != ("busy", "max") {
            report.figure(format!("{side}_{what}_ms"), percentile(all, share));
        }
    }
    let probes = all.len();
    report.figure(format!("{side}_failed"), failed as f64);
    report.figure(format!("{side}_probes"), probes as f64);
}
