//! Versions: candidates, switches, probation, rollback, removal.

use super::*;
use crate::event::{Entry, Hand};
use crate::health::Stage;

impl Story {
    fn live(&mut self) -> u32 {
        self.view().version.clone().unwrap().number.0
    }

    fn hand(&mut self, hand: Hand) -> Result<String, String> {
        let first = self.actions.len();
        let done = self.supervisor.by_hand("p", hand, self.now, &mut self.actions);
        self.collect(first);
        done
    }

    fn says(&mut self, of: u8, status: Status) {
        let report = Report { status, description: "words".to_owned(), data: Vec::new() };
        let (plugin, digest) = (self.plugin, Digest([of; 32]));
        self.tell(Event::Checked { plugin, digest, result: Ok(report) });
    }

    fn retired(&self, of: u8) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Retire { digest, .. } if *digest == Digest([of; 32])))
    }

    fn stages(&mut self, of: u8) -> Vec<Stage> {
        let view = self.view();
        let record = view.versions.iter().find(|record| record.digest == Digest([of; 32])).unwrap();
        record.history.iter().map(|(_, stage, _)| *stage).collect()
    }
}

#[test]
fn a_swap_does_not_disturb_the_schedule_and_runs_in_flight_end_on_the_old_version() {
    let mut story = Story::of("every: 10s, backoffLimit: 0, concurrencyPolicy: Allow");
    story.begin();
    story.pass(4 * SECOND);
    story.load(2, false, &[]);
    assert_eq!((story.live(), story.started.len()), (2, 1), "nothing starts for a swap");
    story.pass(6 * SECOND);
    let versions: Vec<_> = story.started.iter().map(|start| start.version.0).collect();
    assert_eq!(versions, [1, 2], "the due time is kept, on the new version");
    assert!(!story.retired(1), "it still runs");
    story.end(Outcome::Trapped);
    assert_eq!(story.view().failures_in_row, 0, "what the old version does is not held against the new one");
    story.stands(State::Active, Status::Healthy, "");
    assert!(!story.retired(1), "the last good version is kept while the new one is watched");
}

#[test]
fn after_its_probation_a_version_is_proven_and_older_ones_are_freed() {
    let mut story = Story::of("every: 10s");
    story.end(Outcome::Succeeded);
    for version in [2, 3] {
        story.load(version, false, &[]);
        for _ in 0..3 {
            story.pass(10 * SECOND);
            story.end(Outcome::Succeeded);
        }
        assert_eq!(story.stages(version), [Stage::Live, Stage::Proven]);
    }
    assert!(story.retired(1) && !story.retired(2), "one is kept to go back to");
    assert_eq!(story.stages(1), [Stage::Live, Stage::Replaced, Stage::Freed]);
    assert_eq!(story.hand(Hand::Rollback).unwrap(), "version 2 took over from version 3");
    assert_eq!(story.live(), 2);
    story.load(3, false, &[]);
    assert_eq!(story.live(), 2, "the file is still the one that was rolled back");
    story.stands(State::Active, Status::Degraded, "by hand");
    assert!(story.hand(Hand::Rollback).unwrap_err().contains("no older version"));
    story.hand(Hand::Swap).unwrap();
    assert!(story.actions.iter().any(|action| matches!(action, Action::Reload { .. })));
    story.load(3, false, &[]);
    assert_eq!(story.live(), 3, "an artifact keeps its number");
}

#[test]
fn a_version_that_breaks_is_rolled_back_and_not_tried_again_until_the_file_changes() {
    for outcome in [Outcome::Trapped, Outcome::OutOfFuel, Outcome::Failed(Failure::Permanent), Outcome::Denied] {
        let mut story = Story::of("every: 10s, backoffLimit: 0");
        story.end(Outcome::Succeeded);
        story.load(2, false, &[]);
        story.pass(10 * SECOND);
        story.end(outcome.clone());
        assert_eq!(story.live(), 1, "{outcome:?}");
        story.stands(State::Active, Status::Degraded, "version 2 (020202020202) was rolled back to version 1");
        assert!(story.stages(2).contains(&Stage::RolledBack) && story.retired(2));
        story.load(2, false, &[]);
        assert_eq!(story.live(), 1, "the same bytes are not tried again");
        story.pass(10 * SECOND);
        story.end(Outcome::Succeeded);
        story.stands(State::Active, Status::Degraded, "rolled back");
        story.load(3, false, &[]);
        assert_eq!(story.live(), 3);
        story.stands(State::Active, Status::Healthy, "");
    }
}

#[test]
fn what_the_predecessor_fails_at_as_well_is_no_reason_to_go_back() {
    let mut story = Story::of("every: 10s, backoffLimit: 0");
    story.end(Outcome::Failed(Failure::Permanent));
    story.load(2, false, &[]);
    for _ in 0..2 {
        story.pass(10 * SECOND);
        story.end(Outcome::Failed(Failure::Permanent));
        assert_eq!(story.live(), 2);
    }
    story.pass(10 * SECOND);
    story.end(Outcome::Trapped);
    assert_eq!(story.live(), 1, "a trap is something new");
}

