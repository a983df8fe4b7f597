//! The health port of the real binary.

use windlass_tests::Scene;

#[test]
fn paths_answer_as_documented() {
    let host = Scene::new().guest("succeeds").run("plugins:\n  p: { source: file:succeeds.wasm, every: 1s }\n");
    host.wait_until_ready();
    host.wait_for_run("p");
    for path in [
        "/health",
        "/health/live",
        "/health/ready",
        "/health/startup",
        "/health/plugins",
        "/health/plugins/p",
        "/metrics",
    ] {
        assert_eq!(host.get(path).0, 200, "{path}");
    }
    let (code, body) = host.get("/nothing");
    assert!(code == 404 && body.contains("/health/live"), "{body}");
    let (code, body) = host.get("/health/plugins/nobody");
    assert!(code == 404 && body.contains("\np\n"), "{body}");
    let plugin = host.plugin("p");
    for key in ["state", "version", "lastRuns", "nextRun", "totals", "running", "lastSuccess"] {
        assert!(!plugin[key].is_null(), "{key} is not in {plugin}");
    }
}

#[test]
fn an_answer_proves_that_lanes_and_scheduler_move() {
    // The judge's rule is tested with threads that are really stuck in `health/judge.rs`; here: that it looks at this host's threads.
    let host = Scene::new().guest("spins").run("plugins:\n  p: { source: file:spins.wasm, continuous: true }\n");
    host.wait_for("p", |plugin| plugin["running"][0]["cpuSeconds"].as_f64() > Some(0.5));
    assert_eq!(host.get("/health/live").0, 200, "preempted computing is no stuck lane");
}

#[test]
fn a_stop_of_the_whole_process_does_not_turn_live_red() {
    let host = Scene::new()
        .guest("spins")
        .run("health: { listen: \"127.0.0.1:0\", stuckSeconds: 1 }\nplugins:\n  p: { source: file:spins.wasm, continuous: true }\n");
    host.wait_for("p", |plugin| plugin["running"][0]["started"].is_string());
    host.signal("STOP");
    std::thread::sleep(std::time::Duration::from_secs(3));
    host.signal("CONT");
    for _ in 0..20 {
        assert_eq!(host.get("/health/live").0, 200);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn metrics_count_runs_and_pass_promtool() {
    let host = Scene::new()
        .guest("succeeds")
        .run("plugins:\n  p: { source: file:succeeds.wasm, every: 50ms, labels: { team: \"a\\\"b\" } }\n");
    host.wait_for("p", |plugin| plugin["totals"]["runs"]["Succeeded"].as_u64() >= Some(3));
    let (_, metrics) = host.get("/metrics");
    let count =
        metrics.lines().find_map(|line| line.strip_prefix("windlass_runs_total{plugin=\"p\",outcome=\"Succeeded\"} "));
    assert!(count.unwrap().parse::<u64>().unwrap() >= 3, "{metrics}");
    assert!(metrics.contains("label_team=\"a\\\"b\""), "{metrics}");
    let tool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    match tool {
        Ok(mut tool) => {
            use std::io::Write as _;
            tool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
            let output = tool.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{said}");
        }
        Err(_) => eprintln!("!! promtool is not installed (Debian: prometheus): /metrics was NOT checked with it"),
    }
}
