//! Compiling off to the side: what an artifact does to its compiler costs that compiler, and what was compiled is kept.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirEntryExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::Digest as _;
use windlass_tests::{Host, Mount, PATIENCE, Scene, compile_bomb, guest, marked};

/// Starts a host with further arguments.
fn run(scene: Scene, yaml: &str, arguments: &[&str]) -> Host {
    let config = scene.configure(yaml);
    let mut all = vec!["run".to_owned(), "--config".to_owned(), config.display().to_string()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    Host::start(scene, &all)
}

/// The process ids of a host's compile children.
fn children(host: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        if parent == Some(host) {
            found.push(pid);
        }
    }
    found
}

/// Waits for a child that has bounded itself.
fn bounded_child(host: u32) -> u32 {
    let until = Instant::now() + PATIENCE;
    loop {
        for pid in children(host) {
            let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
            let data = limits.lines().find(|line| line.starts_with("Max data size"));
            if data.is_some_and(|line| !line.contains("unlimited")) {
                return pid;
            }
        }
        assert!(Instant::now() < until, "no child");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn description(plugin: &Value) -> String {
    plugin["description"].as_str().unwrap().to_owned()
}

/// A bomb beside a plugin that runs: the bomb is refused with `said`, and the other has not noticed.
fn bomb_costs_the_bomb(arguments: &[&str], said: &[&str]) {
    let scene = Scene::new().guest("succeeds").file("bomb.wasm", &compile_bomb());
    let yaml = "plugins:\n  a: { source: file:succeeds.wasm, every: 1s }\n  bomb: { source: file:bomb.wasm }\n";
    let host = run(scene, yaml, arguments);
    host.wait_for_run("a");
    let bomb = host.wait_for("bomb", |plugin| {
        let began = Instant::now();
        assert_eq!(host.get("/health/live").0, 200);
        assert!(began.elapsed() < Duration::from_secs(1), "health took {:?}", began.elapsed());
        plugin["state"] == "Refused"
    });
    let description = description(&bomb);
    for part in said {
        assert!(description.contains(part), "`{part}` is not in: {description}");
    }
    host.wait_until_ready();
    let runs = |plugin: &Value| plugin["lastRuns"][0]["run"].clone();
    let before = runs(&host.plugin("a"));
    host.wait_for("a", |plugin| runs(plugin) != before && plugin["lastRuns"][0]["outcome"] == "Succeeded");
    assert_eq!(children(host.pid()), [0; 0], "nothing is left of it");
}

#[test]
fn a_compile_that_takes_too_much_memory_is_refused() {
    bomb_costs_the_bomb(&["--compile-mib", "128"], &["bomb.wasm", "more than 96 MiB to compile", "make it smaller"]);
}

#[test]
fn a_compile_that_takes_too_much_cpu_is_refused() {
    bomb_costs_the_bomb(&["--compile-cpu-seconds", "1"], &["bomb.wasm", "after 1 s of CPU time"]);
}

#[test]
fn a_compile_that_takes_too_long_is_refused() {
    bomb_costs_the_bomb(&["--compile-seconds", "1"], &["bomb.wasm", "after 1 s, the most"]);
}

#[test]
fn a_child_has_no_environment_no_descriptors_and_low_priority_and_dies_with_its_host() {
    let scene = Scene::new().file("bomb.wasm", &compile_bomb());
    let config = scene.configure("plugins:\n  bomb: { source: file:bomb.wasm }\n");
    let arguments = ["run".to_owned(), "--config".to_owned(), config.display().to_string()];
    let mut host = Host::start_with(scene, &arguments, &[("A_SECRET", "of the host")]);
    let child = bounded_child(host.pid());
    let proc = |file: &str| fs::read_to_string(format!("/proc/{child}/{file}")).unwrap();
    let environment = proc("environ");
    assert!(environment.split_terminator('\0').all(|pair| pair.starts_with("MIMALLOC_")), "{environment}");
    let descriptors: Vec<_> = fs::read_dir(format!("/proc/{child}/fd")).unwrap().flatten().collect();
    assert_eq!(descriptors.len(), 3, "{descriptors:?}");
    for descriptor in descriptors {
        let target = fs::read_link(descriptor.path()).unwrap();
        assert!(target.to_string_lossy().starts_with("pipe:"), "{target:?}");
    }
    let niceness = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
    };
    assert_eq!(niceness(child), (niceness(host.pid()) + 10).min(19));
    let limits = proc("limits");
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(limit("Max cpu time").contains("120") && limit("Max core file size").contains(" 0 "), "{limits}");
    assert_eq!(proc("oom_score_adj").trim(), "1000");
    host.signal("KILL");
    host.wait_for_end();
    let until = Instant::now() + PATIENCE;
    // Gone, or dead and not yet taken in by whoever is the first process here.
    while fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < until, "the child outlives its host");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_child_serves_nobody_else() {
    let output = Scene::new().windlass(&[
        "compile-child",
        "--parent",
        "1",
        "--memory-bytes",
        "1",
        "--cpu-seconds",
        "1",
        "--niceness",
        "0",
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("is for windlass itself"), "{said}");
    let help = Scene::new().windlass(&["--help"]);
    assert!(!String::from_utf8_lossy(&help.stdout).contains("compile-child"));
}

#[test]
fn code_that_is_no_wasm_inside_is_refused_by_the_compilers_own_words() {
    let mut bytes = guest("succeeds");
    // The last byte of the last function's body is its `end`.
    let end = bytes.iter().rposition(|byte| *byte == 0x0b).unwrap();
    bytes[end] = 0xff;
    let host = Scene::new().file("broken.wasm", &bytes).run("plugins:\n  p: { source: file:broken.wasm }\n");
    let plugin = host.wait_for("p", |plugin| plugin["state"] == "Refused");
    assert!(description(&plugin).contains("broken.wasm"), "{plugin}");
}

const WITH_DATA: &str = "dataDir: data\nplugins:\n  p: { source: file:succeeds.wasm, every: 1s }\n";

/// Runs a host on `data` until its plugin has succeeded; returns the entries of the cache and when they were written.
fn run_on(data: &Path, problem: Option<&str>) -> Vec<PathBuf> {
    let yaml = WITH_DATA.replace("data\n", &format!("{}\n", data.display()));
    let mut host = Scene::new().guest("succeeds").run(&yaml);
    assert_eq!(host.wait_for_run("p")["outcome"], "Succeeded");
    let entry = host.json("/health")["entries"]["windlass"].clone();
    match problem {
        Some(said) => {
            assert!(entry["status"] == "Degraded" && entry["description"].as_str().unwrap().contains(said), "{entry}");
            assert_eq!(host.get("/health/live").0, 200);
        }
        None => assert_eq!(entry["status"], "Healthy", "{entry}"),
    }
    assert_eq!(host.stop(), 0);
    let folder = data.join("cache/compiled");
    let mut entries: Vec<_> =
        fs::read_dir(folder).map(|all| all.flatten().map(|entry| entry.path()).collect()).unwrap_or_default();
    entries.sort();
    entries
}

#[test]
fn a_second_start_takes_the_code_from_the_cache_and_what_was_tampered_with_is_made_again() {
    let data = tempfile::tempdir().unwrap();
    let entries = run_on(data.path(), None);
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    let written = fs::read(entry).unwrap();
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let first = inode(entry);
    assert_eq!(run_on(data.path(), None), entries);
    assert_eq!(inode(entry), first, "it was compiled again");
    let spoilt: [Vec<u8>; 4] = [
        written[..written.len() / 2].to_vec(),
        Vec::new(),
        written.iter().enumerate().map(|(at, byte)| if at == written.len() - 9 { byte ^ 1 } else { *byte }).collect(),
        // Another version of the format.
        written.iter().enumerate().map(|(at, byte)| if at == 7 { byte ^ 1 } else { *byte }).collect(),
    ];
    for bytes in spoilt {
        fs::write(entry, bytes).unwrap();
        assert_eq!(run_on(data.path(), None), entries);
        assert_eq!(fs::read(entry).unwrap().len(), written.len(), "it was not made again");
    }
}

#[test]
fn code_that_the_engine_does_not_take_is_made_again_once() {
    let data = tempfile::tempdir().unwrap();
    let entries = run_on(data.path(), None);
    let written = fs::read(&entries[0]).unwrap();
    // A head that fits, as this user's own tools could have written it, before what is no code.
    let (head, junk) = (written[..73].to_vec(), b"no code at all".to_vec());
    let length = (junk.len() as u64).to_le_bytes().to_vec();
    let entry = [head, length, sha2::Sha256::digest(&junk).to_vec(), junk].concat();
    fs::write(&entries[0], entry).unwrap();
    assert_eq!(run_on(data.path(), None), entries);
    assert_eq!(fs::read(&entries[0]).unwrap(), written);
}

#[test]
fn an_import_that_nobody_provides_is_no_reason_to_compile_again() {
    let data = tempfile::tempdir().unwrap();
    let yaml = format!("dataDir: {}\nplugins:\n  p: {{ source: file:imports_unknown.wasm }}\n", data.path().display());
    let run = || {
        let mut host = Scene::new().guest("imports_unknown").run(&yaml);
        let plugin = host.wait_for("p", |plugin| plugin["state"] == "Refused");
        assert!(description(&plugin).contains("imports what no part of this host provides"), "{plugin}");
        assert_eq!(host.stop(), 0);
        let entries = fs::read_dir(data.path().join("cache/compiled")).unwrap().flatten();
        entries.map(|entry| (entry.file_name(), entry.ino())).collect::<Vec<_>>()
    };
    let first = run();
    assert_eq!(first.len(), 1);
    assert_eq!(run(), first, "it was compiled again");
}

#[test]
fn a_cache_that_cannot_be_written_is_read() {
    let scene = Scene::new().guest("succeeds").guest("heartbeat");
    let data = scene.path().join("data");
    fs::create_dir_all(data.join("cache")).unwrap();
    let Some(mount) = Mount::tmpfs(&data.join("cache"), "size=8m,mode=700") else { return };
    let compile = ["compile", "plugins/succeeds.wasm", "--data-dir", "data"];
    assert_eq!(scene.windlass(&compile).status.code(), Some(0));
    assert!(mount.read_only());
    let again = scene.windlass(&compile);
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(again.status.code() == Some(0) && said.contains("was there already"), "{again:?}");
    let other = scene.windlass(&["compile", "plugins/heartbeat.wasm", "--data-dir", "data"]);
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(
        other.status.code() == Some(1) && said.contains("cannot be written") && said.contains("ead-only"),
        "{said}"
    );

    let host = scene.run(
        "dataDir: data\nplugins:\n  p: { source: file:succeeds.wasm, every: 1s }\n  q: { source: file:heartbeat.wasm, every: 1s }\n",
    );
    host.wait_for_run("p");
    host.wait_for_run("q");
    let entry = host.json("/health")["entries"]["windlass"].clone();
    let description = entry["description"].as_str().unwrap();
    assert!(entry["status"] == "Degraded" && description.contains("cannot be written"), "{entry}");
    drop(host);
}

/// Runs a compile child by hand, as the host does, on these bytes.
fn child_answers(request: &[u8]) -> (Option<i32>, Vec<u8>, String) {
    let niceness = rustix::process::getpriority_process(None).unwrap();
    let mut child = Command::new(windlass_tests::binary())
        .args(["compile-child", "--parent", &std::process::id().to_string(), "--memory-bytes", "500000000"])
        .args(["--cpu-seconds", "20", "--niceness", &niceness.to_string()])
        .env_clear()
        .envs([("MIMALLOC_ARENA_RESERVE", "0"), ("MIMALLOC_DISALLOW_ARENA_ALLOC", "1")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have seen enough before the end.
    let _ = child.stdin.take().unwrap().write_all(request);
    let output = child.wait_with_output().unwrap();
    (output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_child_tells_a_host_that_is_not_its_own() {
    let wasm = guest("succeeds");
    let head = |magic: &[u8], kind: u8, length: u64| [magic, &[0; 32], &[kind], &length.to_le_bytes()].concat();
    let request = |magic: &[u8]| [head(magic, 2, wasm.len() as u64), wasm.clone()].concat();
    // Settings of another engine are an answer, which says so.
    let (code, answer, said) = child_answers(&request(b"WLCOMPQ1"));
    assert!(code == Some(0) && answer.starts_with(b"WLCOMPA1\x02"), "{said}");
    assert!(String::from_utf8_lossy(&answer).contains("was the binary replaced?"));
    for (request, why) in [
        (request(b"WLCOMPQ2"), "no request of this version"),
        (
            b"GET / HTTP/1.1\r\nhost: a\r\nuser-agent: something else entirely\r\n\r\n".to_vec(),
            "no request of this version",
        ),
        (head(b"WLCOMPQ1", 9, 0), "an unknown kind"),
        (head(b"WLCOMPQ1", 0, u64::MAX), "a length beyond all bounds"),
        (head(b"WLCOMPQ1", 0, 10), "it ends too early"),
        (Vec::new(), "reading the request"),
    ] {
        let (code, answer, said) = child_answers(&request);
        assert!(code == Some(1) && answer.is_empty() && said.contains(why), "{code:?} {answer:?} {said}");
    }
}

#[test]
fn an_entry_that_is_cut_after_it_was_loaded_harms_nobody() {
    let scene = Scene::new().guest("succeeds");
    let folder = scene.path().join("data/cache/compiled");
    let host = scene.run(WITH_DATA);
    host.wait_for_run("p");
    for entry in fs::read_dir(folder).unwrap().flatten() {
        fs::File::options().write(true).open(entry.path()).unwrap().set_len(10).unwrap();
    }
    let before = host.plugin("p")["lastRuns"][0]["run"].clone();
    host.wait_for("p", |plugin| {
        plugin["lastRuns"][0]["run"] != before && plugin["lastRuns"][0]["outcome"] == "Succeeded"
    });
}

#[test]
fn a_cache_that_is_open_to_others_is_not_used_and_health_says_so() {
    let data = tempfile::tempdir().unwrap();
    run_on(data.path(), None);
    fs::set_permissions(data.path().join("cache/compiled"), fs::Permissions::from_mode(0o770)).unwrap();
    run_on(data.path(), Some("chmod 700"));
}

#[test]
fn a_full_disk_is_a_warning_and_plugins_run() {
    let data = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::tmpfs(data.path(), "size=64k,mode=700") else { return };
    fs::write(data.path().join("filler"), vec![0; 56 << 10]).unwrap();
    assert!(run_on(data.path(), Some("cannot be written")).is_empty(), "something half written is left");
}

#[test]
fn compiling_ahead_is_what_the_host_then_finds() {
    let scene = Scene::new().guest("succeeds").file("marked.wasm", &marked(guest("succeeds"), 7));
    let data = scene.path().join("data").display().to_string();
    let compile = ["compile", "plugins/succeeds.wasm", "plugins/marked.wasm", "--data-dir", &data];
    let said = |scene: &Scene| {
        let output = scene.windlass(&compile);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let first = said(&scene);
    assert!(first.matches("compiled,").count() == 2 && first.contains("sha256:"), "{first}");
    assert_eq!(said(&scene).matches("was there already").count(), 2);
    let before: Vec<_> =
        fs::read_dir(scene.path().join("data/cache/compiled")).unwrap().flatten().map(|e| e.file_name()).collect();
    let folder = scene.path().join("data/cache/compiled");
    let host = scene.run(WITH_DATA);
    host.wait_for_run("p");
    let after: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(before, after);
    let bad =
        Scene::new().file("bad.wasm", b"not wasm").windlass(&["compile", "plugins/bad.wasm", "--data-dir", "data"]);
    assert_eq!(bad.status.code(), Some(2));
}

/// A memory group of this test's own, of version 1; none where groups may not be made.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn of(bytes: u64) -> Option<MemoryGroup> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/memory/windlass-it-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let group = MemoryGroup(path);
        fs::write(group.0.join("memory.limit_in_bytes"), bytes.to_string()).ok()?;
        Some(group)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && self.0.exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn in_a_small_container_a_bomb_is_refused_and_nothing_is_killed() {
    let Some(group) = MemoryGroup::of(256 << 20) else {
        eprintln!("SKIPPED: no memory group of version 1 can be made here, so a container's limit was not tried");
        return;
    };
    let scene = Scene::new().guest("succeeds").file("bomb.wasm", &compile_bomb());
    let config = scene
        .configure("plugins:\n  a: { source: file:succeeds.wasm, every: 1s }\n  bomb: { source: file:bomb.wasm }\n");
    // A shell that joins the group and becomes the host.
    let script = scene.path().join("in-group");
    let procs = group.0.join("cgroup.procs").display().to_string();
    let binary = windlass_tests::binary().display().to_string();
    fs::write(&script, format!("#!/bin/sh\necho $$ > {procs}\nexec {binary} run --config {}\n", config.display()))
        .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let host = Host::start_as(std::process::Command::new(&script), scene, &[], &[]);
    host.wait_for_run("a");
    let bomb = host.wait_for("bomb", |plugin| plugin["state"] == "Refused");
    assert!(description(&bomb).contains("raise the container's memory limit"), "{bomb}");
    host.wait_for_run("a");
    let control = fs::read_to_string(group.0.join("memory.oom_control")).unwrap();
    assert!(control.lines().all(|line| !line.starts_with("oom_kill ") || line == "oom_kill 0"), "{control}");
    drop(host);
}
