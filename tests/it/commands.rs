//! The commands that are not the host: check, inspect, schema, completion, health, new; and their exit codes.

use windlass_tests::{Scene, guest};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_prints_values_with_their_origin_and_what_they_mean() {
    let scene = Scene::new().guest("with_manifest");
    scene.configure(
        "defaults: { backoffLimit: 1 }\nplugins:\n  p: { source: file:with_manifest.wasm, limits: { weight: 200 } }\n",
    );
    let output = scene.windlass(&["check"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in [
        "every                        1s  (manifest)",
        "backoffLimit                 1  (defaults)",
        "200  (entry)",
        "Unhealthy 2s after",
        "all good",
    ] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

#[test]
fn check_finds_what_is_wrong_and_exits_with_2() {
    let scene = Scene::new();
    scene.configure("plugins:\n  p: { source: file:none.wasm }\n  q: { evry: 1s }\n");
    let output = scene.windlass(&["check"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("none.wasm") && said.contains("`every`"), "{said}");
    assert!(text(&output.stderr).contains("2 problems"), "{}", text(&output.stderr));
}

#[test]
fn inspect_tells_kind_manifest_and_wishes() {
    let scene = Scene::new().guest("with_manifest").guest("heartbeat").file("bad.wasm", b"nothing");
    let said = text(&scene.windlass(&["inspect", "plugins/with_manifest.wasm"]).stdout);
    for part in [
        "preview 1",
        "windlass:job 0.1.0",
        "with-manifest",
        "every: 1s",
        "http: https://example.com/*",
        "not granted",
        "sha256:",
    ] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    let said = text(&scene.windlass(&["inspect", "plugins/heartbeat.wasm"]).stdout);
    assert!(said.contains("component, windlass job") && said.contains("windlass:job/check@0.1.0"), "{said}");
    let output = scene.windlass(&["inspect", "plugins/bad.wasm"]);
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("bad.wasm"), "{}", text(&output.stderr));
}

#[test]
fn the_schema_is_json_and_knows_the_keys() {
    let scene = Scene::new();
    let schema: serde_json::Value = serde_json::from_slice(&scene.windlass(&["schema"]).stdout).unwrap();
    assert_eq!(schema["properties"]["health"]["properties"]["listen"]["type"], "string");
    assert_eq!(schema["$defs"]["plugin"]["additionalProperties"], false);
}

#[test]
fn completion_and_help_show_only_what_there_is() {
    let scene = Scene::new();
    let script = text(&scene.windlass(&["completion", "bash"]).stdout);
    assert!(script.contains("inspect") && script.contains("once"), "{script}");
    let help = text(&scene.windlass(&["--help"]).stdout);
    for command in
        ["run", "check", "once", "inspect", "push", "pull", "new", "health", "probe-advice", "schema", "completion"]
    {
        assert!(help.contains(&format!("  {command}")), "{command}: {help}");
    }
    for later in ["logs", "trigger", "import"] {
        assert!(!help.contains(&format!("  {later}")), "{later}: {help}");
    }
    assert_eq!(scene.windlass(&["logs"]).status.code(), Some(2));
    assert_eq!(scene.windlass(&["--version"]).status.code(), Some(0));
}

#[test]
fn health_asks_a_running_host() {
    let host = Scene::new().guest("traps").run(
        "plugins:\n  p: { source: file:traps.wasm, once: true, backoffLimit: 0, health: { failureThreshold: 1 } }\n",
    );
    host.wait_for("p", |plugin| plugin["status"] == "Unhealthy");
    let ask = |path: &str| host.scene().windlass(&["health", "--url", &format!("http://{}{path}", host.address())]);
    let live = ask("/health/live");
    assert_eq!((live.status.code(), text(&live.stdout).trim()), (Some(0), "live"));
    let report = ask("/health");
    assert_eq!(report.status.code(), Some(1));
    assert!(text(&report.stdout).starts_with("Unhealthy  p "), "{}", text(&report.stdout));
    let nobody = host.scene().windlass(&["health", "--url", "http://127.0.0.1:9/"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert_eq!(host.scene().windlass(&["health", "--url", "ftp://x"]).status.code(), Some(2));
}

#[test]
fn a_reader_that_goes_away_ends_a_command_well() {
    let scene = Scene::new();
    let mut child = std::process::Command::new(windlass_tests::binary())
        .arg("schema")
        .current_dir(scene.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn once_refuses_bad_arguments_and_files() {
    let scene = Scene::new().guest("succeeds").file("cut.wasm", &guest("heartbeat")[..100]);
    for (arguments, said) in [
        (&["once", "plugins/none.wasm"][..], "none.wasm"),
        (&["once", "plugins/cut.wasm"], "truncated"),
        (&["once", "plugins/succeeds.wasm", "--config", "novalue"], "KEY=VALUE"),
        (&["once", "plugins/succeeds.wasm", "--memory", "lots"], "64Mi"),
        (&["once", "plugins/succeeds.wasm", "--at", "noon"], "2026-01-31"),
        (&["once", "plugins/succeeds.wasm", "--deadline-seconds", "0"], "more than 0"),
    ] {
        let output = scene.windlass(arguments);
        assert!(
            output.status.code() == Some(2) && text(&output.stderr).contains(said),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn probe_advice_measures_a_running_host() {
    let host = Scene::new().run("plugins: {}\n");
    let url = format!("http://{}", host.address());
    let output = host.scene().windlass(&["probe-advice", "--url", &url, "--seconds", "1"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    for part in
        ["livenessProbe:\n  path: /health/live\n", "readinessProbe:", "startupProbe:", "timeoutSeconds: ", "# 10 times"]
    {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    let output = host.scene().windlass(&["probe-advice", "--url", &url, "--seconds", "0.1", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["liveIsRed"], false);
    assert_eq!(json["probes"][0]["probe"], "livenessProbe");
    assert!(json["probes"][0]["measured"]["probes"].as_u64().unwrap() > 0, "{json:#}");
    // The host asked is the one that listens there, whoever's values are printed.
    let output = host.scene().windlass(&["probe-advice", "--url", &url, "--seconds", "0.1", "--container"]);
    let port = host.address().rsplit_once(':').unwrap().1;
    let said = text(&output.stdout);
    assert!(said.contains(&format!("httpGet: {{ path: /health/ready, port: {port} }}")), "{said}");
}

#[test]
fn probe_advice_says_who_is_no_host() {
    use std::io::{Read as _, Write as _};
    let scene = Scene::new();
    let advice = |port: u16, seconds: &str| {
        let url = format!("http://127.0.0.1:{port}");
        let output = scene.windlass(&["probe-advice", "--url", &url, "--seconds", seconds]);
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
        (output.status.code(), text(&output.stderr))
    };
    // Bound and never accepted: whoever connects waits.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, said) = advice(silent.local_addr().unwrap().port(), "0.1");
    assert!(code == Some(1) && said.contains("no answer within 5 s"), "{said}");
    let port = silent.local_addr().unwrap().port();
    drop(silent);
    let (code, said) = advice(port, "30");
    assert!(code == Some(1) && said.contains("connecting"), "{said}");
    for (answer, why) in
        [("SSH-2.0-OpenSSH\r\n\r\n", "no HTTP"), ("HTTP/1.1 404 Not Found\r\n\r\n", "is this a windlass?")]
    {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in server.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let (code, said) = advice(port, "0.1");
        assert!(code == Some(1) && said.contains(why), "{said}");
    }
    assert_eq!(scene.windlass(&["probe-advice", "--seconds", "0"]).status.code(), Some(2));
    assert_eq!(scene.windlass(&["probe-advice", "--url", "ftp://x"]).status.code(), Some(2));
}
