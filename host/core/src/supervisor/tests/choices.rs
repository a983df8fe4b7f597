//! What was chosen before a restart, and when it is still held to.

use super::*;
use crate::event::{Chosen, Hand};
use crate::health::Stage;
use crate::name::{PluginName, VersionNumber};

const ENTRY: &str = "every: 10s, backoffLimit: 0";

fn chosen(bad: Option<&str>) -> Chosen {
    Chosen {
        plugin: PluginName::new("p").unwrap(),
        runs: (Digest([1; 32]), Some(VersionNumber(4))),
        instead_of: (Digest([2; 32]), Some(VersionNumber(5))),
        bad: bad.map(str::to_owned),
    }
}

impl Story {
    /// What the next host would be given.
    fn remembered(&self) -> Option<Chosen> {
        self.actions.iter().rev().find_map(|action| match action {
            Action::Choice { chosen, .. } => Some(chosen.clone()),
            _ => None,
        })?
    }

    fn after_a_restart(chosen: Chosen) -> Story {
        let mut story = Story::loading(ENTRY);
        story.supervisor.remember_choices([chosen]);
        story
    }

    fn is_recalled(&self) -> usize {
        let is_it = |action: &&Action| matches!(action, Action::Recall { digest, .. } if *digest == Digest([1; 32]));
        self.actions.iter().filter(is_it).count()
    }

    fn recalled(&mut self, number: u8) {
        let (plugin, config) = (self.plugin, self.config.clone());
        let digest = Digest([number; 32]);
        let version = LoadedVersion { digest, author_version: None, has_check: false, wants: Arc::from([]) };
        self.tell(Event::Recalled { plugin, config, version: Arc::new(version) });
    }

    fn number(&mut self) -> u32 {
        self.view().version.clone().unwrap().number.0
    }
}

#[test]
fn what_is_decided_against_is_told_once_and_taken_back_when_it_runs() {
    let mut story = Story::of(ENTRY);
    story.load(2, false, &[]);
    assert_eq!(story.remembered(), None);
    story.supervisor.by_hand("p", Hand::Rollback, story.now, &mut story.actions).unwrap();
    let told = story.remembered().unwrap();
    assert_eq!((told.runs, told.instead_of.0), ((Digest([1; 32]), Some(VersionNumber(1))), Digest([2; 32])));
    assert!(told.bad.unwrap().contains("by hand"));
    story.load(2, false, &[]);
    let tellings = story.actions.iter().filter(|action| matches!(action, Action::Choice { .. })).count();
    assert_eq!(tellings, 1);
    story.supervisor.by_hand("p", Hand::Swap, story.now, &mut story.actions).unwrap();
    story.load(2, false, &[]);
    assert_eq!((story.number(), story.remembered()), (2, None), "the source decides again");
}

#[test]
fn one_that_breaks_and_one_that_awaits_a_grant_are_told_too() {
    let mut story = Story::of(ENTRY);
    story.load(2, false, &[]);
    story.end(Outcome::Succeeded);
    story.pass(Duration::from_secs(10));
    story.end(Outcome::Trapped);
    assert!(story.remembered().unwrap().bad.unwrap().contains("Trapped"));
    story.load(3, false, &["http"]);
    let told = story.remembered().unwrap();
    assert_eq!((told.instead_of.0, told.bad), (Digest([3; 32]), None));
}

#[test]
fn the_chosen_version_runs_for_as_long_as_its_source_holds_what_was_decided_against() {
    let mut story = Story::after_a_restart(chosen(Some("it broke")));
    story.load(2, false, &[]);
    assert_eq!((story.is_recalled(), story.started.len()), (1, 0), "nothing of the bad one runs");
    story.stands(State::Loading, Status::Degraded, "");
    story.recalled(1);
    assert_eq!((story.number(), story.started.len()), (4, 1), "with the number that it had");
    story.stands(State::Active, Status::Degraded, "it broke");
    assert!(!story.actions.iter().any(|action| matches!(action, Action::Choice { .. })), "nothing changed");
    story.load(2, false, &[]);
    assert_eq!(story.number(), 4, "and it is not tried again");
    story.load(3, false, &[]);
    assert_eq!((story.number(), story.remembered()), (6, None), "another artifact is a newer decision");
}

