//! The ladder: retry, next run, quarantine, escalation; each told with its reason and the next step's time.

use super::*;
use crate::event::Escalated;
use crate::health::Rung;
use crate::outcome::MemoryLimit;

const ESCALATING: &str = "every: 1m, backoffLimit: 0, health: { failureThreshold: 1, escalate: OnUnhealthy }";

impl Story {
    fn escalated(&self) -> usize {
        self.actions.iter().filter(|action| matches!(action, Action::Escalated(_))).count()
    }

    fn rung(&mut self) -> Option<Rung> {
        self.view().ladder.as_ref().map(|ladder| ladder.rung)
    }
}

#[test]
fn an_escalating_plugin_asks_for_the_pod_and_is_not_quarantined_meanwhile() {
    let mut story = Story::of(ESCALATING);
    for _ in 0..4 {
        story.end(TRANSIENT);
        assert!(story.view().escalates);
        story.pass(60 * SECOND);
    }
    story.stands(State::Active, Status::Unhealthy, "; /health/live is red for it since 2026-01-01T00:00:00Z");
    assert_eq!((story.escalated(), story.rung()), (1, Some(Rung::Escalated)));
    story.end(Outcome::Succeeded);
    assert!(!story.view().escalates);
    assert_eq!(story.rung(), None);
    let mut refused = Story::loading("every: 1m, health: { escalate: OnUnhealthy }");
    let plugin = refused.plugin;
    refused.tell(Event::Refused { plugin, digest: None, reason: "p.wasm: is not WebAssembly".to_owned() });
    refused.stands(State::Refused, Status::Unhealthy, "not WebAssembly");
    assert!(!refused.view().escalates, "a restart would not heal it");
}

#[test]
fn it_is_red_again_only_when_the_time_is_over_and_quarantined_until_then() {
    let mut story = Story::of(ESCALATING);
    story.end(TRANSIENT);
    assert!(story.view().escalates);
    story.pass(60 * SECOND);
    story.end(Outcome::Succeeded);
    for _ in 0..2 {
        story.pass(60 * SECOND);
        story.end(TRANSIENT);
        assert!(!story.view().escalates, "ten minutes are not over");
    }
    story.stands(
        State::Quarantined,
        Status::Unhealthy,
        "; /health/live may turn red for it again at 2026-01-01T00:10:00Z",
    );
    let ladder = story.view().ladder.clone().unwrap();
    assert_eq!((ladder.rung, ladder.escalates_again.is_some(), ladder.next.is_some()), (Rung::Quarantine, true, true));
    // It begins at 180 s; nothing succeeds until 600 s.
    story.pass(419 * SECOND);
    assert!(!story.view().escalates);
    story.pass(2 * SECOND);
    assert!(story.view().escalates, "it is still Unhealthy, and the time is over");
    assert_eq!(story.escalated(), 2);
}

#[test]
fn another_artifact_owes_nothing_and_a_remembered_escalation_counts() {
    let mut story = Story::of(ESCALATING);
    story.end(TRANSIENT);
    assert!(story.view().escalates);
    story.load(2, false, &[]);
    assert!(!story.view().escalates);
    story.pass(60 * SECOND);
    story.end(TRANSIENT);
    assert!(story.view().escalates, "the other artifact has not escalated yet");

    // How long ago a host before this one remembers it, for which artifact, and whether this one may be red at once.
    let cases = [(0, 1, false), (300, 1, false), (599, 1, false), (600, 1, true), (0, 2, true), (-7_200, 1, false)];
    for (ago_s, digest, is_red) in cases {
        let mut story = Story::loading(ESCALATING);
        let at = story.now.wall - jiff::SignedDuration::from_secs(ago_s);
        let plugin = PluginName::new("p").unwrap();
        story.supervisor.remember([Escalated { plugin, digest: Digest([digest; 32]), at }]);
        story.load(1, false, &[]);
        story.end(TRANSIENT);
        assert_eq!(story.view().escalates, is_red, "{ago_s} s ago");
        if ago_s == 300 {
            story.stands(State::Active, Status::Unhealthy, "may turn red for it again at 2026-01-01T00:05:00Z");
        }
        // However the clocks were set, ten minutes are enough.
        story.pass(601 * SECOND);
        assert!(story.view().escalates, "{ago_s} s ago");
    }
}