#[test]
fn a_candidate_must_answer_its_own_check_well() {
    let mut story = Story::of("every: 10s");
    story.end(Outcome::Succeeded);
    story.load(2, true, &[]);
    assert_eq!(story.live(), 1);
    assert_eq!(story.view().candidate.as_deref(), Some("version 2 is asked for its health"));
    story.says(2, Status::Unhealthy);
    assert_eq!(story.live(), 1);
    story.stands(
        State::Active,
        Status::Degraded,
        "version 2 (020202020202) is refused, version 1 goes on: its health check says: words",
    );
    story.load(3, true, &[]);
    story.says(2, Status::Healthy);
    assert_eq!(story.live(), 1, "that was the other one's");
    story.says(3, Status::Degraded);
    assert_eq!(story.live(), 3, "Degraded is good enough to begin with");
    story.says(3, Status::Unhealthy);
    assert_eq!(story.live(), 1, "but Unhealthy within its probation is not");
}

#[test]
fn a_candidate_whose_check_starved_is_asked_again_and_not_blamed() {
    let mut story = Story::of("every: 10s");
    story.end(Outcome::Succeeded);
    story.load(2, true, &[]);
    let asked = |story: &Story| {
        let is_its_own =
            |action: &&Action| matches!(action, Action::Check { digest, .. } if *digest == Digest([2; 32]));
        story.actions.iter().filter(is_its_own).count()
    };
    for times in 1..=5 {
        assert_eq!(asked(&story), times);
        story.tell(Event::CheckStarved { plugin: story.plugin, digest: Digest([2; 32]) });
        story.stands(State::Active, Status::Healthy, "");
        assert_eq!(story.live(), 1);
    }
    story.tell(Event::CheckStarved { plugin: story.plugin, digest: Digest([3; 32]) });
    assert_eq!(asked(&story), 6, "that was another one's");
    story.says(2, Status::Healthy);
    assert_eq!(story.live(), 2);
}

#[test]
fn a_trial_run_must_succeed_before_the_switch() {
    let mut story = Story::of("every: 10s, trial: OneRun, backoffLimit: 0");
    story.begin();
    story.load(2, false, &[]);
    assert_eq!(story.started.len(), 1, "it waits for its turn");
    story.end(Outcome::Succeeded);
    assert_eq!(story.started[0].version.0, 2);
    story.end(Outcome::Trapped);
    assert_eq!(story.live(), 1);
    assert_eq!(story.view().failures_in_row, 0);
    story.stands(State::Active, Status::Degraded, "its trial run ended Trapped");
    story.load(3, false, &[]);
    story.end(Outcome::Cancelled(CancelReason::Requested));
    assert_eq!((story.live(), story.started.len()), (1, 1), "it told nothing: once more");
    story.end(Outcome::Succeeded);
    assert_eq!(story.live(), 3);
    assert_eq!(story.stages(3), [Stage::Trying, Stage::Live]);
    story.pass(10 * SECOND);
    assert_eq!(story.started.len(), 1, "the schedule goes on");
}

#[test]
fn who_asks_for_more_waits_for_a_persons_word() {
    let mut story = Story::of("every: 10s");
    story.end(Outcome::Succeeded);
    story.load(2, false, &["http https://example.com/*"]);
    assert_eq!(story.live(), 1);
    story.stands(State::AwaitingGrant, Status::Degraded, "http https://example.com/*");
    assert!(story.hand(Hand::Swap).unwrap().contains("version 2 is accepted"));
    assert_eq!(story.live(), 2);
    story.load(3, false, &["http https://example.com/*"]);
    assert_eq!(story.live(), 3, "it asks for nothing more");
    assert!(story.hand(Hand::Swap).unwrap_err().contains("nothing newer"));
}

#[test]
fn the_same_artifact_found_again_disturbs_nothing() {
    let mut story = Story::of("every: 1h, trial: OneRun, backoffLimit: 0");
    story.end(Outcome::Succeeded);
    story.load(2, false, &["more"]);
    let plugin = story.plugin;
    for _ in 0..2 {
        story.tell(Event::Found { plugin });
        story.stands(State::AwaitingGrant, Status::Degraded, "more");
        story.load(2, false, &["more"]);
    }
    story.hand(Hand::Swap).unwrap();
    assert_eq!(story.started.len(), 1);
    story.tell(Event::Found { plugin });
    story.load(2, false, &["more"]);
    assert_eq!(story.started.len(), 1, "its trial goes on");
    story.end(Outcome::Trapped);
    story.tell(Event::Found { plugin });
    story.stands(State::Active, Status::Degraded, "Trapped");
    story.load(2, false, &["more"]);
    story.stands(State::Active, Status::Degraded, "Trapped");
    assert!(story.started.is_empty());
}

