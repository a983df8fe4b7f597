//! Versions that were chosen run again after a restart with their signatures checked, and with the registry down.

use std::fs;
use std::path::Path;

use serde_json::Value;
use windlass_tests::{Host, Scene, guest, marked};

use super::real::Registry;
use super::signed::{cosign_2, key, sign};
use super::{digest, good};

fn again(scene: &Scene) -> Host {
    let config = scene.path().join("windlass.yaml").display().to_string();
    Host::start(Scene::new(), &["run".to_owned(), "--config".to_owned(), config])
}

fn runs_on(host: &Host, version: u64) -> Value {
    host.wait_for("job", |plugin| plugin["lastRuns"][0]["version"] == version)
}

/// Back to version 1 by hand, and a kill the moment that this is answered.
fn roll_back_and_kill(host: &mut Host) {
    let admin = host.admin();
    good(&host.scene().windlass(&["rollback", "job", "--admin", &admin]));
    host.signal("KILL");
    host.wait_for_end();
}

/// The next host runs these bytes as version 1, because a person said so.
fn runs_again(host: &Host, bytes: &[u8]) {
    let plugin = host.wait_for("job", |plugin| plugin["lastRuns"][0].is_object());
    assert_eq!((&plugin["version"]["digest"], &plugin["version"]["number"]), (&digest(bytes).into(), &1.into()));
    assert!(plugin["description"].as_str().unwrap().contains("by hand"), "{plugin:#}");
}

#[test]
fn from_a_registry_that_is_down() {
    let Some(registry) = Registry::start() else { return };
    let scene = Scene::new();
    key(scene.path(), "ours");
    let (reference, folder) = (registry.at("job:1"), scene.path().to_owned());
    let bytes = [1, 2].map(|number| marked(guest("succeeds"), number));
    let push = |scene: &Scene, bytes: &[u8]| {
        fs::write(scene.path().join("push.wasm"), bytes).unwrap();
        let said = good(&scene.windlass(&["push", "push.wasm", &reference]));
        cosign_2(&registry, "job", &folder, "ours", said.trim().split_once('@').unwrap().1);
    };
    push(&scene, &bytes[0]);
    let data = scene.path().join("data");
    let yaml = format!(
        "dataDir: {}\nverify: {{ keys: [ours.pub] }}\nplugins:\n  job: {{ source: \"{reference}\", refreshSeconds: 1, every: 50ms }}\n",
        data.display()
    );
    let mut host = scene.run(&yaml);
    runs_on(&host, 1);
    push(host.scene(), &bytes[1]);
    runs_on(&host, 2);
    roll_back_and_kill(&mut host);
    drop(registry.stop());
    runs_again(&again(host.scene()), &bytes[0]);
}

#[test]
fn from_a_file_that_is_another_one_by_now() {
    let scene = Scene::new();
    let (folder, file) = (scene.path().to_owned(), scene.plugins().join("job.wasm"));
    key(&folder, "ours");
    let bytes = [1, 2].map(|number| marked(guest("succeeds"), number));
    let put = |bytes: &[u8]| {
        fs::write(file.with_extension("wasm.sig"), sign(&folder, "ours", bytes)).unwrap();
        fs::write(file.with_extension("new"), bytes).unwrap();
        fs::rename(file.with_extension("new"), &file).unwrap();
    };
    put(&bytes[0]);
    let data = folder.join("data");
    let yaml = format!(
        "dataDir: {}\nverify: {{ keys: [ours.pub] }}\nplugins:\n  job: {{ source: file:job.wasm, every: 50ms }}\n",
        data.display()
    );
    let mut host = scene.run(&yaml);
    runs_on(&host, 1);
    put(&bytes[1]);
    runs_on(&host, 2);
    roll_back_and_kill(&mut host);
    runs_again(&again(host.scene()), &bytes[0]);
    // Without the signature that was kept with it, the copy is not run.
    fs::remove_file(signature(&data, &bytes[0])).unwrap();
    let mut host = again(host.scene());
    let plugin = host.wait_for("job", |plugin| plugin["lastRuns"][0].is_object());
    assert_eq!(plugin["version"]["digest"], digest(&bytes[1]), "{plugin:#}");
    host.wait_for_line(|line| {
        line["level"] == "WARN" && line["why"].as_str().is_some_and(|why| why.contains("verify.keys"))
    });
}

fn signature(data: &Path, bytes: &[u8]) -> std::path::PathBuf {
    data.join("artifacts/blobs").join(digest(bytes).split_off("sha256:".len()) + ".sig")
}
