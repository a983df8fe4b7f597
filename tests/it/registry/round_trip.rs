//! A real registry: what is pushed comes back, tags move, digests do not, and a host starts without it.

use serde_json::json;
use windlass_tests::{Scene, guest};

use super::real::Registry;
use super::{digest, good, not_pulled};
use crate::docs::{block, shell};

#[test]
fn what_is_pushed_comes_back() {
    let Some(registry) = Registry::start() else { return };
    let scene = Scene::new().guest("succeeds").guest("heartbeat");
    let reference = registry.at("team/job:1");
    let said = good(&scene.windlass(&["push", "plugins/heartbeat.wasm", &reference]));
    let by_digest = said.trim().to_owned();
    assert!(by_digest.starts_with(&registry.at("team/job@sha256:")), "{said}");
    let again = good(&scene.windlass(&["push", "plugins/heartbeat.wasm", &reference]));
    assert_eq!(again.trim(), by_digest, "the same file gives the same digest");

    let manifest = registry.stored("team/job", "1");
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    let layer = digest(&guest("heartbeat"));
    assert_eq!(manifest["layers"][0]["digest"], layer.as_str());
    let config: serde_json::Value =
        serde_json::from_str(&registry.text("team/job", manifest["config"]["digest"].as_str().unwrap())).unwrap();
    assert_eq!((config["architecture"].as_str(), config["os"].as_str()), (Some("wasm"), Some("wasip2")));
    assert_eq!(config["layerDigests"], json!([layer]));
    let exports = config["component"]["exports"].to_string();
    assert!(exports.contains("windlass:job/job"), "{exports}");

    for wanted in [&reference, &by_digest] {
        let said = good(&scene.windlass(&["pull", wanted, "-o", "out.wasm"]));
        assert!(said.contains("out.wasm") && said.contains(&by_digest), "{said}");
        assert_eq!(std::fs::read(scene.path().join("out.wasm")).unwrap(), guest("heartbeat"));
    }
    let said = good(&scene.windlass(&["inspect", &reference]));
    assert!(said.contains(&by_digest) && said.contains(&layer) && said.contains("windlass job"), "{said}");

    // The tag moves; the digest stays.
    good(&scene.windlass(&["push", "plugins/succeeds.wasm", &reference]));
    assert_eq!(registry.stored("team/job", "1")["layers"][0]["digest"], digest(&guest("succeeds")).as_str());
    good(&scene.windlass(&["pull", &reference]));
    assert_eq!(std::fs::read(scene.path().join("job.wasm")).unwrap(), guest("succeeds"));
    good(&scene.windlass(&["pull", &by_digest]));
    assert_eq!(std::fs::read(scene.path().join("job.wasm")).unwrap(), guest("heartbeat"));
    not_pulled(&registry.at("team/job:2"), 10, &["404", "no 2 in team/job"]);
    not_pulled(&registry.at(&format!("team/job@{}", digest(b"none"))), 10, &["404"]);
}

#[test]
fn the_commands_of_the_documentation_work() {
    let Some(registry) = Registry::start() else { return };
    let scene = Scene::new();
    std::fs::write(scene.path().join("job.wasm"), guest("heartbeat")).unwrap();
    let script = block("docs/registry.md", "push and pull").replace("localhost:5000", &registry.address);
    let said = shell(&scene, &script, "target");
    assert!(said.contains("@sha256:") && said.contains("windlass job") && said.contains("report.wasm"), "{said}");
}

#[test]
fn bad_words_exit_with_2_before_anything_is_sent() {
    let scene = Scene::new().guest("succeeds").file("text.wasm", b"hello");
    let digest = format!("oci://127.0.0.1:1/a@{}", digest(b""));
    for (arguments, said) in [
        (["pull", "127.0.0.1:1/a:1", "-o", "x"], "begin with oci://"),
        (["inspect", "oci://127.0.0.1:1/a", "--", ""], "unexpected"),
        (["push", "plugins/text.wasm", "oci://127.0.0.1:1/a:1", "--"], "not WebAssembly"),
        (["push", "plugins/succeeds.wasm", &digest, "--"], "push to a tag"),
        (["pull", "oci://127.0.0.1:1/a:1", "--verify-key", "none.pub"], "none.pub"),
    ] {
        let output = scene.windlass(&arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(said), "{arguments:?}: {text}");
    }
}