#[test]
fn a_suspended_or_draining_host_escalates_nothing() {
    let mut story = Story::of(ESCALATING);
    story.tell(Event::Drain);
    story.end(TRANSIENT);
    assert_eq!(story.escalated(), 0);
}

#[test]
fn three_kills_that_protect_the_host_quarantine_and_end_the_retries() {
    let largest = Outcome::OutOfMemory(MemoryLimit::LargestHolder);
    for outcome in [Outcome::OutOfCpu, largest] {
        let mut story = Story::of("every: 1h, health: { failureThreshold: 3 }");
        for _ in 0..2 {
            story.end(outcome.clone());
            assert_eq!(story.rung(), Some(Rung::Retry));
            story.pass(10 * SECOND);
        }
        story.end(outcome.clone());
        story.stands(
            State::Quarantined,
            Status::Unhealthy,
            "in quarantine after 3 kills that protect the host, trial run at",
        );
        assert_eq!(story.rung(), Some(Rung::Quarantine));
        story.pass(50 * SECOND);
        assert!(story.started.is_empty(), "no further attempt");
        story.pass(10 * SECOND);
        story.end(Outcome::Succeeded);
        story.stands(State::Active, Status::Healthy, "succeeded");
    }
    // Each of these says something of the job, and none that the host had to be protected.
    let own = [
        Outcome::OutOfFuel,
        Outcome::Trapped,
        Outcome::OutOfMemory(MemoryLimit::Plugin),
        Outcome::OutOfMemory(MemoryLimit::Host),
        Outcome::DeadlineExceeded { starved: false },
    ];
    for outcome in own {
        let mut story = Story::of("every: 1h");
        for _ in 0..4 {
            story.end(outcome.clone());
            story.pass(15 * SECOND);
        }
        assert_eq!(story.view().state, State::Active, "{outcome:?}");
    }
    let mut story = Story::of("every: 1h, backoffLimit: 0, health: { quarantine: false }");
    for _ in 0..4 {
        story.end(Outcome::OutOfCpu);
        story.pass(3600 * SECOND);
    }
    assert_eq!(story.view().state, State::Active, "an operator said no");
}

#[test]
fn who_does_not_end_when_replaced_three_times_is_quarantined() {
    let mut story = Story::of("every: 1m, concurrencyPolicy: Replace");
    for kill in 1..=3 {
        story.begin();
        story.pass(65 * SECOND);
        assert_eq!(story.killed().len(), kill, "it was asked to, and five seconds are over");
        assert_eq!(story.view().state, State::Active);
        story.end(Outcome::Cancelled(CancelReason::Replaced));
    }
    story.stands(State::Quarantined, Status::Unhealthy, "3 kills that protect the host");
}

#[test]
fn every_rung_has_its_reason_and_the_next_steps_time() {
    let mut story = Story::of("every: 10m, backoffLimit: 1, health: { failureThreshold: 1 }");
    assert_eq!(story.rung(), None);
    story.end(TRANSIENT);
    let ladder = story.view().ladder.clone().unwrap();
    assert_eq!((ladder.rung, ladder.reason.as_str()), (Rung::Retry, "Failed: because"));
    assert!(ladder.next.is_some_and(|next| next > story.now.wall));
    story.pass(2 * SECOND);
    story.end(TRANSIENT);
    let ladder = story.view().ladder.clone().unwrap();
    assert_eq!(
        (ladder.rung, ladder.reason.as_str(), ladder.next),
        (Rung::NextRun, "Failed: because", story.view().next_run)
    );
    story.pass(600 * SECOND);
    story.end(TRANSIENT);
    story.pass(3 * SECOND);
    story.end(TRANSIENT);
    let ladder = story.view().ladder.clone().unwrap();
    assert_eq!((ladder.rung, ladder.reason.as_str()), (Rung::Quarantine, "2 failed runs; Failed: because"));
    assert_eq!(ladder.next, Some(story.now.wall + 60 * SECOND));
    assert_eq!(Rung::ALL.len(), 4);
}
