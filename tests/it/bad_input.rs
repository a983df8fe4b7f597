//! Bad input: one clear line that names the file, the cause and the remedy; and nobody else is kept from running.

use std::fs;
use std::net::TcpListener;

use windlass_tests::{Scene, guest};

/// Puts a bad file beside a good one, and checks what is said of it while the good one runs.
fn refused(file: &str, bytes: &[u8], entry: &str, said: &[&str]) {
    let scene = Scene::new().guest("succeeds").file(file, bytes);
    let host = scene.run(&format!(
        "plugins:\n  good: {{ source: file:succeeds.wasm, every: 100ms }}\n  bad: {{ source: \"file:{file}\"{entry} }}\n"
    ));
    host.wait_for_run("good");
    let bad = host.wait_for("bad", |plugin| plugin["state"] == "Refused");
    let description = bad["description"].as_str().unwrap().to_owned();
    assert_eq!(bad["status"], "Unhealthy");
    for part in said {
        assert!(description.contains(part), "`{part}` is not in: {description}");
    }
    assert!(description.contains(file), "the file is not named: {description}");
    assert!(!description.contains('\n'), "{description}");
    assert_eq!(host.get("/health").0, 503);
    assert_eq!(host.get("/health/live").0, 200);
    assert_eq!(host.plugin("good")["status"], "Healthy");
}

#[test]
fn a_file_that_is_not_wasm() {
    refused("a.wasm", b"#!/bin/sh\necho hello\n", "", &["not WebAssembly"]);
    refused("b.wasm", b"", "", &["empty"]);
    refused("c.wasm", b"(module)", "", &["text", "wasm-tools parse"]);
}

#[test]
fn an_import_that_nobody_provides() {
    refused("imports_unknown.wasm", &guest("imports_unknown"), "", &["acme", "teleport", "rebuild"]);
}

#[test]
fn a_manifest_of_a_newer_contract() {
    refused("newer_abi.wasm", &guest("newer_abi"), "", &["0.9.0", "newer host"]);
}

#[test]
fn a_truncated_file() {
    let whole = guest("heartbeat");
    refused("short.wasm", &whole[..whole.len() / 2], "", &["truncated", "again"]);
    refused("head.wasm", &whole[..6], "", &["not WebAssembly"]);
}

#[test]
fn a_library_without_anything_to_call() {
    refused("reactor.wasm", &guest("reactor"), "", &["_start", "_initialize"]);
}

#[test]
fn a_gibibyte_of_memory_in_a_limit_of_64_mib() {
    let said = ["1024 MiB", "64 MiB", "raise limits.memory"];
    refused("needs_1gib.wasm", &guest("needs_1gib"), ", limits: { memory: 64Mi }", &said);
}

#[test]
fn a_folder_a_pipe_and_a_file_that_is_not_there() {
    let scene = Scene::new();
    fs::create_dir(scene.plugins().join("folder.wasm")).unwrap();
    let pipe = scene.plugins().join("pipe.wasm");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let host = scene.run(
        "plugins:\n  a: { source: file:folder.wasm }\n  b: { source: file:pipe.wasm }\n  c: { source: file:none.wasm }\n",
    );
    for (name, said) in [("a", "is a folder"), ("b", "not a plain file"), ("c", "No such file")] {
        let plugin = host.wait_for(name, |plugin| plugin["state"] == "Refused");
        assert!(plugin["description"].as_str().unwrap().contains(said), "{plugin}");
    }
    host.wait_until_ready();
}

#[test]
fn an_unknown_key_in_an_entry_stops_that_entry_only() {
    let scene = Scene::new().guest("succeeds");
    let host = scene.run("plugins:\n  good: { source: file:succeeds.wasm, every: 1s }\n  bad: { source: file:succeeds.wasm, evry: 1s }\n");
    host.wait_for_run("good");
    let bad = host.plugin("bad");
    let description = bad["description"].as_str().unwrap();
    assert!(bad["state"] == "Refused" && description.contains("`evry`") && description.contains("`every`"), "{bad}");
}

/// Runs the host with a configuration that it must not start with.
fn exits_with_2(yaml: &str, said: &[&str]) {
    let scene = Scene::new();
    scene.configure(yaml);
    let output = scene.windlass(&["run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(!text.contains("health port listening"), "before any port is opened: {text}");
    for part in said {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn an_unknown_key_at_the_top() {
    exits_with_2("pluginDir: x\n", &["windlass.yaml", "line", "`pluginDir`", "`pluginsDir`"]);
}

#[test]
fn two_plugins_of_one_name() {
    exits_with_2("plugins:\n  a: {}\n  a: {}\n", &["windlass.yaml", "`a`", "second time"]);
    let scene = Scene::new().file("One.wasm", &guest("succeeds")).file("one.wasm", &guest("succeeds"));
    let folder = scene.plugins().display().to_string();
    let config = scene.path().join("health.yaml");
    fs::write(&config, "health: { listen: \"127.0.0.1:0\" }\ndiscover: true\n").unwrap();
    let arguments = ["run".to_owned(), folder, "--config".to_owned(), config.display().to_string()];
    let host = windlass_tests::Host::start(scene, &arguments);
    host.wait_until_ready();
    let entry = host.json("/health")["entries"]["windlass"].clone();
    let description = entry["description"].as_str().unwrap();
    assert!(
        entry["status"] == "Degraded" && description.contains("One.wasm") && description.contains("one.wasm"),
        "{entry}"
    );
}

#[test]
fn a_taken_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    exits_with_2(&format!("health: {{ listen: \"{address}\" }}\n"), &[&address.to_string(), "another process"]);
}

#[test]
fn a_folder_that_cannot_be_read() {
    let scene = Scene::new();
    let output = scene.windlass(&["run", "nowhere"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("nowhere") && text.contains("cannot be read"), "{text}");
    let output = scene.windlass(&["run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("windlass run DIR"), "{text}");
    // With a configuration, a mount that is late is a fault to be shown, not a reason not to start.
    let host = Scene::new().run("plugins: {}\n");
    host.wait_until_ready();
    let scene = Scene::new();
    let config = scene.path().join("windlass.yaml");
    fs::write(&config, "pluginsDir: elsewhere\nhealth: { listen: \"127.0.0.1:0\" }\n").unwrap();
    let host = windlass_tests::Host::start(scene, &["run".to_owned()]);
    host.wait_until_ready();
    let entry = host.json("/health")["entries"]["windlass"].clone();
    assert!(entry["status"] == "Degraded" && entry["description"].as_str().unwrap().contains("elsewhere"), "{entry}");
}

#[test]
fn more_runs_than_the_machine_allows() {
    exits_with_2("limits: { maxConcurrentRuns: 99999 }\n", &["vm.max_map_count"]);
}

#[test]
fn a_data_folder_that_another_host_holds() {
    let data = tempfile::tempdir().unwrap();
    let yaml = format!("dataDir: {}\n", data.path().display());
    let host = Scene::new().run(&yaml);
    host.wait_until_ready();
    let scene = Scene::new();
    scene.configure(&yaml);
    let output = scene.windlass(&["run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("held by another windlass"), "{text}");
}

#[test]
fn a_log_filter_that_is_none() {
    let scene = Scene::new();
    scene.configure("plugins: {}\n");
    let output = std::process::Command::new(windlass_tests::binary())
        .arg("run")
        .current_dir(scene.path())
        .env("WINDLASS_LOG", "windlass=loud")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("WINDLASS_LOG"), "{text}");
}
