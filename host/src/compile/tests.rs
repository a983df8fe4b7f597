//! What the host makes of children that do not do as they should: shell scripts in the child's place say whatever they like.

#![allow(clippy::unwrap_used, reason = "a test may stop here")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::artifact::Artifact;
use crate::lanes::cgroup;
use crate::lanes::governor::Governor;
use crate::lanes::priority::Niceness;

/// A program that is this script. Written by another process: while this one had it open for writing, a child that another test
/// starts just then could inherit that, and the script not be executed.
fn program(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("child");
    let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 700 \"$0\"";
    let status = Command::new("sh").arg("-c").arg(write).arg(&path).arg(script).stdin(Stdio::null()).status().unwrap();
    assert!(status.success());
    path
}

fn compiler(folder: &Path, script: &str, time: Duration) -> Compiler {
    let nowhere = PathBuf::from("/nonexistent");
    let roots = cgroup::Roots { groups: nowhere.clone(), membership: nowhere };
    let limits = Limits { time, ..Limits::default() };
    Compiler::new(Options {
        means: Means { program: program(folder, script), limits, memory_bytes: None },
        settings: [7; 32],
        at_once: 1,
        cache: Some(Cache::open(&folder.join("data"), CACHE_BYTES, Box::new(|_| ())).unwrap()),
        room: Room::new(roots, None, None),
        governor: Governor::new(),
        niceness: Niceness::among_others().unwrap(),
    })
}

/// What comes of a child that is this script, for an artifact that no pipe holds at once.
fn outcome(script: &str, time: Duration) -> Result<Vec<u8>, Refused> {
    let folder = tempfile::tempdir().unwrap();
    let compiler = compiler(folder.path(), script, time);
    let artifact = Artifact::from_bytes(vec![0; 1 << 20]);
    let got = compiler.code(&artifact, Kind::Job).map(|compiled| compiled.code().to_vec());
    let kept = std::fs::read_dir(folder.path().join("data/cache/compiled")).unwrap().count();
    assert_eq!(kept, usize::from(got.is_ok()), "only code is kept: {got:?}");
    got
}

#[track_caller]
fn refused(script: &str, said: &str) {
    let why = outcome(script, Duration::from_secs(60)).unwrap_err().to_string();
    assert!(why.contains(said) && why.lines().count() == 1, "{script:?}: {why}");
}

/// How an answer begins, in the words of a shell's `printf`: 4 bytes of code.
const HEAD: &str = "WLCOMPA1\\000\\004\\000\\000\\000\\000\\000\\000\\000";

#[test]
fn a_child_that_does_its_work_is_believed() {
    let script = format!("cat > /dev/null; printf '{HEAD}code'");
    assert_eq!(outcome(&script, Duration::from_secs(60)).unwrap(), b"code");
    // Whether it has read everything is its own affair.
    assert_eq!(outcome(&format!("printf '{HEAD}code'"), Duration::from_secs(60)).unwrap(), b"code");
}

#[test]
fn a_child_that_crashes_is_one_line() {
    refused("exit 3", "could not be compiled: it said nothing");
    refused("echo the disk is on fire >&2; exit 1", "the disk is on fire");
    refused("echo '' >&2; echo words >&2; kill -SEGV $$", "the compiler crashed on it (signal 11: words)");
    refused("kill -ABRT $$", "signal 6: it said nothing");
    refused("kill -KILL $$", "MiB to compile");
    refused("kill -XCPU $$", "still compiling after 120 s of CPU time");
    refused("echo memory allocation of 9 bytes failed >&2; kill -ABRT $$", "MiB to compile");
    // Words without end are cut.
    refused("head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1", "xxx");
}

#[test]
fn an_answer_that_is_none_is_not_believed() {
    let garbled = "the compiler's answer cannot be read";
    refused("cat > /dev/null; echo usage: windlass COMMAND, and then some", garbled);
    refused("head -c 100000 /dev/zero", garbled);
    // The next version's handshake.
    refused(&format!("printf '{}code'", HEAD.replace("A1", "A2")), garbled);
    refused(&format!("printf '{}code'", HEAD.replacen("\\000", "\\011", 1)), garbled);
    refused(&format!("printf '{HEAD}more than was announced'"), garbled);
    // Torn, in its head and behind it.
    refused("printf WLCOMPA1", "it said nothing");
    refused(&format!("printf '{HEAD}co'; echo torn >&2"), "torn");
    refused(&format!("printf '{HEAD}co'; kill -SEGV $$"), "signal 11");
    let huge = HEAD.replace("\\004\\000\\000\\000\\000\\000", "\\000\\000\\000\\000\\000\\001");
    refused(&format!("printf '{huge}'"), "its code would be larger than 512 MiB");
    let refusal = HEAD.replacen("\\000", "\\001", 1);
    refused(&format!("printf '{refusal}no\\n!'"), "no");
    let unfit = HEAD.replacen("\\000", "\\002", 1);
    refused(&format!("printf '{unfit}old!'"), "could not be compiled: old!");
}

#[test]
fn a_child_that_does_not_end_is_ended() {
    for script in ["exec sleep 600", "exec yes >&2", &format!("printf '{HEAD}c'; exec sleep 600")] {
        let began = Instant::now();
        let why = outcome(script, Duration::from_millis(300)).unwrap_err();
        assert_eq!(why, Refused::Time(0), "{script}");
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn a_second_try_is_made_where_there_is_more_memory() {
    for (memory, tries) in [(None, 2), (Some(100 << 20), 1)] {
        let folder = tempfile::tempdir().unwrap();
        let count = folder.path().join("tries");
        let script = format!("echo try >> {}; kill -KILL $$", count.display());
        let mut compiler = compiler(folder.path(), &script, Duration::from_secs(60));
        let nowhere = PathBuf::from("/nonexistent");
        compiler.options.room = Room::new(cgroup::Roots { groups: nowhere.clone(), membership: nowhere }, None, memory);
        let why = compiler.code(&Artifact::from_bytes(Vec::new()), Kind::Job).err().unwrap();
        assert!(matches!(why, Refused::Memory { .. }), "{why}");
        assert_eq!(std::fs::read_to_string(count).unwrap().lines().count(), tries);
    }
}

#[test]
fn a_program_that_is_not_there_is_the_hosts_fault() {
    let folder = tempfile::tempdir().unwrap();
    let compiler = compiler(folder.path(), "", Duration::from_secs(60));
    std::fs::remove_file(folder.path().join("child")).unwrap();
    let why = compiler.code(&Artifact::from_bytes(Vec::new()), Kind::Job).err().unwrap();
    assert!(matches!(&why, Refused::Host(why) if why.contains("no process for the compiler")), "{why}");
}
