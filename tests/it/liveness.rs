//! `/health/live` told the truth by threads that are really stuck, and by hosts that are only starved.

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use windlass_tests::{Group, Host, Launch, PATIENCE, Scene, binary, is_long, wedge_binary};

const STUCK: Duration = Duration::from_secs(2);

/// What the rule allows on top: how often the health thread looks, and a busy machine.
const MORE: Duration = Duration::from_secs(1);

const YAML: &str = "health: { listen: \"127.0.0.1:0\", stuckSeconds: 2 }\ndrainSeconds: 1\nlimits: { lanes: 2 }\nplugins:\n  \
    spins: { source: file:spins.wasm, continuous: true }\n  \
    naps: { source: file:actor.wasm, continuous: true, config: { act: ignores_cancel } }\n  \
    one: { source: file:succeeds.wasm, every: 100ms }\n  \
    two: { source: file:succeeds.wasm, every: 100ms }\n  \
    three: { source: file:succeeds.wasm, every: 100ms }\n";

const BYSTANDERS: [&str; 3] = ["one", "two", "three"];

/// A host of [`YAML`] that does this to itself, when it has just been done.
fn wedged(wedge: &str) -> Host {
    let scene = Scene::new().guest("spins").guest("actor").guest("succeeds");
    let mut host = scene.launch(YAML, &Launch { wedge: Some(wedge), ..Launch::default() });
    host.wait_for_line(|line| line.as_str().is_some_and(|line| line.starts_with("a wedge holds")));
    host
}

