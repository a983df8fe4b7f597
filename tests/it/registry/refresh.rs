//! Tags that move while a host runs: swapped in within `refreshSeconds`, and a registry that is away for a while changes nothing.

use std::fs;

use serde_json::Value;
use windlass_tests::{Host, Scene, guest, marked};

use super::good;
use super::real::Registry;

/// Pushes a job's bytes as another artifact.
fn push(scene: &Scene, number: u32, reference: &str) {
    fs::write(scene.path().join("push.wasm"), marked(guest("succeeds"), number)).unwrap();
    good(&scene.windlass(&["push", "push.wasm", reference]));
}

fn runs_on(host: &Host, version: u64) -> Value {
    host.wait_for("job", |plugin| plugin["lastRuns"][0]["version"] == version)
}

/// Waits until the host's own entry is as wanted.
fn entry_is(host: &Host, status: &str) -> String {
    host.wait_for("job", |_| host.json("/health")["entries"]["windlass"]["status"] == status);
    host.json("/health")["entries"]["windlass"]["description"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_tag_that_moves_is_swapped_in_while_the_host_runs() {
    let Some(registry) = Registry::start() else { return };
    let scene = Scene::new();
    let reference = registry.at("job:1");
    push(&scene, 1, &reference);
    let yaml = format!("plugins:\n  job: {{ source: \"{reference}\", refreshSeconds: 1, every: 50ms }}\n");
    let host = Scene::new().run(&yaml);
    runs_on(&host, 1);
    push(&scene, 2, &reference);
    runs_on(&host, 2);

    let address = registry.address.clone();
    let stored = registry.stop();
    let said = entry_is(&host, "Degraded");
    assert!(said.contains(&format!("registry {address} cannot be reached")), "{said}");
    let plugin = host.plugin("job");
    assert_eq!((&plugin["status"], &plugin["version"]["number"]), (&"Healthy".into(), &2.into()), "{plugin:#}");
    let registry = Registry::start_with(stored, &address, "", "").unwrap();
    entry_is(&host, "Healthy");
    // It was asked again, and nothing came of it.
    let plugin = host.plugin("job");
    assert_eq!(plugin["versions"].as_array().unwrap().len(), 2, "{plugin:#}");
    assert_eq!(plugin["version"]["number"], 2);
    push(&scene, 3, &reference);
    runs_on(&host, 3);
    // The way back is a version that is known.
    push(&scene, 2, &reference);
    runs_on(&host, 2);
    drop(registry);
}

#[test]
fn what_was_refused_at_start_is_asked_for_again() {
    let Some(registry) = Registry::start() else { return };
    let scene = Scene::new();
    let reference = registry.at("job:1");
    push(&scene, 1, &reference);
    let address = registry.address.clone();
    let stored = registry.stop();
    let yaml = format!("plugins:\n  job: {{ source: \"{reference}\", refreshSeconds: 1, every: 50ms }}\n");
    let host = Scene::new().run(&yaml);
    host.wait_for("job", |plugin| plugin["state"] == "Refused");
    let registry = Registry::start_with(stored, &address, "", "").unwrap();
    runs_on(&host, 1);
    entry_is(&host, "Healthy");
    // An entry that names another source is not told of this one's troubles any more.
    registry.stop();
    entry_is(&host, "Degraded");
    fs::write(host.scene().plugins().join("job.wasm"), marked(guest("succeeds"), 2)).unwrap();
    let config = host.scene().path().join("windlass.yaml");
    let text = fs::read_to_string(&config).unwrap().replace(&reference, "file:job.wasm");
    fs::write(&config, text).unwrap();
    host.signal("HUP");
    runs_on(&host, 2);
    entry_is(&host, "Healthy");
}

/// The names of a host's threads that are for registries.
fn registry_threads(host: &Host) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap().flatten();
    let names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    let is_one = |name: &String| name == "registry" || name.starts_with("fetcher-");
    let mut names: Vec<_> = names.map(|name| name.trim().to_owned()).filter(is_one).collect();
    names.sort();
    names
}

#[test]
fn who_needs_no_registry_has_no_thread_for_one() {
    let Some(registry) = Registry::start() else { return };
    let scene = Scene::new().guest("heartbeat");
    let reference = registry.at("job:1");
    push(&scene, 1, &reference);
    let host = scene.run("plugins:\n  job: { source: file:heartbeat.wasm, every: 50ms }\n");
    runs_on(&host, 1);
    assert!(registry_threads(&host).is_empty(), "{:?}", registry_threads(&host));
    let config = host.scene().path().join("windlass.yaml");
    let text = fs::read_to_string(&config).unwrap().replace("file:heartbeat.wasm", &format!("\"{reference}\""));
    fs::write(&config, text).unwrap();
    host.signal("HUP");
    runs_on(&host, 2);
    assert_eq!(registry_threads(&host), ["fetcher-0", "fetcher-1", "fetcher-2", "fetcher-3", "registry"]);
}