#[test]
fn a_continuous_run_is_asked_to_make_way_and_the_new_version_starts_at_once() {
    let mut story = Story::of("continuous: true, probation: { seconds: 60 }");
    story.begin();
    story.load(2, false, &[]);
    assert!(matches!(story.actions[story.actions.len() - 2], Action::Ask { .. }), "{:?}", story.actions);
    story.pass(4 * SECOND);
    assert_eq!(story.started[0].version.0, 1, "it has its grace");
    story.end(Outcome::Succeeded);
    story.pass(Duration::ZERO);
    assert_eq!(story.started[0].version.0, 2);
    story.begin();
    story.pass(61 * SECOND);
    assert!(story.stages(2).contains(&Stage::Proven));

    story.load(3, false, &[]);
    story.pass(5 * SECOND);
    let killed = story.actions.iter().any(|action| matches!(action, Action::Kill { .. }));
    assert!(killed, "it did not make way in its grace");
    story.end(Outcome::Cancelled(CancelReason::Replaced));
    story.pass(Duration::ZERO);
    story.begin();
    story.end(Outcome::Trapped);
    assert_eq!(
        (story.live(), story.started[0].version.0),
        (2, 2),
        "a trap in its probation: the one before runs at once"
    );
}

#[test]
fn once_runs_once_for_each_artifact_also_after_a_rollback() {
    let mut story = Story::of("once: true, backoffLimit: 0");
    story.end(Outcome::Succeeded);
    story.load(2, false, &[]);
    story.end(Outcome::Trapped);
    assert_eq!((story.live(), story.started.len()), (1, 0), "version 1 has done its work");
}

#[test]
fn a_bad_file_or_entry_leaves_the_version_that_runs() {
    let mut story = Story::of("every: 10s");
    story.end(Outcome::Succeeded);
    let plugin = story.plugin;
    story.tell(Event::Refused { plugin, digest: Some(Digest([2; 32])), reason: "p.wasm: is truncated".to_owned() });
    story.stands(State::Active, Status::Degraded, "version 1 goes on: p.wasm: is truncated");
    story.pass(10 * SECOND);
    story.end(Outcome::Succeeded);
    story.load(1, false, &[]);
    story.stands(State::Active, Status::Healthy, "succeeded");
    let (name, source) = (PluginName::new("p").unwrap(), Arc::from("file:p.wasm"));
    story.tell(Event::Entry { plugin, name, source, entry: Entry::Refused("unknown key".to_owned()) });
    story.stands(State::Active, Status::Degraded, "unknown key");
}

#[test]
fn another_trigger_is_planned_anew_and_the_same_one_is_not_disturbed() {
    let mut story = Story::of("every: 1h");
    story.end(Outcome::Succeeded);
    let other = Story::loading("every: 10m, limits: { weight: 7 }").config;
    let same = Story::loading("every: 1h, limits: { weight: 7 }").config;
    let (plugin, digest) = (story.plugin, Digest([1; 32]));
    story.tell(Event::Reconfigured { plugin, digest, config: same });
    assert!(story.started.is_empty());
    story.tell(Event::Reconfigured { plugin, digest, config: other });
    story.end(Outcome::Succeeded);
    story.pass(600 * SECOND);
    assert_eq!(story.started.len(), 1);
}

#[test]
fn a_removed_plugin_drains_and_is_forgotten_and_may_come_back() {
    let mut story = Story::of("every: 10s");
    story.begin();
    let plugin = story.plugin;
    story.tell(Event::Removed { plugin });
    assert!(story.view().description.contains("its entry is gone"));
    story.pass(25 * SECOND);
    assert!(story.actions.iter().any(|action| matches!(action, Action::Kill { .. })), "the drain is over");
    story.end(Outcome::Cancelled(CancelReason::Removed));
    let now = story.now;
    assert!(story.supervisor.snapshot(now).plugins.is_empty() && story.supervisor.next_wakeup().is_none());
    assert!(matches!(story.actions.last(), Some(Action::Forget { .. })));

    let (name, source, entry) = (PluginName::new("p").unwrap(), "file:p".into(), Entry::Wanted(story.config.clone()));
    story.tell(Event::Entry { plugin, name, source, entry });
    story.load(1, false, &[]);
    assert_eq!(story.started.len(), 1);
}

#[test]
fn a_file_that_is_gone_ends_its_runs_and_one_that_comes_back_goes_on() {
    let mut story = Story::of("once: true");
    story.end(Outcome::Succeeded);
    let plugin = story.plugin;
    story.tell(Event::Vanished { plugin, reason: "p.wasm: the file is gone".to_owned() });
    story.stands(State::Refused, Status::Unhealthy, "the file is gone");
    assert!(story.retired(1));
    story.load(1, false, &[]);
    assert!(story.started.is_empty(), "the same artifact has run once");
    story.stands(State::Active, Status::Healthy, "succeeded");
}

#[test]
fn the_record_of_versions_is_bounded() {
    let mut story = Story::of("every: 10s");
    story.end(Outcome::Succeeded);
    for number in 2..60 {
        story.load(number, false, &[]);
    }
    let versions = story.view().versions.clone();
    assert_eq!(versions.len(), 10);
    assert_eq!(versions[0].number.unwrap().0, 59);
    let still = versions.iter().filter(|record| !matches!(record.history.last(), Some((_, Stage::Freed, _)))).count();
    assert_eq!(still, 2, "the live one, and the first, which nothing after it has proved better than");
}