#[test]
fn what_oras_pushes_is_taken() {
    let Some(registry) = Registry::start() else { return };
    let wasm = guest("succeeds");
    // As `oras push HOST/jobs/oras:1 succeeds.wasm` writes it: an empty config, the file's name as title.
    let mut config = registry.blob("jobs/oras", b"{}");
    config["mediaType"] = json!("application/vnd.oci.empty.v1+json");
    config["data"] = json!("e30=");
    let mut layer = registry.blob("jobs/oras", &wasm);
    layer["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
    layer["annotations"] = json!({ "org.opencontainers.image.title": "succeeds.wasm" });
    registry.manifest(
        "jobs/oras",
        "1",
        &json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.unknown.artifact.v1",
            "config": config,
            "layers": [layer],
            "annotations": { "org.opencontainers.image.created": "2026-01-01T00:00:00Z" },
        }),
    );
    let host =
        Scene::new().run(&format!("plugins:\n  job: {{ source: \"{}\", every: 100ms }}\n", registry.at("jobs/oras:1")));
    host.wait_for_run("job");
    let plugin = host.plugin("job");
    assert_eq!(plugin["version"]["digest"], digest(&wasm).as_str(), "{plugin:#}");
}

#[test]
fn a_host_starts_while_its_registry_is_down() {
    let Some(registry) = Registry::start() else { return };
    let scene = Scene::new().guest("succeeds");
    let tag = registry.at("job:1");
    let by_digest = good(&scene.windlass(&["push", "plugins/succeeds.wasm", &tag])).trim().to_owned();
    let data = tempfile::tempdir().unwrap();
    let yaml = format!(
        "dataDir: {}\nplugins:\n  moves: {{ source: \"{tag}\", every: 100ms }}\n  fixed: {{ source: \"{by_digest}\", every: 100ms }}\n",
        data.path().display()
    );
    let mut host = Scene::new().run(&yaml);
    host.wait_for_run("moves");
    host.wait_for_run("fixed");
    host.wait_for_line(|line| line["message"].as_str().is_some_and(|text| text.contains("no signature is asked for")));
    assert_eq!(host.json("/health")["entries"]["windlass"]["status"], "Healthy");
    assert_eq!(host.stop(), 0);
    let address = registry.address.clone();
    let stored = registry.stop();

    let mut host = Scene::new().run(&yaml);
    host.wait_for_run("moves");
    host.wait_for_run("fixed");
    assert_eq!(host.plugin("moves")["status"], "Healthy");
    let entry = host.json("/health")["entries"]["windlass"].clone();
    let description = entry["description"].as_str().unwrap();
    assert!(description.contains(&format!("registry {address} cannot be reached")), "{entry}");
    assert!(description.contains("since 20") && description.contains("what was kept of it is used"), "{entry}");
    assert!(!description.contains(&by_digest), "a digest on disk needs no registry: {entry}");
    assert_eq!((entry["status"].as_str(), host.get("/health/live").0), (Some("Degraded"), 200));
    assert_eq!(host.stop(), 0);

    // Kept for this user alone; what was changed on disk is not run but fetched again.
    for file in std::fs::read_dir(data.path().join("artifacts/blobs")).unwrap() {
        let path = file.unwrap().path();
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(path, guest("traps")).unwrap();
    }
    let host = Scene::new().run(&yaml);
    let refused = host.wait_for("fixed", |plugin| plugin["state"] == "Refused");
    assert!(refused["description"].as_str().unwrap().contains("cannot be reached"), "{refused}");
    drop(host);
    let registry = Registry::start_with(stored, &address, "", "").unwrap();
    let host = Scene::new().run(&yaml);
    host.wait_for_run("fixed");
    drop(registry);
}
