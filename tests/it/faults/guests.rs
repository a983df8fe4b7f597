//! What one plugin can do by itself.

use std::time::Duration;

use super::How::{Plugin, Scene};
use super::runner::{self, Bystanders};
use super::{Row, rows};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A run that does not end by itself, with a second to do so: the bound is the deadline and what a busy machine adds.
const fn endless(fault: &'static str, guests: &'static [&'static str], entry: &'static str) -> Row {
    Row {
        fault,
        outcome: Some("DeadlineExceeded"),
        status: "Degraded",
        reason: Some("activeDeadlineSeconds of 1"),
        well_within: s(4),
        how: Plugin { guests, entry },
    }
}

/// A run that ends by its own fault.
const fn ends(
    fault: &'static str,
    outcome: &'static str,
    reason: &'static str,
    guests: &'static [&'static str],
    entry: &'static str,
) -> Row {
    Row {
        fault,
        outcome: Some(outcome),
        status: "Degraded",
        reason: Some(reason),
        well_within: s(3),
        how: Plugin { guests, entry },
    }
}

rows! {
    endless_loop: endless("endless loop", &["spins"], "source: file:spins.wasm, activeDeadlineSeconds: 1");
    endless_loop_in_start: endless(
        "endless loop in the start function", &["spins_in_start"], "source: file:spins_in_start.wasm, activeDeadlineSeconds: 1"
    );
    trap: ends("trap", "Trapped", "unreachable", &["traps"], "source: file:traps.wasm");
    stack_overflow: ends(
        "endless recursion", "Trapped", "call stack exhausted", &["overflows_stack"], "source: file:overflows_stack.wasm"
    );
    memory_hoarding: ends(
        "takes memory up to its limit and fails", "OutOfMemory", "limits.memory is 64Mi",
        &["hoards_and_touches"], "source: file:hoards_and_touches.wasm, limits: { memory: 64Mi }"
    );
    table_growth: ends(
        "grows its table without end", "OutOfMemory", "table elements", &["grows_table"], "source: file:grows_table.wasm"
    );
    giant_fill: endless(
        "`memory.fill` of 48 MiB in a loop", &["fills_memory"], "source: file:fills_memory.wasm, activeDeadlineSeconds: 1"
    );
    giant_copy: endless(
        "`memory.copy` of 24 MiB in a loop", &["copies_memory"], "source: file:copies_memory.wasm, activeDeadlineSeconds: 1"
    );
    sleep_past_the_deadline: endless("sleeps past its deadline", &["sleeps"], "source: file:sleeps.wasm, activeDeadlineSeconds: 1");
    hang_in_a_host_call: endless(
        "hangs in a host call for what never comes", &["hangs_in_host_call"],
        "source: file:hangs_in_host_call.wasm, activeDeadlineSeconds: 1"
    );
    ignores_being_asked_to_end: endless(
        "ignores that it is asked to end", &["actor"],
        "source: file:actor.wasm, activeDeadlineSeconds: 1, config: { act: ignores_cancel }"
    );
    busy_poll: endless(
        "polls with a timeout of zero in a loop", &["busy_polls"], "source: file:busy_polls.wasm, activeDeadlineSeconds: 1"
    );
    log_flood: Row {
        fault: "floods its log",
        outcome: Some("DeadlineExceeded"),
        status: "Degraded",
        reason: Some("limits.logs"),
        well_within: s(4),
        how: Plugin { guests: &["floods_log"], entry: "source: file:floods_log.wasm, activeDeadlineSeconds: 1, limits: { logs: 4Ki }" },
    };
    output_without_line_ends: Row {
        fault: "100 MiB to stdout without a line end",
        outcome: Some("Succeeded"),
        status: "Healthy",
        reason: Some("limits.logs"),
        well_within: s(10),
        how: Plugin { guests: &["writes_100mib_without_newline"], entry: "source: file:writes_100mib_without_newline.wasm" },
    };
    panic: ends("panics", "Trapped", "the sky fell", &["actor"], "source: file:actor.wasm, config: { act: panics }");
    panic_in_drop: ends(
        "panics while it is dropped", "Trapped", "in drop", &["actor"], "source: file:actor.wasm, config: { act: panics_in_drop }"
    );
    lies_healthy: ends(
        "says that it is well, and fails", "Failed", "but it failed", &["actor"],
        "source: file:actor.wasm, config: { act: lies_healthy }"
    );
    exit_code_0_while_failed: Row {
        fault: "returns well, but says that it did nothing",
        outcome: Some("Succeeded"),
        status: "Unhealthy",
        reason: Some("it says: nothing was done"),
        well_within: s(3),
        how: Plugin { guests: &["actor"], entry: "source: file:actor.wasm, config: { act: unwell_but_returns }" },
    };
    exits_0_halfway: Row {
        fault: "leaves with exit code 0 in the middle of its work",
        outcome: Some("Succeeded"),
        status: "Healthy",
        reason: None,
        well_within: s(3),
        how: Plugin { guests: &["actor"], entry: "source: file:actor.wasm, config: { act: exits_0_halfway }" },
    };
    exit_code_3_when_done: ends(
        "exit code 3 after its work was done", "Failed", "exit code 3", &["exits_with_3"], "source: file:exits_with_3.wasm"
    );
    flips_health: Row {
        fault: "changes what it says of its health every moment",
        outcome: Some("DeadlineExceeded"),
        status: "Degraded or Unhealthy",
        reason: Some("activeDeadlineSeconds of 3"),
        well_within: s(6),
        how: Scene(flips),
    };
    hostile_bytes: ends(
        "control characters and bytes that are no text, in its words", "Failed", "\\u{1b}[2Jgone\\u{2028}",
        &["speaks_hostile_bytes"], "source: file:speaks_hostile_bytes.wasm"
    );
    hostile_payload: Row {
        fault: "control characters in its payload and configuration",
        outcome: Some("Failed(Permanent)"),
        status: "Degraded",
        reason: Some("there is no act \\u{1b}[2J\\u{2028}"),
        well_within: s(3),
        how: Scene(hostile_payload),
    };
    compile_bomb: Row {
        fault: "compile bomb: a module that takes the compiler many seconds",
        outcome: None,
        status: "Degraded",
        reason: Some("compiling"),
        well_within: s(120),
        how: Scene(compile_bomb),
    };
}

