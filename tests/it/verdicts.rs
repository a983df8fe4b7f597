//! Verdicts on real guests, checks that misbehave, and an escalation that outlives its process.

use serde_json::Value;
use windlass_tests::{Host, Scene};

/// Waits until the first run of a plugin has a verdict that begins like this, and returns that run.
fn wait_for_verdict(host: &Host, plugin: &str, verdict: &str) -> Value {
    let is_it = |view: &Value| view["running"][0]["verdict"].as_str().is_some_and(|found| found.starts_with(verdict));
    let view = host.wait_for(plugin, is_it);
    assert!(view["verdict"].as_str().is_some_and(|found| found.starts_with(verdict)), "{view:#}");
    view["running"][0].clone()
}

#[test]
fn each_run_has_its_verdict_with_the_figures_behind_it() {
    let host = Scene::new().guest("spins").guest("sleeps").guest("actor").run(
        "limits: { lanes: 1 }\nplugins:\n  \
         spins: { source: file:spins.wasm, continuous: true }\n  \
         sleeps: { source: file:sleeps.wasm, continuous: true }\n  \
         works: { source: file:actor.wasm, continuous: true, config: { act: reports_progress } }\n",
    );
    let run = wait_for_verdict(&host, "spins", "Computing");
    assert!(run["cpuSeconds"].as_f64() > Some(0.0) && run["fuel"].as_u64() > Some(0), "{run:#}");
    assert!(run["because"].as_str().is_some_and(|said| said.starts_with("computing since")), "{run:#}");
    let run = wait_for_verdict(&host, "sleeps", "Waiting(poll_oneoff of a clock)");
    assert_eq!(run["waitingFor"]["call"], "poll_oneoff of a clock");
    assert!(run["waitingSeconds"].as_f64() > Some(0.0), "{run:#}");
    let run = wait_for_verdict(&host, "works", "Waiting(wasi:clocks/monotonic-clock)");
    assert!(run["progress"]["done"].is_u64() && run["progress"]["message"] == "going on", "{run:#}");
    assert!(run["memoryBytes"].as_u64() > Some(0), "{run:#}");
    let entry = host.json("/health")["entries"]["spins"].clone();
    assert!(entry["description"].as_str().is_some_and(|said| said.starts_with("computing since")), "{entry}");
    assert_eq!(entry["status"], "Healthy");
}

#[test]
fn names_only_shows_verdicts_and_hides_what_guests_said() {
    let host = Scene::new().guest("actor").run(
        "health: { listen: \"127.0.0.1:0\", detail: names }\nplugins:\n  \
         works: { source: file:actor.wasm, continuous: true, config: { act: reports_progress } }\n",
    );
    let view = host.wait_for("works", |view| view["running"][0]["progress"]["done"].is_u64());
    assert!(!view.to_string().contains("going on"), "{view:#}");
    wait_for_verdict(&host, "works", "Waiting");
}

#[test]
fn more_spinning_runs_than_lanes_are_starved_of_lanes_and_stay_healthy() {
    let mut host = Scene::new().guest("spins").run(
        "limits: { lanes: 1 }\nplugins:\n  \
         many: { source: file:spins.wasm, every: 50ms, concurrencyPolicy: Allow, maxConcurrent: 6 }\n",
    );
    let run = wait_for_verdict(&host, "many", "Starved(lanes)");
    assert!(run["queuedSeconds"].as_f64() > Some(0.0), "{run:#}");
    assert_eq!(host.plugin("many")["status"], "Healthy", "each gets its slices");
    let line = host.wait_for_line(|line| line["message"] == "verdict changed");
    assert_eq!((line["plugin"].as_str(), line["verdict"].as_str()), (Some("many"), Some("Starved(lanes)")));
}

#[test]
fn budgets_deadlines_and_silence_are_seen_coming() {
    let mut host = Scene::new().guest("spins").guest("sleeps").run(
        "plugins:\n  \
         budget: { source: file:spins.wasm, once: true, limits: { cpuSeconds: 20 }, activeDeadlineSeconds: 3600 }\n  \
         deadline: { source: file:sleeps.wasm, once: true, activeDeadlineSeconds: 30 }\n  \
         silent: { source: file:sleeps.wasm, continuous: true, health: { maxSilenceSeconds: 3 } }\n",
    );
    let run = wait_for_verdict(&host, "silent", "Silent");
    assert!(run["because"].as_str().is_some_and(|said| said.contains("it waits in poll_oneoff")), "{run:#}");
    let view = host.plugin("silent");
    assert!(
        view["status"] == "Unhealthy"
            && view["description"].as_str().is_some_and(|said| said.contains("no sign of life"))
    );
    let run = wait_for_verdict(&host, "deadline", "NearDeadline");
    assert!(run["because"].as_str().is_some_and(|said| said.contains("activeDeadlineSeconds")), "{run:#}");
    assert_eq!(host.plugin("deadline")["status"], "Healthy");
    let run = wait_for_verdict(&host, "budget", "NearBudget(limits.cpuSeconds)");
    assert!(run["cpuSeconds"].as_f64() >= Some(18.0), "{run:#}");
    for (plugin, verdict) in [("silent", "Silent"), ("deadline", "NearDeadline")] {
        let line = host.wait_for_line(|line| {
            line["message"] == "verdict changed" && line["plugin"] == plugin && line["verdict"] == verdict
        });
        assert_eq!(line["level"], "WARN");
    }
}

