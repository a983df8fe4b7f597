//! The spine: files in, jobs on time, health that tells the truth about each.

use std::time::{Duration, Instant};

use windlass_tests::{Host, Scene};

#[test]
fn a_folder_without_configuration_runs_by_manifests() {
    let scene = Scene::new().guest("with_manifest").guest("succeeds").guest("plain-wasi");
    let folder = scene.plugins().display().to_string();
    let config = scene.path().join("port.yaml");
    std::fs::write(&config, "health: { listen: \"127.0.0.1:0\" }\ndiscover: true\n").unwrap();
    let arguments = ["run".to_owned(), folder, "--config".to_owned(), config.display().to_string()];
    let host = Host::start(scene, &arguments);
    let plugin = host.wait_for("with-manifest", |plugin| plugin["totals"]["runs"]["Succeeded"].as_u64() >= Some(2));
    assert_eq!(plugin["trigger"], "every 1s");
    assert_eq!(plugin["version"]["authorVersion"], "1.2.3");
    assert_eq!(host.plugin("plain-wasi")["trigger"], "manual");
    let entry = host.json("/health")["entries"]["with-manifest"].clone();
    assert_eq!(entry["tags"], serde_json::json!(["nightly"]));
}

#[test]
fn files_without_an_entry_are_listed_and_not_run() {
    let host =
        Scene::new().guest("succeeds").guest("traps").run("plugins:\n  succeeds: { source: file:succeeds.wasm }\n");
    host.wait_until_ready();
    assert_eq!(host.plugin("traps")["state"], "Ignored");
    assert!(host.json("/health")["entries"].get("traps").is_none());
}

#[test]
fn health_answers_at_once_while_every_core_burns() {
    let mut plugins = String::from("plugins:\n");
    for number in 0..20 {
        plugins += &format!("  spin-{number}: {{ source: file:spins.wasm, continuous: true }}\n");
    }
    plugins += "  beat: { source: file:succeeds.wasm, every: 200ms }\n";
    let host = Scene::new().guest("spins").guest("succeeds").run(&plugins);
    host.wait_until_ready();
    host.wait_for("spin-19", |plugin| plugin["running"][0]["cpuSeconds"].as_f64() > Some(0.0));
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let began = Instant::now();
        assert_eq!(host.get("/health/live").0, 200);
        slowest = slowest.max(began.elapsed());
    }
    // A second is what a kubelet waits; the benchmark measures what it really takes.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let report = host.json("/health");
    assert_eq!(report["entries"].as_object().unwrap().len(), 22);
    let beat = host.wait_for("beat", |plugin| plugin["totals"]["runs"]["Succeeded"].as_u64() >= Some(5));
    assert_eq!(beat["status"], "Healthy");
}

#[test]
fn attempts_are_retried_and_permanent_failures_are_not() {
    let host = Scene::new().guest("actor").run(
        "plugins:\n  again: { source: file:actor.wasm, once: true, backoffLimit: 1, config: { act: fails_transient } }\n  \
         never: { source: file:actor.wasm, once: true, config: { act: fails_permanent } }\n",
    );
    let never = host.wait_for_run("never");
    assert_eq!(
        (&never["attempts"], &never["outcome"]),
        (&serde_json::json!(1), &serde_json::json!("Failed(Permanent)"))
    );
    let pausing =
        host.wait_for("again", |plugin| plugin["description"].as_str().unwrap().contains("attempt 2 of 2 at"));
    assert_eq!(pausing["status"], "Degraded");
    let again = host.wait_for_run("again");
    assert_eq!((&again["attempts"], &again["reason"]), (&serde_json::json!(2), &serde_json::json!("try again")));
}

#[test]
fn a_deadline_ends_a_run_that_computes_and_one_that_hangs() {
    let host = Scene::new().guest("spins").guest("sleeps").run(
        "defaults: { backoffLimit: 0, once: true, activeDeadlineSeconds: 0.5 }\n\
         plugins:\n  spins: { source: file:spins.wasm }\n  sleeps: { source: file:sleeps.wasm }\n",
    );
    for name in ["spins", "sleeps"] {
        let run = host.wait_for_run(name);
        assert_eq!(run["outcome"], "DeadlineExceeded", "{run}");
        assert!(run["reason"].as_str().unwrap().contains("activeDeadlineSeconds of 0.5"), "{run}");
    }
    let (spun, slept) = (host.plugin("spins"), host.plugin("sleeps"));
    assert!(spun["totals"]["fuel"].as_u64().unwrap() > 1_000_000, "exact fuel of a killed run: {spun}");
    assert!(slept["totals"]["cpuSeconds"].as_f64().unwrap() < 0.1, "{slept}");
}

#[test]
fn budgets_of_cpu_and_fuel_end_a_run() {
    let host = Scene::new().guest("spins").run(
        "defaults: { backoffLimit: 0, once: true }\n\
         plugins:\n  cpu: { source: file:spins.wasm, limits: { cpuSeconds: 0.2 } }\n  fuel: { source: file:spins.wasm, limits: { fuel: 5M } }\n",
    );
    assert_eq!(host.wait_for_run("cpu")["outcome"], "OutOfCpu");
    let run = host.wait_for_run("fuel");
    assert_eq!((run["outcome"].as_str(), run["fuel"].as_u64()), (Some("OutOfFuel"), Some(5_000_000)));
}