#[test]
fn another_artifact_in_the_source_ends_the_choice() {
    let mut story = Story::after_a_restart(chosen(Some("it broke")));
    story.load(3, false, &[]);
    assert_eq!((story.number(), story.is_recalled()), (1, 0));
    assert!(
        matches!(
            story.actions.iter().rev().find(|action| matches!(action, Action::Choice { .. })),
            Some(Action::Choice { chosen: None, .. })
        ),
        "it is forgotten"
    );
    story.recalled(1);
    assert_eq!(story.number(), 1, "what comes too late changes nothing");
    assert!(story.actions.iter().any(|action| matches!(action, Action::Retire { digest, .. } if digest.0 == [1; 32])));
}

#[test]
fn a_source_that_is_back_at_the_chosen_version_runs_it_and_the_bad_one_stays_bad() {
    let mut story = Story::after_a_restart(chosen(Some("it broke")));
    story.load(1, false, &[]);
    assert_eq!((story.number(), story.is_recalled()), (4, 0));
    story.stands(State::Active, Status::Healthy, "");
    story.load(2, false, &[]);
    assert_eq!(story.number(), 4);
    story.stands(State::Active, Status::Degraded, "it broke");
}

#[test]
fn what_cannot_be_had_any_more_leaves_it_to_the_source() {
    let mut story = Story::after_a_restart(chosen(Some("it broke")));
    story.load(2, false, &[]);
    let plugin = story.plugin;
    story.tell(Event::NotRecalled { plugin, digest: Digest([1; 32]), reason: "its bytes are gone".to_owned() });
    assert_eq!((story.number(), story.started.len()), (5, 1));
    let view = story.view();
    let record = view.versions.iter().find(|record| record.digest == Digest([1; 32])).unwrap();
    assert!(
        record.history.iter().any(|(_, stage, why)| *stage == Stage::Refused && why.contains("its bytes are gone"))
    );
    assert_eq!(story.remembered(), None);
}

#[test]
fn what_comes_while_it_is_recalled() {
    // The same once more: asked again. Another: that one runs.
    let mut story = Story::after_a_restart(chosen(None));
    story.load(2, false, &["http"]);
    story.load(2, false, &["http"]);
    assert_eq!(story.is_recalled(), 2);
    story.recalled(1);
    story.stands(State::AwaitingGrant, Status::Degraded, "http");
    let mut story = Story::after_a_restart(chosen(None));
    story.load(2, false, &[]);
    story.load(3, false, &[]);
    story.recalled(1);
    assert_eq!(story.number(), 6);
    // A file that is no good: the chosen one runs, and it is said.
    let mut story = Story::after_a_restart(chosen(Some("it broke")));
    story.load(2, false, &[]);
    let plugin = story.plugin;
    story.tell(Event::Refused { plugin, digest: None, reason: "garbage".to_owned() });
    story.recalled(1);
    assert_eq!(story.number(), 4);
    story.stands(State::Active, Status::Degraded, "garbage");
    // The file is gone: so is the choice.
    let mut story = Story::after_a_restart(chosen(Some("it broke")));
    story.load(2, false, &[]);
    let plugin = story.plugin;
    story.tell(Event::Vanished { plugin, reason: "gone".to_owned() });
    story.recalled(1);
    assert_eq!((story.view().version.clone(), story.remembered()), (None, None));
}

#[test]
fn a_candidates_check_is_not_asked_again_in_a_drain() {
    let mut story = Story::of(ENTRY);
    story.load(2, true, &[]);
    let checks = |story: &Story| story.actions.iter().filter(|action| matches!(action, Action::Check { .. })).count();
    let (plugin, digest) = (story.plugin, Digest([2; 32]));
    story.tell(Event::CheckStarved { plugin, digest });
    assert_eq!(checks(&story), 2);
    story.tell(Event::Drain);
    story.tell(Event::CheckStarved { plugin, digest });
    assert_eq!(checks(&story), 2);
}