/// The CPU time that each thread has used, by the thread's name.
fn cpu_by_thread(host: &Host) -> HashMap<String, Duration> {
    let tasks = fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap();
    let read = |task: std::io::Result<fs::DirEntry>| {
        let path = task.ok()?.path();
        let name = fs::read_to_string(path.join("comm")).ok()?.trim().to_owned();
        let cpu_ns = fs::read_to_string(path.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()?;
        Some((name, Duration::from_nanos(cpu_ns)))
    };
    tasks.filter_map(read).collect()
}

fn runs(host: &Host, name: &str) -> u64 {
    host.plugin(name)["totals"]["runs"]["Succeeded"].as_u64().unwrap_or(0)
}

/// Waits until so many of the bystanders have gone on running from here.
fn go_on(host: &Host, how_many: usize) {
    let before = BYSTANDERS.map(|name| runs(host, name));
    let until = Instant::now() + PATIENCE;
    let moved = || BYSTANDERS.iter().zip(before).filter(|(name, before)| runs(host, name) >= before + 5).count();
    while moved() < how_many {
        assert!(Instant::now() < until, "only {} of the others go on", moved());
        std::thread::sleep(Duration::from_millis(50));
    }
}

struct Red {
    reason: String,
    after: Duration,
    /// The CPU time that the thread used meanwhile.
    cpu: Duration,
}

/// Waits until liveness is red, which it must not be at once.
fn turns_red(host: &Host, thread: &str) -> Red {
    let began = Instant::now();
    let before = cpu_by_thread(host);
    let reason = loop {
        let (code, body) = host.get("/health/live");
        if code != 200 {
            assert_eq!(code, 503);
            break body.trim().to_owned();
        }
        assert!(began.elapsed() < PATIENCE, "{thread} is wedged, and live stays green");
        std::thread::sleep(Duration::from_millis(10));
    };
    let after = began.elapsed();
    let cpu = |cpus: &HashMap<String, Duration>| {
        let mine = cpus.iter().filter(|(name, _)| reason.contains(&name.replace('-', " ")));
        mine.map(|(_, cpu)| *cpu).sum::<Duration>()
    };
    let cpu = cpu(&cpu_by_thread(host)).saturating_sub(cpu(&before));
    assert!(reason.contains(thread), "{reason}");
    eprintln!("{reason}: after {after:?}, {cpu:?} of its own CPU time");
    Red { reason, after, cpu }
}

/// The reason is in the log and in the termination log, and SIGTERM ends it with 1, within the drain and the cleanup after it.
fn ends_with_1(mut host: Host, reason: &str) {
    host.wait_for_line(|line| line["message"] == "liveness turned red" && line["reason"] == reason);
    assert_eq!(fs::read_to_string(host.scene().termination_log()).unwrap().trim(), reason);
    let began = Instant::now();
    assert_eq!(host.stop(), 1);
    // 1 s of drain, 5 s of cleanup, and a busy machine.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn a_lane_blocked_in_a_poll_turns_live_red_in_time() {
    let host = wedged("lane=block@1s");
    let red = turns_red(&host, "lane ");
    assert!(red.reason.ends_with("has been in one poll for 2 s: it is blocked"), "{}", red.reason);
    assert!(red.after > STUCK / 2 && red.after <= STUCK + MORE, "{:?}", red.after);
    go_on(&host, 2);
    ends_with_1(host, &red.reason);
}

#[test]
fn a_lane_that_spins_in_a_poll_turns_live_red_by_its_own_cpu_time() {
    let host = wedged("lane=spin@1s");
    let red = turns_red(&host, "lane ");
    assert!(red.reason.ends_with("has been in one poll for 2 s: it is spinning"), "{}", red.reason);
    assert!(red.cpu > STUCK / 2 && red.cpu <= STUCK + MORE, "{:?}", red.cpu);
    go_on(&host, 2);
    ends_with_1(host, &red.reason);
}

#[test]
fn a_lane_that_is_gone_turns_live_red() {
    let host = wedged("lane=panic@1s");
    let red = turns_red(&host, "lane ");
    assert!(red.reason.ends_with("is gone: its thread has ended"), "{}", red.reason);
    assert!(red.after <= STUCK + MORE, "{:?}", red.after);
    go_on(&host, 2);
    ends_with_1(host, &red.reason);
}

#[test]
fn a_scheduler_blocked_in_a_turn_or_in_its_wait_turns_live_red_in_time() {
    for wedge in ["scheduler=block@1s", "scheduler-wait=block@1s"] {
        let host = wedged(wedge);
        let red = turns_red(&host, "the scheduler");
        assert_eq!(red.reason, "the scheduler has given no beat for 2 s: it is blocked");
        assert!(red.after > STUCK / 2 && red.after <= STUCK + MORE, "{:?}", red.after);
        ends_with_1(host, &red.reason);
    }
}

#[test]
fn a_scheduler_that_never_waits_again_is_stuck_too_where_nothing_is_due() {
    // Nothing to start, ever: its wait has no end of its own.
    let scene = Scene::new().guest("succeeds");
    let yaml = "health: { listen: \"127.0.0.1:0\", stuckSeconds: 2 }\ndrainSeconds: 1\nplugins:\n  p: { source: file:succeeds.wasm }\n";
    let mut host = scene.launch(yaml, &Launch { wedge: Some("scheduler-wait=block@1s"), ..Launch::default() });
    host.wait_for_line(|line| line.as_str().is_some_and(|line| line.starts_with("a wedge holds")));
    let red = turns_red(&host, "the scheduler");
    assert!(red.after > STUCK / 2 && red.after <= STUCK + MORE, "{:?}", red.after);
    ends_with_1(host, &red.reason);
}

#[test]
fn a_scheduler_that_spins_turns_live_red_by_its_own_cpu_time() {
    let host = wedged("scheduler=spin@1s");
    let red = turns_red(&host, "the scheduler");
    assert_eq!(red.reason, "the scheduler has given no beat for 2 s: it is spinning");
    assert!(red.cpu > STUCK / 2 && red.cpu <= STUCK + MORE, "{:?}", red.cpu);
    ends_with_1(host, &red.reason);
}

#[test]
fn a_scheduler_that_panics_ends_the_host_with_1() {
    let mut host = wedged("scheduler=panic@1s");
    assert_eq!(host.wait_for_end().code(), Some(1));
    host.wait_for_line(|line| line["error"].as_str().is_some_and(|error| error.contains("the scheduler panicked")));
}

/// A wedge that is no lane's and no scheduler's: live stays green for longer than it would take, and the others go on.
fn stays_green(host: &Host, others: usize) {
    let began = Instant::now();
    while began.elapsed() < STUCK + 2 * MORE {
        assert_eq!(host.get("/health/live").0, 200);
        std::thread::sleep(Duration::from_millis(50));
    }
    go_on(host, others);
    assert_eq!(fs::read_to_string(host.scene().termination_log()).unwrap(), "");
}

#[test]
fn a_loader_that_is_stuck_costs_the_plugin_that_it_loads() {
    for wedge in ["loader=block@0s", "loader=panic@0s"] {
        let host = wedged(wedge);
        // The other loader has the rest; which one is stuck is luck.
        stays_green(&host, 2);
        let plugins = host.json("/health/plugins");
        let loading = |plugin: &&Value| plugin["state"] == "Loading";
        assert_eq!(plugins["plugins"].as_array().unwrap().iter().filter(loading).count(), 1, "{plugins}");
    }
}

#[test]
fn a_log_that_is_not_written_costs_lines() {
    stays_green(&wedged("log=block@1s"), 3);
}

#[test]
fn a_reaper_that_is_stuck_costs_what_the_dead_hold() {
    let scene = Scene::new().guest("spins").guest("actor").guest("succeeds");
    let yaml = format!("{YAML}  dies: {{ source: file:spins.wasm, every: 200ms, activeDeadlineSeconds: 0.1 }}\n");
    let mut host = scene.launch(&yaml, &Launch { wedge: Some("reaper=block@1s"), ..Launch::default() });
    host.wait_for_line(|line| line.as_str().is_some_and(|line| line.starts_with("a wedge holds")));
    stays_green(&host, 3);
}

#[test]
fn a_guests_runtime_that_is_stuck_costs_those_who_wait_in_it() {
    let host = wedged("guest-io=block@1s");
    stays_green(&host, 3);
    // What waits there burns nothing, and does not come back.
    let cpu = || host.plugin("naps")["running"][0]["cpuSeconds"].as_f64().unwrap();
    let before = cpu();
    std::thread::sleep(Duration::from_secs(2));
    assert!(cpu() - before < 0.01, "it goes on although its timers are stuck");
}

#[test]
fn the_binary_that_ships_knows_nothing_of_wedges() {
    let holds = |path: std::path::PathBuf| {
        let bytes = fs::read(path).unwrap();
        bytes.windows(windlass_tests::WEDGE.len()).any(|window| window == windlass_tests::WEDGE.as_bytes())
    };
    assert!(holds(wedge_binary()), "else this would prove nothing");
    assert!(!holds(binary()));
    let scene = Scene::new().guest("spins").guest("actor").guest("succeeds");
    let environment = [(windlass_tests::WEDGE, "lane=block@0s,scheduler=block@0s,loader=block@0s")];
    let host = scene.launch(YAML, &Launch { environment: &environment, ..Launch::default() });
    host.wait_until_ready();
    stays_green(&host, 3);
}

#[test]
fn no_other_crate_turns_the_wedge_on() {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(windlass_tests::root())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut seen = false;
    for package in metadata["packages"].as_array().unwrap() {
        let features = package["features"].as_object().unwrap();
        let enables = |on: &Value| on.as_array().unwrap().iter().any(|on| on.as_str().unwrap().contains("wedge"));
        assert!(!features.values().any(enables), "{}", package["name"]);
        for dependency in package["dependencies"].as_array().unwrap() {
            assert!(!enables(&dependency["features"]), "{} turns it on", package["name"]);
        }
        seen |= package["name"] == "windlass" && features.contains_key("wedge");
    }
    assert!(seen, "the feature goes by another name now");
}

/// A guest that fills so much memory in one operation, once.
fn fills(mebibytes: u64) -> Vec<u8> {
    let bytes = (mebibytes << 20).min(u64::from(u32::MAX));
    let pages = mebibytes * 16;
    let text = format!(
        "(module (memory (export \"memory\") {pages}) (func (export \"_start\") \
         (memory.fill (i32.const 0) (i32.const 7) (i32.const {bytes}))))"
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn one_bulk_operation_at_a_twentieth_of_a_cpu_stays_green() {
    let Some(group) = Group::new("cpu") else { return };
    group.set("cpu.cfs_period_us", "100000");
    group.set("cpu.cfs_quota_us", "5000");
    let (mebibytes, stuck) = if is_long() { (4096, 15) } else { (512, 2) };
    let yaml = format!(
        "health: {{ listen: \"127.0.0.1:0\", stuckSeconds: {stuck} }}\nlimits: {{ memory: 8Gi }}\nplugins:\n  \
         p: {{ source: file:fills.wasm, once: true, backoffLimit: 0, limits: {{ memory: 4Gi }} }}\n"
    );
    let scene = Scene::new().file("fills.wasm", &fills(mebibytes));
    let host = scene.launch(&yaml, &Launch { groups: &[&group], ..Launch::default() });
    let run = loop {
        assert_eq!(host.get("/health/live"), (200, "live\n".to_owned()));
        let plugin = host.plugin("p");
        if plugin["lastRuns"][0].is_object() {
            break plugin["lastRuns"][0].clone();
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(run["outcome"], "Succeeded", "{run}");
    let seconds =
        run["duration"].as_str().unwrap().split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap());
    eprintln!("{mebibytes} MiB in one operation: {seconds} s, {} s of CPU time", run["cpuSeconds"]);
    assert!(seconds > f64::from(stuck) + 1.0, "too fast to prove anything: {run}");
    assert_eq!(fs::read_to_string(host.scene().termination_log()).unwrap(), "");
    drop(host);
}

#[test]
fn a_host_starved_of_cpu_stays_green() {
    let Some(group) = Group::new("cpu") else { return };
    group.set("cpu.cfs_period_us", "1000000");
    let scene = Scene::new().guest("spins").guest("actor").guest("succeeds");
    let yaml = YAML.replace("stuckSeconds: 2", "stuckSeconds: 1");
    let mut host = scene.launch(&yaml, &Launch { groups: &[&group], ..Launch::default() });
    host.wait_until_ready();
    // A fiftieth of a CPU for six threads that want all of it.
    group.set("cpu.cfs_quota_us", "20000");
    std::thread::sleep(Duration::from_secs(8));
    group.set("cpu.cfs_quota_us", "-1");
    stays_green(&host, 3);
    assert!(host.lines().iter().all(|line| line["message"] != "liveness turned red"));
    drop(host);
}

#[test]
fn a_process_that_is_stopped_again_and_again_stays_green() {
    let scene = Scene::new().guest("spins").guest("actor").guest("succeeds");
    let yaml = YAML.replace("stuckSeconds: 2", "stuckSeconds: 1");
    let host = scene.launch(&yaml, &Launch::default());
    host.wait_until_ready();
    for _ in 0..20 {
        host.signal("STOP");
        std::thread::sleep(Duration::from_millis(300));
        host.signal("CONT");
        std::thread::sleep(Duration::from_millis(5));
    }
    stays_green(&host, 3);
}

#[test]
fn a_host_with_nothing_to_do_is_never_late() {
    let scene = Scene::new().guest("succeeds");
    let yaml = "health: { listen: \"127.0.0.1:0\", stuckSeconds: 1 }\nplugins:\n  p: { source: file:succeeds.wasm }\n";
    let host = scene.launch(yaml, &Launch::default());
    host.wait_until_ready();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        assert_eq!(host.get("/health/live").0, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
}
