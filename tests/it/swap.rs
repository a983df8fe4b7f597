//! Swaps on a running host: files that come, change, break and go, and configuration that is read again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use windlass_tests::{Host, Scene, guest, marked};

/// A guest's bytes as another artifact.
fn variant(name: &str, number: u8) -> Vec<u8> {
    marked(guest(name), u32::from(number))
}

/// Puts a file where it is to be, as it should be done: written beside, and renamed.
fn put(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("tmp");
    fs::write(&beside, bytes).unwrap();
    fs::rename(&beside, path).unwrap();
}

fn start(scene: Scene, yaml: &str, more: &[&str]) -> Host {
    let config = scene.configure(yaml);
    let mut arguments = vec!["run".to_owned(), "--config".to_owned(), config.display().to_string()];
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    Host::start(scene, &arguments)
}

fn number(plugin: &Value) -> u64 {
    plugin["version"]["number"].as_u64().unwrap_or(0)
}

fn says(plugin: &Value, words: &str) -> bool {
    plugin["description"].as_str().is_some_and(|text| text.contains(words))
}

fn stages(plugin: &Value, number: u64) -> Vec<String> {
    let versions = plugin["versions"].as_array().unwrap();
    let version = versions.iter().find(|version| version["number"] == number).unwrap();
    version["history"].as_array().unwrap().iter().map(|step| step["stage"].as_str().unwrap().to_owned()).collect()
}

fn runs_on(host: &Host, name: &str, version: u64) -> Value {
    host.wait_for(name, |plugin| plugin["lastRuns"][0]["version"] == version)
}

/// Swaps a file twice on a file system, with events and without.
fn swaps_in(folder: PathBuf, more: &[&str]) {
    let plugins = folder.join("plugins");
    fs::create_dir(&plugins).unwrap();
    let file = plugins.join("p.wasm");
    put(&file, &variant("succeeds", 1));
    let yaml = format!("pluginsDir: {}\nplugins:\n  p: {{ source: file:p.wasm, every: 50ms }}\n", plugins.display());
    let scene = Scene::new();
    let config = scene.path().join("windlass.yaml");
    fs::write(&config, format!("health: {{ listen: \"127.0.0.1:0\" }}\n{yaml}")).unwrap();
    let mut arguments = vec!["run".to_owned(), "--config".to_owned(), config.display().to_string()];
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    let host = Host::start(scene, &arguments);
    runs_on(&host, "p", 1);
    put(&file, &variant("succeeds", 2));
    runs_on(&host, "p", 2);
    // Written in place, slowly: not taken before it is whole.
    let bytes = variant("succeeds", 3);
    {
        use std::io::Write as _;
        let mut writer = fs::File::create(&file).unwrap();
        for byte in bytes.chunks(bytes.len() / 3) {
            writer.write_all(byte).unwrap();
            writer.flush().unwrap();
            std::thread::sleep(Duration::from_millis(60));
        }
    }
    let plugin = runs_on(&host, "p", 3);
    assert!(plugin["versions"].as_array().unwrap().len() <= 4, "{plugin:#}");
    assert_eq!(plugin["failuresInRow"], 0);
}

#[test]
fn files_are_swapped_on_tmpfs_and_on_disk_with_events_and_without() {
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    swaps_in(disk.path().to_owned(), &[]);
    let shared_memory = Path::new("/dev/shm");
    let tmpfs = if shared_memory.is_dir() { tempfile::tempdir_in(shared_memory) } else { tempfile::tempdir() }.unwrap();
    swaps_in(tmpfs.path().to_owned(), &["--no-events", "--poll-seconds", "0.3"]);
}