#[test]
fn a_budget_of_fuel_is_seen_coming() {
    let host = Scene::new()
        .guest("burns_then_sleeps")
        .run("plugins:\n  fuel: { source: file:burns_then_sleeps.wasm, once: true, limits: { fuel: 8500000 } }\n");
    let run = wait_for_verdict(&host, "fuel", "NearBudget(limits.fuel)");
    assert!(run["because"].as_str().is_some_and(|said| said.contains("of limits.fuel 8500000 burnt")), "{run:#}");
    assert!(run["because"].as_str().is_some_and(|said| said.contains("it waits in poll_oneoff of a clock")), "{run:#}");
}

#[test]
fn a_check_that_traps_hangs_or_spins_counts_against_its_plugin_alone() {
    let mut plugins = String::from("plugins:\n  beat: { source: file:succeeds.wasm, every: 100ms }\n");
    // One that spins runs out of its second of CPU time long before its time.
    for (act, timeout_s) in [("traps", 30), ("hangs", 2), ("spins", 60)] {
        let health = format!("checkSeconds: 1, checkTimeoutSeconds: {timeout_s}");
        plugins += &format!("  {act}: {{ source: file:checked.wasm, args: [{act}], health: {{ {health} }} }}\n");
    }
    let host = Scene::new().guest("checked").guest("succeeds").run(&plugins);
    let cases = [("traps", "Trapped"), ("hangs", "did not answer within checkTimeoutSeconds"), ("spins", "OutOfCpu")];
    for (plugin, why) in cases {
        let view = host.wait_for(plugin, |view| view["status"] == "Unhealthy");
        let description = view["description"].as_str().unwrap();
        assert!(description.contains("its health check failed") && description.contains(why), "{description}");
        assert_eq!((view["failuresInRow"].as_u64(), &view["state"]), (Some(0), &"Active".into()), "{view:#}");
    }
    assert_eq!(host.plugin("beat")["status"], "Healthy");
    assert_eq!(host.get("/health/live").0, 200);
}

const ESCALATING: &str = "dataDir: data\nplugins:\n  \
    p: { source: file:traps.wasm, every: 100ms, backoffLimit: 0, health: { failureThreshold: 1, escalate: OnUnhealthy } }\n";

fn config_with_data(scene: &Scene) -> Vec<String> {
    let data = scene.path().join("data").display().to_string();
    let config = scene.configure(&ESCALATING.replace("dataDir: data", &format!("dataDir: \"{data}\"")));
    vec!["run".to_owned(), "--config".to_owned(), config.display().to_string()]
}

#[test]
fn an_escalation_is_red_once_and_a_restart_on_the_same_data_is_not_red_again_too_soon() {
    let scene = Scene::new().guest("traps");
    let arguments = config_with_data(&scene);
    let kept = scene.path().join("data");
    let mut host = Host::start(scene, &arguments);
    let view = host.wait_for("p", |view| view["ladder"]["rung"] == "Escalated");
    assert!(
        view["description"].as_str().is_some_and(|said| said.contains("/health/live is red for it since")),
        "{view:#}"
    );
    host.wait_for_line(|line| line["message"] == "liveness turned red");
    assert_eq!(host.get("/health/live").0, 503);
    assert!(view["state"] != "Quarantined", "the restart comes first");
    let memory = kept.join("escalations.json");
    let until = std::time::Instant::now() + windlass_tests::PATIENCE;
    while !memory.exists() {
        assert!(std::time::Instant::now() < until, "it was not written down");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // As a kubelet does in the end.
    host.signal("KILL");
    host.wait_for_end();

    let scene = Scene::new().guest("traps");
    std::fs::create_dir(scene.path().join("data")).unwrap();
    std::fs::copy(&memory, scene.path().join("data/escalations.json")).unwrap();
    let arguments = config_with_data(&scene);
    let host = Host::start(scene, &arguments);
    let view = host.wait_for("p", |view| view["state"] == "Quarantined");
    let said = view["description"].as_str().unwrap();
    assert!(said.contains("/health/live may turn red for it again at"), "{said}");
    assert!(view["ladder"]["rung"] == "Quarantine" && view["ladder"]["escalatesAgain"].is_string(), "{view:#}");
    // Two looks of the judge, which turns red within one.
    for _ in 0..25 {
        assert_eq!(host.get("/health/live").0, 200);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
