//! How it ends: drains, second signals, and what is told of runs that were cut off.

use std::time::{Duration, Instant};

use windlass_tests::Scene;

#[test]
fn sigterm_lets_a_run_that_obeys_end_by_itself() {
    let mut host = Scene::new()
        .guest("actor")
        .run("plugins:\n  p: { source: file:actor.wasm, continuous: true, config: { act: obeys_cancel } }\n");
    host.wait_for("p", |plugin| plugin["running"][0]["started"].is_string());
    assert_eq!(host.stop(), 0);
    host.wait_for_line(|line| line["target"] == "guest" && line["message"] == "asked to end");
    let line = host.wait_for_line(|line| line["message"] == "run ended");
    assert_eq!(line["outcome"], "Succeeded");
}

#[test]
fn a_run_that_ignores_it_is_cut_off_after_the_drain_and_has_not_failed() {
    let mut host = Scene::new().guest("actor").guest("spins").run(
        "drainSeconds: 1\nplugins:\n  sleeps: { source: file:actor.wasm, continuous: true, config: { act: ignores_cancel } }\n  \
         spins: { source: file:spins.wasm, continuous: true }\n",
    );
    for name in ["sleeps", "spins"] {
        host.wait_for(name, |plugin| plugin["running"][0]["started"].is_string());
    }
    host.signal("TERM");
    let began = Instant::now();
    assert_eq!(host.get("/health/live").0, 200, "a drain is no fault");
    assert_eq!(host.get("/health/ready").0, 503);
    assert_eq!(host.wait_for_end().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for name in ["sleeps", "spins"] {
        let line = host.wait_for_line(|line| line["message"] == "run ended" && line["plugin"] == name);
        assert_eq!(line["outcome"], "Cancelled(HostShutdown)");
    }
}

#[test]
fn a_second_sigterm_changes_nothing_and_a_second_sigint_exits_at_once() {
    let yaml = "drainSeconds: 60\nplugins:\n  p: { source: file:sleeps.wasm, continuous: true }\n";
    let mut host = Scene::new().guest("sleeps").run(yaml);
    host.wait_for("p", |plugin| plugin["running"][0]["started"].is_string());
    host.signal("TERM");
    host.wait_for_line(|line| line["message"].as_str().is_some_and(|message| message.starts_with("shutting down")));
    host.signal("TERM");
    host.signal("INT");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(host.get("/health/live").0, 200, "it still drains");
    host.signal("INT");
    assert_eq!(host.wait_for_end().code(), Some(130));
}

#[test]
fn ctrl_c_before_anything_has_loaded_ends_it() {
    let mut host = Scene::new().guest("heartbeat").run("plugins:\n  p: { source: file:heartbeat.wasm }\n");
    host.signal("INT");
    assert_eq!(host.wait_for_end().code(), Some(0));
}

#[test]
fn an_escalating_plugin_turns_live_red_and_the_exit_code_1() {
    let scene = Scene::new().guest("traps");
    let log = scene.path().join("termination-log");
    std::fs::write(&log, "").unwrap();
    let config = scene.configure(
        "plugins:\n  p: { source: file:traps.wasm, every: 1h, backoffLimit: 0, health: { failureThreshold: 1, escalate: OnUnhealthy } }\n",
    );
    let arguments = ["run", "--config", &config.display().to_string(), "--termination-log", &log.display().to_string()];
    let mut host = windlass_tests::Host::start(scene, &arguments.map(str::to_owned));
    host.wait_for_run("p");
    let until = Instant::now() + Duration::from_secs(20);
    while host.get("/health/live").0 == 200 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(50));
    }
    let (_, reason) = host.get("/health/live");
    assert!(reason.contains("plugin p") && reason.contains("failed run"), "{reason}");
    assert_eq!(host.stop(), 1);
    assert!(std::fs::read_to_string(&log).unwrap().contains("plugin p is Unhealthy and escalates"));
}

#[test]
fn a_log_reader_that_goes_away_does_not_end_the_host() {
    let scene = Scene::new().guest("succeeds");
    scene.configure("plugins:\n  p: { source: file:succeeds.wasm, every: 10ms }\n");
    let mut child = std::process::Command::new(windlass_tests::binary())
        .arg("run")
        .current_dir(scene.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it went on without a reader");
    child.kill().unwrap();
    child.wait().unwrap();
}
