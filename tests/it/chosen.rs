//! Versions that were chosen, by hand or by a rollback, over restarts of the host.

use std::fs;
use std::path::Path;

use serde_json::Value;
use windlass_tests::{Host, Scene, guest, marked};

const PLUGINS: &str = "plugins:\n  p: { source: file:p.wasm, every: 100ms, backoffLimit: 0 }\n";

fn variant(number: u32) -> Vec<u8> {
    marked(guest("succeeds"), number)
}

/// A host whose `dataDir` is in its scene, wherever the next one is started.
fn run(scene: Scene) -> Host {
    let yaml = format!("dataDir: {}\n{PLUGINS}", scene.path().join("data").display());
    scene.run(&yaml)
}

fn put(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("tmp");
    fs::write(&beside, bytes).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// Another host on the same files.
fn again(scene: &Scene) -> Host {
    let config = scene.path().join("windlass.yaml").display().to_string();
    // Its files are the first one's, so this one has a folder of its own that nothing is in.
    Host::start(Scene::new(), &["run".to_owned(), "--config".to_owned(), config])
}

fn number(plugin: &Value) -> u64 {
    plugin["version"]["number"].as_u64().unwrap_or(0)
}

fn digest(plugin: &Value) -> String {
    plugin["version"]["digest"].as_str().unwrap_or_default().to_owned()
}

fn says(plugin: &Value, words: &str) -> bool {
    plugin["description"].as_str().is_some_and(|text| text.contains(words))
}

fn by_hand(host: &mut Host, verb: &str) -> String {
    let admin = host.admin();
    let output = host.scene().windlass(&[verb, "p", "--admin", &admin]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A host that ran version 1, then 2, and was brought back to 1 by hand; killed the moment that was answered.
fn rolled_back_by_hand() -> Host {
    let scene = Scene::new().file("p.wasm", &variant(1));
    let file = scene.plugins().join("p.wasm");
    let mut host = run(scene);
    host.wait_for("p", |plugin| plugin["lastRuns"][0]["version"] == 1);
    put(&file, &variant(2));
    host.wait_for("p", |plugin| plugin["lastRuns"][0]["version"] == 2);
    assert!(by_hand(&mut host, "rollback").contains("version 1 took over"));
    host.signal("KILL");
    host.wait_for_end();
    host
}

#[test]
fn a_rollback_by_hand_outlives_a_kill_until_the_file_is_another_one() {
    let first = rolled_back_by_hand();
    let old = digest_of(&variant(1));
    for _ in 0..2 {
        let host = again(first.scene());
        let plugin = host.wait_for("p", |plugin| plugin["lastRuns"][0].is_object());
        assert_eq!((number(&plugin), digest(&plugin)), (1, old.clone()), "{plugin:#}");
        assert!(says(&plugin, "by hand") && plugin["status"] == "Degraded", "{plugin:#}");
        assert!(plugin["lastRuns"].as_array().unwrap().iter().all(|run| run["version"] == 1), "{plugin:#}");
    }
    // Another file while no host runs is a newer decision.
    put(&first.scene().plugins().join("p.wasm"), &variant(3));
    let host = again(first.scene());
    let plugin = host.wait_for("p", |plugin| plugin["lastRuns"][0].is_object());
    assert_eq!((digest(&plugin), &plugin["status"]), (digest_of(&variant(3)), &"Healthy".into()));
    drop(host);
    // And it is forgotten for good: what was decided against runs if the file holds it again.
    put(&first.scene().plugins().join("p.wasm"), &variant(2));
    let plugin = again(first.scene()).wait_for("p", |plugin| plugin["lastRuns"][0].is_object());
    assert_eq!(digest(&plugin), digest_of(&variant(2)));
}

#[test]
fn a_swap_by_hand_and_a_file_that_is_put_back_end_it() {
    let first = rolled_back_by_hand();
    let file = first.scene().plugins().join("p.wasm");
    // Back at what runs, as by `helm rollback`: nothing is wrong any more, and the one that was left is not tried by itself.
    put(&file, &variant(1));
    let mut host = again(first.scene());
    let plugin = host.wait_for("p", |plugin| plugin["lastRuns"][0].is_object());
    assert_eq!((number(&plugin), &plugin["status"]), (1, &"Healthy".into()), "{plugin:#}");
    put(&file, &variant(2));
    host.wait_for("p", |plugin| says(plugin, "by hand") && number(plugin) == 1);
    by_hand(&mut host, "swap");
    host.wait_for("p", |plugin| plugin["lastRuns"][0]["version"] == 2);
    host.signal("KILL");
    host.wait_for_end();
    let plugin = again(first.scene()).wait_for("p", |plugin| plugin["lastRuns"][0].is_object());
    assert_eq!(digest(&plugin), digest_of(&variant(2)), "{plugin:#}");
}

#[test]
fn a_version_that_broke_is_not_tried_again_by_the_next_host() {
    let scene = Scene::new().file("p.wasm", &variant(1));
    let file = scene.plugins().join("p.wasm");
    let mut host = run(scene);
    host.wait_for("p", |plugin| plugin["lastRuns"][0].is_object());
    put(&file, &guest("traps"));
    host.wait_for("p", |plugin| says(plugin, "rolled back to version 1"));
    assert_eq!(host.stop(), 0);
    let plugin = again(host.scene()).wait_for("p", |plugin| plugin["lastRuns"][0].is_object());
    assert!(number(&plugin) == 1 && says(&plugin, "Trapped"), "{plugin:#}");
    assert!(plugin["totals"]["runs"].as_object().unwrap().keys().eq(["Succeeded"]), "{plugin:#}");
}

#[test]
fn a_memory_that_is_damaged_or_without_its_bytes_is_one_warning_and_the_source_decides() {
    let cut = |data: &Path| {
        let file = data.join("chosen.json");
        let text = fs::read(&file).unwrap();
        fs::write(&file, &text[..text.len() / 2]).unwrap();
    };
    let blob = |data: &Path| data.join("artifacts/blobs").join(digest_of(&variant(1)).split_off("sha256:".len()));
    let damaged = |data: &Path| fs::write(blob(data), "other").unwrap();
    let gone = |data: &Path| fs::remove_file(blob(data)).unwrap();
    type Spoil<'a> = (&'a dyn Fn(&Path), &'a str);
    for (spoil, warning) in
        [(&cut as &dyn Fn(&Path), "cannot be read"), (&damaged, "damaged"), (&gone, "not kept any more")]
            as [Spoil<'_>; 3]
    {
        let first = rolled_back_by_hand();
        spoil(&first.scene().path().join("data"));
        let mut host = again(first.scene());
        let plugin = host.wait_for("p", |plugin| plugin["lastRuns"][0].is_object());
        assert_eq!((digest(&plugin), &plugin["status"]), (digest_of(&variant(2)), &"Healthy".into()), "{warning}");
        let warned = |line: &&Value| line["level"] == "WARN" && line.to_string().contains(warning);
        assert_eq!(host.lines().iter().filter(warned).count(), 1, "{warning}: {:#?}", host.lines());
    }
}

fn digest_of(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    windlass_core::name::Digest(sha2::Sha256::digest(bytes).into()).to_string()
}
