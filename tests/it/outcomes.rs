//! What each guest's run ends as, told by `windlass once`: the same code that the host runs.

use windlass_tests::once;

/// Runs a fixture, and checks the exit code and what is said.
fn check(guest: &str, arguments: &[&str], code: i32, said: &[&str]) {
    let (found, stdout, stderr) = once(guest, arguments);
    let all = format!("{stdout}{stderr}");
    assert_eq!(found, code, "{guest}: {all}");
    for part in said {
        assert!(all.contains(part), "{guest}: `{part}` is not in: {all}");
    }
}

#[test]
fn success_is_exit_code_0_and_says_what_it_took() {
    check("succeeds", &[], 0, &["Succeeded", "elapsed", "cpu", "fuel", "memory", "limits: {"]);
}

#[test]
fn fuel_is_exact_and_the_same_each_time() {
    for _ in 0..3 {
        check("counts", &[], 0, &["fuel     8000001"]);
    }
}

#[test]
fn a_budget_of_fuel_is_exact() {
    check("counts", &["--fuel", "8100000"], 0, &["Succeeded"]);
    check("counts", &["--fuel", "7000000"], 1, &["OutOfFuel", "limits.fuel of 7000000"]);
}

#[test]
fn an_endless_loop_ends_at_its_deadline() {
    check("spins", &["--deadline-seconds", "0.2"], 1, &["DeadlineExceeded"]);
    check("spins_in_start", &["--deadline-seconds", "0.2"], 1, &["DeadlineExceeded"]);
    check("spins", &["--fuel", "1000000"], 1, &["OutOfFuel"]);
}

#[test]
fn a_guest_that_hangs_in_a_host_call_is_dropped_at_its_deadline_and_burns_nothing() {
    let (code, _, stderr) = once("sleeps", &["--deadline-seconds", "0.3"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("DeadlineExceeded") && stderr.contains("cpu      0.0"), "{stderr}");
    let fuel: u64 = stderr.lines().find_map(|line| line.trim().strip_prefix("fuel")).unwrap().trim().parse().unwrap();
    assert!(fuel < 1000, "{stderr}");
}

#[test]
fn traps_say_what_and_where() {
    check("traps", &[], 1, &["Trapped", "unreachable", "boom"]);
    check("overflows_stack", &[], 1, &["Trapped", "call stack exhausted"]);
    check("actor", &["--config", "act=panics"], 1, &["Trapped", "the sky fell"]);
    check("actor", &["--config", "act=panics_in_drop"], 1, &["Trapped", "in drop"]);
}

#[test]
fn exit_codes_of_preview_1_are_kept() {
    check("exits_with_3", &[], 1, &["Failed", "exit     3"]);
    check("plain-wasi", &["--", "Ada"], 0, &["hello, Ada", "exit     0"]);
    check("plain-wasi", &["--", "--fail"], 1, &["asked to fail", "exit     3"]);
}

#[test]
fn a_wasi_command_component_runs_as_it_is() {
    check("plain-wasi-command", &["--", "Ada"], 0, &["hello, Ada", "Succeeded"]);
    // What the component's own adapter makes of exit(3).
    check("plain-wasi-command", &["--", "--fail"], 1, &["asked to fail", "Failed", "exit     1"]);
}

#[test]
fn memory_is_held_to_its_limit() {
    check("hoards_memory", &["--memory", "16Mi"], 1, &["OutOfMemory", "limits.memory is 16Mi"]);
    check("takes_what_it_gets", &["--memory", "16Mi"], 0, &["Succeeded", "refused  memory", "memory   15.1 MiB"]);
    check("grows_table", &[], 1, &["OutOfMemory", "table elements"]);
}

#[test]
fn failures_say_whether_to_try_again() {
    check("actor", &["--config", "act=fails_transient"], 1, &["Failed", "try again"]);
    check("actor", &["--config", "act=fails_permanent"], 1, &["Failed(Permanent)", "never again"]);
    check("actor", &["--config", "act=lies_healthy"], 1, &["health: Healthy", "Failed", "but it failed"]);
}

#[test]
fn what_is_not_granted_is_denied_at_the_call_and_named() {
    check("actor", &["--config", "act=opens_socket"], 1, &["Denied", "sockets", "opening a socket", "capabilities"]);
    check("actor", &["--config", "act=looks_up_a_name"], 1, &["Denied", "sockets", "example.com"]);
    check("actor", &["--config", "act=reads_file"], 1, &["Failed", "capability dirs"]);
    check("actor", &["--config", "act=reads_environment"], 0, &["0 variables"]);
}

#[test]
fn payload_and_log_lines_arrive() {
    let told = ["payload hello of text/plain for actor.wasm"];
    check("actor", &["--config", "act=says_payload", "--payload", "hello", "--content-type", "text/plain"], 0, &told);
    check(
        "actor",
        &["--config", "act=logs"],
        0,
        &["INFO by log", "WARN by tracing answer=42", "by stdout", "by stderr", "ERROR by wasi:logging context=engine"],
    );
}

#[test]
fn output_is_bounded_and_a_flood_is_preempted() {
    check("busy_polls", &["--deadline-seconds", "0.3"], 1, &["DeadlineExceeded"]);
    check("fills_memory", &["--deadline-seconds", "0.3"], 1, &["DeadlineExceeded"]);
    check("writes_without_newline", &["--deadline-seconds", "0.3"], 1, &["DeadlineExceeded"]);
}