fn flips(row: &Row) {
    let entry = "source: file:actor.wasm, activeDeadlineSeconds: 3, config: { act: flips_health }";
    let (mut host, bystanders) = runner::start(&["actor"], entry);
    let run = host.wait_for_run("culprit");
    bystanders.were_punctual(&host);
    runner::check_culprit(row, &host, &run);
    // One change a second at most, and those of the run's own.
    let changed = |line: &&serde_json::Value| line["message"] == "plugin changed" && line["plugin"] == "culprit";
    let changes = host.lines().iter().filter(changed).count();
    assert!(changes <= 8, "{changes} changes in 3 s");
}

fn hostile_payload(row: &Row) {
    let entry = "source: file:actor.wasm, config: { act: \"\\e[2J\\u2028\" }";
    let (mut host, bystanders) = runner::start(&["actor"], entry);
    let run = host.wait_for_run("culprit");
    bystanders.were_punctual(&host);
    runner::check_culprit(row, &host, &run);
    for path in ["/health", "/health/plugins/culprit", "/health/plugins", "/metrics"] {
        let (_, body) = host.get(path);
        assert!(!body.contains(['\u{1b}', '\u{2028}']), "{path}: {body}");
    }
    assert!(host.lines().iter().all(|line| !line.to_string().contains("\\u001b")), "in a log line");
    let arguments = ["--config", "act=says_payload", "--payload", "\u{1b}[2J\u{7}", "--content-type", "text/\u{1b}c"];
    let (code, stdout, stderr) = windlass_tests::once("actor", &arguments);
    // What it writes to stdout by hand is its own; what is said about it is ours.
    assert!(code == 0 && stdout.contains("payload"), "{stdout}{stderr}");
    assert!(!stderr.contains('\u{1b}'), "{stderr:?}");
}

/// A module of many long functions, each different.
pub(super) fn bomb() -> Vec<u8> {
    let mut text = String::from("(module (memory (export \"memory\") 1)\n");
    for function in 0..100 {
        text += &format!("(func $f{function} (param i64) (result i64) (local i64)\n");
        for step in 0..400 {
            let odd = 2 * (function * 400 + step) + 1;
            text += &format!(
                "(local.set 1 (i64.xor (i64.mul (local.get 0) (i64.const {odd})) (i64.rotl (local.get 1) (local.get 0))))\n\
                 (if (i64.eqz (local.get 1)) (then (local.set 0 (i64.add (local.get 1) (i64.const {odd})))))\n"
            );
        }
        text += "(local.get 1))\n";
    }
    wat::parse_str(text + "(func (export \"_start\") (drop (call $f0 (i64.const 1)))))").unwrap()
}

fn compile_bomb(row: &Row) {
    let scene = windlass_tests::Scene::new().file("bomb.wasm", &bomb());
    let host = runner::launch(scene, &[], "source: file:bomb.wasm, every: 1h", "");
    for name in runner::BYSTANDERS {
        host.wait_for(name, |plugin| plugin["state"] == "Active");
    }
    let bystanders = Bystanders::watch(&host);
    let loading = host.plugin("culprit");
    assert!(loading["description"].as_str().unwrap().contains(row.reason.unwrap()), "too fast to be a bomb: {loading}");
    assert_eq!(loading["status"], row.status);
    // Whether it gets through or is refused is the compiler's business.
    host.wait_for_within("culprit", row.well_within, |plugin| plugin["state"] != "Loading");
    eprintln!("{}: over after {:?}", row.fault, bystanders.watched_for());
    bystanders.were_punctual(&host);
}