#[test]
fn symlinks_are_swapped_as_the_kubelet_does_it() {
    let scene = Scene::new();
    let folder = scene.plugins();
    let publish = |name: &str, bytes: &[u8]| {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("p.wasm"), bytes).unwrap();
        symlink(name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    publish("..2026_01_01", &variant("succeeds", 1));
    symlink("..data/p.wasm", folder.join("p.wasm")).unwrap();
    let host = start(scene, "plugins:\n  p: { source: file:p.wasm, every: 50ms }\n", &["--poll-seconds", "60"]);
    runs_on(&host, "p", 1);
    publish("..2026_01_02", &variant("succeeds", 2));
    fs::remove_dir_all(folder.join("..2026_01_01")).unwrap();
    runs_on(&host, "p", 2);
}

#[test]
fn a_version_that_breaks_is_rolled_back_and_health_says_why() {
    let host = start(
        Scene::new().file("p.wasm", &variant("succeeds", 1)),
        "plugins:\n  p: { source: file:p.wasm, every: 100ms, backoffLimit: 0 }\n",
        &[],
    );
    runs_on(&host, "p", 1);
    put(&host.scene().plugins().join("p.wasm"), &guest("traps"));
    let plugin = host.wait_for("p", |plugin| says(plugin, "rolled back to version 1"));
    assert_eq!((number(&plugin), &plugin["status"]), (1, &Value::from("Degraded")), "{plugin:#}");
    assert!(says(&plugin, "Trapped"), "{plugin:#}");
    let life = stages(&plugin, 2);
    assert!(life.starts_with(&["Seen", "Verified", "Compiled", "Live"].map(str::to_owned)), "{life:?}");
    assert!(life.contains(&"RolledBack".to_owned()), "{life:?}");
    runs_on(&host, "p", 1);
    assert_eq!(host.get("/health").0, 200, "one that was rolled back is no reason to restart anything");
    // Only another file is tried again.
    put(&host.scene().plugins().join("p.wasm"), &variant("succeeds", 3));
    runs_on(&host, "p", 3);
    host.wait_for("p", |plugin| plugin["status"] == "Healthy");
}

#[test]
fn one_that_passes_its_check_and_then_loops_is_rolled_back() {
    let host = start(
        Scene::new().file("p.wasm", &variant("succeeds", 1)),
        "plugins:\n  p: { source: file:p.wasm, every: 100ms, backoffLimit: 0, limits: { cpuSeconds: 0.3 } }\n",
        &[],
    );
    runs_on(&host, "p", 1);
    put(&host.scene().plugins().join("p.wasm"), &guest("spins"));
    let plugin = host.wait_for("p", |plugin| says(plugin, "rolled back to version 1"));
    assert!(says(&plugin, "OutOfCpu"), "{plugin:#}");
}

#[test]
fn a_trial_run_that_fails_leaves_the_old_version() {
    let host = start(
        Scene::new().file("p.wasm", &variant("succeeds", 1)),
        "plugins:\n  p: { source: file:p.wasm, every: 100ms, backoffLimit: 0, trial: OneRun }\n",
        &[],
    );
    runs_on(&host, "p", 1);
    put(&host.scene().plugins().join("p.wasm"), &guest("exits_with_3"));
    let plugin = host.wait_for("p", |plugin| says(plugin, "its trial run ended"));
    assert_eq!((number(&plugin), &plugin["failuresInRow"]), (1, &Value::from(0)));
    put(&host.scene().plugins().join("p.wasm"), &variant("succeeds", 2));
    let plugin = runs_on(&host, "p", 3);
    assert!(stages(&plugin, 3).contains(&"Trying".to_owned()));
}

#[test]
fn what_is_no_good_leaves_the_old_version_and_health_says_why() {
    let scene = Scene::new().file("p.wasm", &variant("succeeds", 1));
    let file = scene.plugins().join("p.wasm");
    let host = start(scene, "plugins:\n  p: { source: file:p.wasm, every: 100ms }\n", &["--poll-seconds", "0.2"]);
    runs_on(&host, "p", 1);
    let goes_on = |words: &str| {
        let plugin = host.wait_for("p", |plugin| says(plugin, words));
        assert!(number(&plugin) == 1 && plugin["status"] == "Degraded", "{plugin:#}");
        let before = plugin["totals"]["runs"]["Succeeded"].as_u64();
        host.wait_for("p", |plugin| plugin["totals"]["runs"]["Succeeded"].as_u64() > before);
    };
    put(&file, b"not wasm at all");
    goes_on("is not WebAssembly");
    let whole = guest("heartbeat");
    put(&file, &whole[..whole.len() / 2]);
    goes_on("truncated");
    // 2 GiB, most of it a hole.
    let large = file.with_extension("large");
    fs::File::create(&large).unwrap().set_len(2 << 30).unwrap();
    fs::rename(&large, &file).unwrap();
    goes_on("has 2048 MiB");
    fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    goes_on("not a plain file");
    fs::remove_file(&file).unwrap();
    symlink("p.wasm", &file).unwrap();
    goes_on("ymbolic link");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    goes_on("is a folder");
    fs::remove_dir(&file).unwrap();
    put(&file, &variant("succeeds", 1));
    let plugin = host.wait_for("p", |plugin| plugin["status"] == "Healthy");
    assert_eq!(number(&plugin), 1, "the same bytes are the same version");
}

#[test]
fn a_file_that_may_not_be_read() {
    let scene = Scene::new().file("p.wasm", &variant("succeeds", 1));
    let file = scene.plugins().join("p.wasm");
    let host = start(scene, "plugins:\n  p: { source: file:p.wasm, every: 100ms }\n", &[]);
    runs_on(&host, "p", 1);
    let beside = file.with_extension("tmp");
    fs::write(&beside, variant("succeeds", 2)).unwrap();
    fs::set_permissions(&beside, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let may_read_all = fs::File::open(&beside).is_ok();
    fs::rename(&beside, &file).unwrap();
    match may_read_all {
        // To root permissions mean nothing: then it is a swap like any other.
        true => drop(runs_on(&host, "p", 2)),
        false => {
            let plugin = host.wait_for("p", |plugin| says(plugin, "Permission denied"));
            assert_eq!(number(&plugin), 1);
        }
    }
}

#[test]
fn a_thousand_replacements_in_ten_seconds_end_with_the_last() {
    let scene = Scene::new().file("p.wasm", &variant("succeeds", 0));
    let file = scene.plugins().join("p.wasm");
    let host = start(scene, "plugins:\n  p: { source: file:p.wasm, every: 50ms }\n", &[]);
    runs_on(&host, "p", 1);
    let began = Instant::now();
    for round in 0..1_000_u32 {
        put(&file, &variant("succeeds", (round % 251) as u8 + 1));
        let next = began + Duration::from_millis(u64::from(round) * 10);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let last = windlass_core::name::Digest(sha256(&variant("succeeds", (999 % 251) as u8 + 1)));
    let plugin = host.wait_for("p", |plugin| plugin["version"]["digest"] == last.to_string());
    assert!(plugin["versions"].as_array().unwrap().len() <= 10);
    assert!(plugin["totals"]["runs"].as_object().unwrap().keys().eq(["Succeeded"]), "{plugin:#}");
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

#[test]
fn a_file_that_is_gone_removes_its_plugin_and_a_folder_that_is_gone_does_not() {
    let scene = Scene::new().file("a.wasm", &variant("succeeds", 1)).file("b.wasm", &variant("succeeds", 2));
    let folder = scene.plugins();
    let host = start(
        scene,
        "discover: true\ndefaults: { every: 100ms }\nplugins:\n  named: { source: file:b.wasm }\n",
        &["--poll-seconds", "0.2"],
    );
    host.wait_for_run("a");
    host.wait_for_run("named");
    fs::rename(&folder, folder.with_extension("away")).unwrap();
    host.wait_for("a", |_| host_says(&host, "cannot be read"));
    fs::create_dir(&folder).unwrap();
    host.wait_for("a", |_| host_says(&host, "another folder than before"));
    let before = host.plugin("a")["totals"]["runs"]["Succeeded"].as_u64();
    host.wait_for("a", |plugin| plugin["totals"]["runs"]["Succeeded"].as_u64() > before);
    assert_eq!(host.plugin("named")["status"], "Healthy");
    fs::remove_dir(&folder).unwrap();
    fs::rename(folder.with_extension("away"), &folder).unwrap();
    host.wait_for("a", |_| host.json("/health")["entries"]["windlass"]["status"] == "Healthy");

    fs::remove_file(folder.join("a.wasm")).unwrap();
    fs::remove_file(folder.join("b.wasm")).unwrap();
    let named = host.wait_for("named", |plugin| plugin["state"] == "Refused");
    assert!(says(&named, "b.wasm: the file is gone"), "{named:#}");
    wait_until_gone(&host, "a");
    put(&folder.join("b.wasm"), &variant("succeeds", 2));
    host.wait_for("named", |plugin| plugin["state"] == "Active");
}

fn host_says(host: &Host, words: &str) -> bool {
    let entry = host.json("/health")["entries"]["windlass"].clone();
    entry["description"].as_str().is_some_and(|text| text.contains(words))
}

fn wait_until_gone(host: &Host, name: &str) {
    wait_for_code(host, name, 404);
}

fn wait_until_there(host: &Host, name: &str) {
    wait_for_code(host, name, 200);
}

fn wait_for_code(host: &Host, name: &str, code: u16) {
    let until = Instant::now() + windlass_tests::PATIENCE;
    while host.get(&format!("/health/plugins/{name}")).0 != code {
        assert!(Instant::now() < until, "{name} does not answer {code}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn configuration_is_read_again_and_a_bad_one_changes_nothing() {
    let scene = Scene::new().guest("succeeds").guest("sleeps");
    let mut host = start(
        scene,
        "drainSeconds: 1\nplugins:\n  goes: { source: file:sleeps.wasm, continuous: true }\n  stays: { source: file:succeeds.wasm, every: 100ms }\n",
        &[],
    );
    host.wait_for("goes", |plugin| plugin["running"][0]["started"].is_string());
    host.wait_for_run("stays");
    let write = |yaml: &str| {
        let text = format!("pluginsDir: plugins\nhealth: {{ listen: \"127.0.0.1:0\" }}\n{yaml}");
        put(&host.scene().path().join("windlass.yaml"), text.as_bytes());
    };
    write(
        "plugins:\n  stays: { source: file:succeeds.wasm, every: 1h, tags: [new] }\n  comes: { source: file:succeeds.wasm, every: 100ms }\n  bad: { evry: 1s }\n",
    );
    wait_until_there(&host, "comes");
    host.wait_for_run("comes");
    let stays = host.wait_for("stays", |plugin| plugin["trigger"] == "every 1h");
    assert_eq!(number(&stays), 1, "another entry is no other version");
    assert_eq!(host.json("/health")["entries"]["stays"]["tags"][0], "new");
    assert!(says(&host.plugin("bad"), "`evry`"));
    let hash = host.json("/health")["entries"]["windlass"]["data"]["configHash"].clone();
    write("plugins: { stays: [\n");
    host.wait_for("stays", |_| host_says(&host, "windlass.yaml"));
    assert!(host_says(&host, "goes on"));
    assert_eq!(host.json("/health")["entries"]["windlass"]["data"]["configHash"], hash);
    assert_eq!(host.plugin("comes")["status"], "Healthy");
    write("limits: { lanes: 1 }\nplugins:\n  stays: { source: file:succeeds.wasm, every: 100ms, bogus: 1 }\n");
    host.wait_for("stays", |plugin| says(plugin, "`bogus`") && plugin["status"] == "Degraded");
    host.wait_for("stays", |_| host_says(&host, "limits: restart the host"));
    write("plugins:\n  stays: { source: file:succeeds.wasm, every: 100ms }\n");
    host.wait_for("stays", |plugin| plugin["status"] == "Healthy" && plugin["trigger"] == "every 100ms");
    wait_until_gone(&host, "comes");
    host.signal("HUP");
    host.wait_for_line(|line| line["message"] == "the configuration was read again");
    assert_eq!(host.stop(), 0);
}

#[test]
fn further_files_add_plugins_while_the_host_runs() {
    let scene = Scene::new().guest("succeeds");
    let further = scene.path().join("conf.d");
    fs::create_dir(&further).unwrap();
    let host = start(scene, "configDir: conf.d\nplugins:\n  a: { source: file:succeeds.wasm, every: 100ms }\n", &[]);
    host.wait_for_run("a");
    put(&further.join("more.yaml"), b"plugins:\n  b: { source: file:succeeds.wasm, every: 100ms }\n");
    wait_until_there(&host, "b");
    host.wait_for_run("b");
    put(&further.join("two.yaml"), b"plugins:\n  a: { source: file:succeeds.wasm }\n");
    let a = host.wait_for("a", |plugin| says(plugin, "two.yaml"));
    assert!(says(&a, "windlass.yaml") && number(&a) == 1, "{a:#}");
    put(&further.join("two.yaml"), b"defaults: {}\n");
    host.wait_for("a", |_| host_says(&host, "two.yaml"));
    host.wait_for("b", |plugin| plugin["status"] == "Healthy");
}

#[test]
fn an_entry_that_changes_while_its_file_is_no_good_is_the_running_versions() {
    let scene = Scene::new().file("p.wasm", &variant("succeeds", 1));
    let file = scene.plugins().join("p.wasm");
    let host = start(scene, "plugins:\n  p: { source: file:p.wasm, every: 1h }\n", &[]);
    runs_on(&host, "p", 1);
    put(&file, b"not wasm at all");
    host.wait_for("p", |plugin| says(plugin, "is not WebAssembly"));
    let yaml = "pluginsDir: plugins\nhealth: { listen: \"127.0.0.1:0\" }\nadmin: { listen: \"127.0.0.1:0\" }\n\
                plugins:\n  p: { source: file:p.wasm, every: 100ms, tags: [new] }\n";
    put(&host.scene().path().join("windlass.yaml"), yaml.as_bytes());
    let plugin = host.wait_for("p", |plugin| plugin["trigger"] == "every 100ms" && says(plugin, "is not WebAssembly"));
    assert_eq!((number(&plugin), &plugin["status"]), (1, &Value::from("Degraded")), "{plugin:#}");
    let before = plugin["totals"]["runs"]["Succeeded"].as_u64();
    host.wait_for("p", |plugin| plugin["totals"]["runs"]["Succeeded"].as_u64() > before);
    assert_eq!(host.json("/health")["entries"]["p"]["tags"][0], "new");
    // A newer file that is good runs with that entry.
    put(&file, &variant("succeeds", 2));
    let plugin = host.wait_for("p", |plugin| plugin["status"] == "Healthy" && number(plugin) == 2);
    assert_eq!(plugin["trigger"], "every 100ms");
}

#[test]
fn a_file_that_lies_torn_between_two_writes_is_refused_until_it_is_whole() {
    for more in [&[][..], &["--no-events", "--poll-seconds", "0.2"][..]] {
        let scene = Scene::new().file("p.wasm", &variant("succeeds", 1));
        let file = scene.plugins().join("p.wasm");
        let host = start(scene, "plugins:\n  p: { source: file:p.wasm, every: 50ms }\n", more);
        runs_on(&host, "p", 1);
        let bytes = guest("heartbeat");
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        // Whoever writes closes it after each part, and takes a long time in between.
        fs::write(&file, first).unwrap();
        let plugin = host.wait_for("p", |plugin| says(plugin, "truncated"));
        assert_eq!((number(&plugin), &plugin["status"]), (1, &Value::from("Degraded")), "{plugin:#}");
        use std::io::Write as _;
        fs::File::options().append(true).open(&file).unwrap().write_all(rest).unwrap();
        let plugin = host.wait_for("p", |plugin| number(plugin) > 1 && plugin["lastRuns"][0]["version"] != 1);
        assert_eq!(
            plugin["totals"]["runs"].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["Succeeded"],
            "{plugin:#}"
        );
    }
}