#[test]
fn memory_of_all_guests_is_admitted_and_a_run_that_does_not_fit_waits() {
    let host = Scene::new().guest("holds_64mib").run(
        "limits: { memory: 100Mi }\nplugins:\n  \
         first: { source: file:holds_64mib.wasm, once: true, activeDeadlineSeconds: 4, backoffLimit: 0 }\n  \
         second: { source: file:holds_64mib.wasm, once: true, activeDeadlineSeconds: 1, backoffLimit: 0 }\n",
    );
    host.wait_until_ready();
    let waits = |name: &str| {
        host.plugin(name)["description"].as_str().is_some_and(|said| said.starts_with("waiting for memory since"))
    };
    let until = Instant::now() + Duration::from_secs(20);
    while !waits("first") && !waits("second") {
        assert!(Instant::now() < until, "{} {}", host.plugin("first"), host.plugin("second"));
        std::thread::sleep(Duration::from_millis(10));
    }
    // Its turn comes when the other is gone.
    assert_eq!(host.wait_for_run("first")["outcome"], "DeadlineExceeded");
    assert_eq!(host.wait_for_run("second")["outcome"], "DeadlineExceeded");
}

#[test]
fn memory_that_others_hold_is_held_against_nobody_else() {
    let host = Scene::new().guest("holds_64mib").guest("hoards_memory").run(
        "limits: { memory: 100Mi }\nplugins:\n  hog: { source: file:holds_64mib.wasm, continuous: true }\n  \
         small: { source: file:hoards_memory.wasm, every: 1s, startingDeadlineSeconds: 60 }\n",
    );
    let small = host
        .wait_for("small", |plugin| plugin["exception"].as_str().is_some_and(|why| why.contains("OutOfMemory(Host)")));
    assert_eq!(small["failuresInRow"], 0);
    assert!(small["exception"].as_str().unwrap().contains("hog (64Mi)"), "{small}");
    assert_eq!(host.plugin("hog")["status"], "Healthy");
}

#[test]
fn self_reports_and_checks_are_in_the_entry() {
    let host = Scene::new().guest("actor").guest("checked").run(
        "plugins:\n  says: { source: file:actor.wasm, continuous: true, config: { act: is_degraded } }\n  \
         checked: { source: file:checked.wasm }\n",
    );
    let says = host.wait_for("says", |plugin| plugin["state"] == "Active" && plugin["status"] == "Degraded");
    assert_eq!((&says["description"], &says["data"]["k"]), (&"it says: having a bad day".into(), &"v".into()));
    let checked = host.wait_for("checked", |plugin| plugin["state"] == "Active" && plugin["status"] == "Degraded");
    assert_eq!(checked["description"], "its health check says: running a temperature");
    assert_eq!(checked["data"]["degrees"], "41");
}

#[test]
fn a_guest_that_flips_its_health_every_moment_is_taken_over_once_a_second() {
    let mut host = Scene::new()
        .guest("actor")
        .run("plugins:\n  flips: { source: file:actor.wasm, continuous: true, config: { act: flips_health } }\n");
    host.wait_for("flips", |plugin| plugin["running"][0]["cpuSeconds"].as_f64() > Some(3.0));
    let changes = host.lines().iter().filter(|line| line["message"] == "plugin changed").count();
    assert!(changes < 20, "{changes} changes in some seconds");
}

#[test]
fn hostile_bytes_never_reach_the_log_or_the_report_as_they_are() {
    let mut host = Scene::new()
        .guest("speaks_hostile_bytes")
        .run("plugins:\n  p: { source: file:speaks_hostile_bytes.wasm, once: true, backoffLimit: 0 }\n");
    let run = host.wait_for_run("p");
    assert_eq!(run["exitCode"], 9);
    let line = host.wait_for_line(|line| line["target"] == "guest");
    for text in [line["message"].as_str().unwrap(), run["reason"].as_str().unwrap()] {
        assert!(text.contains("\\u{1b}[2Jgone\\u{2028}") && !text.contains('\u{1b}'), "{text:?}");
    }
}

#[test]
fn a_flood_of_lines_is_cut_at_its_limit() {
    let mut host = Scene::new().guest("floods_log").run(
        "plugins:\n  p: { source: file:floods_log.wasm, once: true, backoffLimit: 0, activeDeadlineSeconds: 1, limits: { logs: 3Ki } }\n",
    );
    let run = host.wait_for_run("p");
    assert!(run["refused"][0].as_str().unwrap().contains("limits.logs"), "{run}");
    let lines = host.lines().iter().filter(|line| line["target"] == "guest").count();
    assert!(lines <= 110, "{lines} lines of 30 bytes");
}

#[test]
fn one_event_an_attempt_with_the_same_fields_each_time() {
    let mut host = Scene::new().guest("succeeds").guest("traps").run(
        "defaults: { once: true, backoffLimit: 0 }\nplugins:\n  good: { source: file:succeeds.wasm }\n  bad: { source: file:traps.wasm }\n",
    );
    for (name, outcome, level) in [("good", "Succeeded", "INFO"), ("bad", "Trapped", "WARN")] {
        let line = host.wait_for_line(|line| line["message"] == "run ended" && line["plugin"] == name);
        for field in ["plugin", "version", "run", "attempt", "outcome", "fuel", "cpu_us", "elapsed_ms"] {
            assert!(!line[field].is_null(), "{field} is not in {line}");
        }
        assert_eq!((line["outcome"].as_str(), line["level"].as_str()), (Some(outcome), Some(level)));
    }
}

#[test]
fn a_hundred_plugins_of_one_artifact_and_ten_thousand_starts() {
    let mut plugins = String::from("plugins:\n");
    for number in 0..100 {
        plugins += &format!("  p{number}: {{ source: file:succeeds.wasm, every: 10ms }}\n");
    }
    let host = Scene::new().guest("succeeds").run(&plugins);
    host.wait_for("p99", |plugin| plugin["totals"]["runs"]["Succeeded"].as_u64() >= Some(100));
    assert_eq!(host.get("/health").0, 200);
}
