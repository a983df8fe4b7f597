//! What is done to the process from outside.

use std::time::{Duration, Instant};

use windlass_core::time::Timestamp;
use windlass_tests::{Launch, Scene, is_long};

use super::How::Scene as By;
use super::runner::{self, BYSTANDERS, Bystanders};
use super::{Row, rows};

rows! {
    stopped_and_continued: Row {
        fault: "SIGSTOP for a minute, then SIGCONT",
        outcome: None,
        status: "Healthy",
        reason: None,
        well_within: Duration::from_secs(5),
        how: By(stopped_and_continued),
    };
    clock_jumps: Row {
        fault: "the machine's clock jumps an hour ahead, and two hours back",
        outcome: None,
        status: "Healthy",
        reason: None,
        well_within: Duration::from_secs(2),
        how: By(clock_jumps),
    };
}

fn stopped_and_continued(row: &Row) {
    let host = runner::launch(Scene::new(), &["spins"], "source: file:spins.wasm, continuous: true", "");
    host.wait_until_ready();
    host.wait_for("culprit", |plugin| plugin["running"][0]["started"].is_string());
    let run = host.plugin("culprit")["running"][0]["run"].clone();
    host.signal("STOP");
    // The long form is what the row says; the short one is as far beyond what a probe or a beat may take.
    std::thread::sleep(if is_long() { Duration::from_secs(60) } else { Duration::from_secs(5) });
    host.signal("CONT");
    let began = Instant::now();
    let ran = |name: &str| host.plugin(name)["totals"]["runs"]["Succeeded"].as_u64().unwrap_or(0);
    let before = BYSTANDERS.map(ran);
    while BYSTANDERS.iter().zip(before).any(|(name, before)| ran(name) < before + 3) {
        assert!(began.elapsed() < row.well_within, "they do not go on");
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!("{}: all go on after {:?}", row.fault, began.elapsed());
    // What was missed meanwhile is made up for once, and from then on it is as if nothing had been.
    let mut bystanders = Bystanders::watch(&host);
    bystanders.worst = Duration::from_secs(70);
    bystanders.go_on_for(Duration::from_secs(3));
    bystanders.were_punctual(&host);
    let culprit = host.plugin("culprit");
    assert_eq!((&culprit["running"][0]["run"], &culprit["status"]), (&run, &row.status.into()), "{culprit}");
    assert_eq!(std::fs::read_to_string(host.scene().termination_log()).unwrap(), "");
}

fn clock_jumps(row: &Row) {
    let wedge = Some("clock=+1h@3s,clock=-2h@6s");
    let host = runner::launch_as(Scene::new(), &[], "", "", &Launch { wedge, ..Launch::default() });
    host.wait_until_ready();
    let bystanders = Bystanders::watch(&host);
    // How far the host's clock is from ours, in hours.
    let off = || {
        let last = host.plugin("one")["lastSuccess"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        last.map_or(0.0, |at| (at.as_second() - Timestamp::now().as_second()) as f64 / 3600.0)
    };
    for jump in [1.0, -1.0] {
        let until = Instant::now() + windlass_tests::PATIENCE;
        while (off() - jump).abs() > 0.1 {
            assert!(Instant::now() < until, "the clock did not jump: {}", off());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    bystanders.go_on_for(row.well_within);
    bystanders.were_punctual(&host);
    let next = &host.json("/health")["entries"]["one"];
    assert_eq!(next["status"], row.status, "{next}");
}
