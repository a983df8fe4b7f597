//! The house rules that a machine can keep: one place per power, no file without a purpose, no traces of anyone's machine.

use std::fs;
use std::path::{Path, PathBuf};

use windlass_tests::root;

/// All files of the project with one of these endings, without what is built.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    walk(&path, found);
                }
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    let wanted = found
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| endings.contains(&&*extension.to_string_lossy())));
    wanted
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap_or_default();
            (name, text)
        })
        .collect()
}

fn sources() -> Vec<(String, String)> {
    files(&["rs"])
}

/// The lines of a source that are code: neither comments nor tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let until = text.find("#[cfg(test)]\nmod").unwrap_or(text.len());
    let text = text.get(..until).unwrap_or(text);
    text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn only_in(needles: &[&str], under: &str, homes: &[&str]) {
    let mut strays = Vec::new();
    for (name, text) in sources() {
        let is_test = name.ends_with("tests.rs") || name.contains("/tests/");
        if !name.starts_with(under) || is_test || homes.iter().any(|home| name.starts_with(home)) {
            continue;
        }
        for (number, line) in code(&text) {
            if needles.iter().any(|needle| line.contains(needle)) {
                strays.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(strays.is_empty(), "{needles:?} only in {homes:?}:\n{}", strays.join("\n"));
}

#[test]
fn wasmtime_is_named_only_where_guests_are_executed() {
    only_in(&["wasmtime"], "host/src", &["host/src/guest/"]);
}

#[test]
fn hyper_is_named_only_in_servers() {
    only_in(&["hyper"], "host/src", &["host/src/health/", "host/src/admin/"]);
}

#[test]
fn tokio_is_named_only_where_there_is_a_runtime() {
    only_in(
        &["tokio::"],
        "host/src",
        &[
            "host/src/health/",
            "host/src/admin/",
            "host/src/guest/",
            "host/src/lanes/",
            "host/src/host.rs",
            "host/src/registry/",
        ],
    );
}

#[test]
fn clocks_are_read_only_in_the_shell() {
    let clocks = ["Instant::now", "SystemTime::now", "Timestamp::now", ".elapsed()"];
    let homes = [
        "host/src/driver/",
        "host/src/lanes/",
        "host/src/health/",
        "host/src/source/watch/",
        "host/src/cli/status.rs",
        "host/src/guest/attempt.rs",
        "host/src/guest/run.rs",
        "host/src/cli/once.rs",
        "host/src/cli/http.rs",
        "host/src/cli/probe_advice.rs",
        "host/src/wedge.rs",
        "host/src/cli/compile.rs",
        "host/src/compile/watch.rs",
        "host/src/registry/shared.rs",
        "host/src/registry/store.rs",
    ];
    only_in(&clocks, "host/", &homes);
}

#[test]
fn threads_are_spawned_only_by_their_owners() {
    let homes = [
        "host/src/lanes/mod.rs",
        "host/src/driver/mod.rs",
        "host/src/escalations.rs",
        "host/src/health/mod.rs",
        "host/src/source/loader.rs",
        "host/src/source/watch/mod.rs",
        "host/src/admin/mod.rs",
        "host/src/telemetry/writer.rs",
        "host/src/compile/child.rs",
    ];
    only_in(&["thread::spawn", "thread::Builder"], "host/src", &homes);
}

#[test]
fn processes_are_started_only_to_compile() {
    only_in(&["Command::new", "process::Command", "fork("], "host/", &["host/src/compile/parent.rs"]);
}

#[test]
fn compiled_code_is_loaded_in_one_place() {
    only_in(&["::deserialize(engine", "deserialize_file"], "host/", &["host/src/guest/prepare.rs"]);
}

#[test]
fn the_core_knows_no_shell() {
    only_in(
        &["tokio", "hyper", "wasmtime", "std::fs", "std::net::Tcp", "std::thread", "std::env"],
        "host/core/src",
        &[],
    );
    let manifest = fs::read_to_string(root().join("host/core/Cargo.toml")).unwrap();
    for banned in ["tokio", "hyper", "wasmtime"] {
        assert!(!manifest.contains(banned), "{banned} in host/core/Cargo.toml");
    }
}

#[test]
fn every_file_says_its_purpose_first_and_has_one() {
    // The cases of the compile tests show what an author writes, not what we do.
    for (name, text) in sources().into_iter().filter(|(name, _)| !name.contains("/ui/")) {
        let lines = text.lines().count();
        assert!(text.starts_with("//!"), "{name} does not begin with its purpose");
        assert!(lines <= 900, "{name} has {lines} lines: which two rooms is it?");
    }
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("FIX", "ME"),
        concat!("#[ign", "ore"),
        concat!("dbg", "!("),
    ];
    for (name, text) in sources() {
        for mark in marks {
            assert!(!text.contains(mark), "{name} has {mark}");
        }
    }
}

#[test]
fn no_path_of_a_machine_is_in_the_repository() {
    let paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/fa", "rm/")];
    for (name, text) in files(&["rs", "md", "toml", "yaml", "yml", "sh", "wit", "wat", "in", "json"]) {
        for path in paths {
            assert!(!text.contains(path), "{name} names {path}");
        }
    }
}

#[test]
fn every_crate_has_its_reason() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let manifest = fs::read_to_string(root().join("host/Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("[dev-dependencies]").next().unwrap();
    for line in dependencies.lines().filter(|line| line.contains("workspace")) {
        let name = line.split('.').next().unwrap();
        let short = name.strip_prefix("wasmtime").unwrap_or(name);
        let is_named = architecture.contains(&format!("`{name}`")) || architecture.contains(&format!("`{short}`"));
        assert!(is_named || name == "windlass-core", "ARCHITECTURE.md does not say why `{name}`");
    }
}
