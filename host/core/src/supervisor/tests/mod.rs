//! Plugins' lives, told step by step.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may stop here"
)]

mod choices;
mod ladder;
mod swaps;
mod verdicts;

use super::*;
use crate::config::{Config, resolve};
use crate::event::{LoadedVersion, Note, Payload, Start};
use crate::health::{Report, State};
use crate::name::Digest;
use crate::outcome::{CancelReason, Ended, Failure, Outcome, SkipReason, Usage};

/// A host with one plugin, and a clock that jumps.
struct Story {
    supervisor: Supervisor,
    plugin: PluginId,
    config: Arc<Plugin>,
    now: Now,
    /// What was started and has not ended.
    started: Vec<Start>,
    actions: Vec<Action>,
}

impl Story {
    fn of(entry: &str) -> Story {
        Story::loaded(entry, false)
    }

    fn loaded(entry: &str, has_check: bool) -> Story {
        let mut story = Story::loading(entry);
        let plugin = story.plugin;
        story.tell(Event::Loading { plugin });
        story.load(1, has_check, &[]);
        story
    }

    /// A version has been compiled; `number` stands for its bytes.
    fn load(&mut self, number: u8, has_check: bool, wants: &[&str]) {
        let (plugin, config) = (self.plugin, self.config.clone());
        let wants = wants.iter().map(|want| (*want).to_owned()).collect();
        let version = Arc::new(LoadedVersion { digest: Digest([number; 32]), author_version: None, has_check, wants });
        self.tell(Event::Loaded { plugin, config, version });
    }

    fn loading(entry: &str) -> Story {
        let config = Config::from_yaml(&format!("plugins:\n  p: {{ source: file:p.wasm, {entry} }}\n")).unwrap();
        let (name, layer) = config.plugins.into_iter().next().unwrap();
        let plugin = Arc::new(resolve(&name, None, &config.defaults, &layer.unwrap()).unwrap());
        let now = Now { mono: Mono::from_start(Duration::from_secs(1)), wall: "2026-01-01T00:00:00Z".parse().unwrap() };
        let mut supervisor = Supervisor::new(7, Duration::from_secs(25), now);
        let config = plugin.clone();
        let plugin = supervisor.add(plugin, now);
        Story { supervisor, plugin, config, now, started: Vec::new(), actions: Vec::new() }
    }

    fn tell(&mut self, event: Event) {
        let first = self.actions.len();
        self.supervisor.step(event, self.now, &mut self.actions);
        self.collect(first);
    }

    fn collect(&mut self, first: usize) {
        for action in self.actions.iter().skip(first) {
            if let Action::Start(start) = action {
                self.started.push(start.clone());
            }
        }
    }

    /// Lets time pass, stopping at each wake-up on the way.
    fn pass(&mut self, by: Duration) {
        let until = self.now.mono + by;
        while let Some(at) = self.supervisor.next_wakeup().filter(|at| *at <= until) {
            self.jump(at.since(self.now.mono));
            let first = self.actions.len();
            self.supervisor.tick(self.now, &mut self.actions);
            self.collect(first);
            assert!(self.supervisor.next_wakeup().is_none_or(|next| next > self.now.mono), "a busy loop");
        }
        self.jump(until.since(self.now.mono));
    }

    fn jump(&mut self, by: Duration) {
        self.now.mono = self.now.mono + by;
        self.now.wall += by;
    }

    fn begin(&mut self) -> Start {
        let start = self.started.last().expect("a start").clone();
        self.tell(Event::Started { run: start.run });
        start
    }

    /// Ends the oldest attempt in progress.
    fn end(&mut self, outcome: Outcome) {
        let start = self.started.remove(0);
        let usage = Usage { elapsed: Duration::from_millis(10), ..Usage::default() };
        self.end_with(start.run, outcome, usage);
    }

    fn end_with(&mut self, run: RunId, outcome: Outcome, usage: Usage) {
        self.started.retain(|start| start.run != run);
        let ended = Ended { outcome, reason: "because".to_owned(), refusals: Vec::new(), exit_code: None, usage };
        self.tell(Event::Ended { run, ended });
    }

    fn view(&mut self) -> Arc<PluginView> {
        self.supervisor.snapshot(self.now).plugin("p").unwrap().clone()
    }

    fn stands(&mut self, state: State, status: Status, description: &str) {
        let view = self.view();
        let facts = &self.supervisor.plugins[&self.plugin];
        let is_well = (state, status) == (State::Active, Status::Healthy);
        assert_eq!(facts.is_plainly_well(self.now), is_well, "the short way must say the same: {}", view.description);
        assert_eq!((view.state, view.status), (state, status), "{}", view.description);
        assert!(view.description.contains(description), "{:?} lacks {description:?}", view.description);
    }

    fn skipped(&self, reason: SkipReason) -> usize {
        let is_it =
            |action: &&Action| matches!(action, Action::Note(Note::Skipped { reason: found, .. }) if *found == reason);
        self.actions.iter().filter(is_it).count()
    }

    fn killed(&self) -> Vec<(RunId, Outcome)> {
        let kills = self.actions.iter().filter_map(|action| match action {
            Action::Kill { run, outcome, .. } => Some((*run, outcome.clone())),
            _ => None,
        });
        kills.collect()
    }
}

const TRANSIENT: Outcome = Outcome::Failed(Failure::Transient { retry_after: None });
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_runs_from_start_to_start_and_makes_up_for_nothing() {
    let mut story = Story::of("every: 10s");
    assert_eq!(story.started.len(), 1, "the first run is due at once");
    story.end(Outcome::Succeeded);
    story.pass(10 * SECOND);
    assert_eq!(story.started.len(), 1);
    story.end(Outcome::Succeeded);
    // The host is stopped for 35 s and then goes on: one start, the others are told, and the phase is kept.
    story.jump(35 * SECOND);
    let first = story.actions.len();
    story.supervisor.tick(story.now, &mut story.actions);
    story.collect(first);
    assert_eq!(story.started.len(), 1);
    let missed = story.actions.iter().find_map(|action| match action {
        Action::Note(Note::Skipped { times, reason, .. }) => Some((*times, *reason)),
        _ => None,
    });
    assert_eq!(missed, Some((2, SkipReason::HostDown)), "30 and 40 s: the one at 20 is made up for");
    assert_eq!(story.view().totals.skipped[&SkipReason::HostDown], 2);
    story.end(Outcome::Succeeded);
    story.pass(5 * SECOND);
    assert_eq!(story.started.len(), 1, "at 50 s, as ever");
}

#[test]
fn a_start_that_comes_while_one_runs_is_skipped_under_forbid() {
    let mut story = Story::of("every: 10s");
    story.begin();
    story.pass(25 * SECOND);
    assert_eq!((story.started.len(), story.skipped(SkipReason::StillRunning)), (1, 2));
    story.stands(State::Active, Status::Healthy, "running since 2026-01-01T00:00:00Z");
}

#[test]
fn allow_runs_up_to_max_concurrent() {
    let mut story = Story::of("every: 10s, concurrencyPolicy: Allow, maxConcurrent: 2");
    story.pass(25 * SECOND);
    assert_eq!((story.started.len(), story.skipped(SkipReason::StillRunning)), (2, 1));
}

#[test]
fn replace_asks_then_kills_then_starts() {
    let mut story = Story::of("every: 10s, concurrencyPolicy: Replace");
    let old = story.begin().run;
    story.pass(10 * SECOND);
    assert!(story.actions.iter().any(|action| matches!(action, Action::Ask { run } if *run == old)));
    assert_eq!((story.started.len(), story.killed().len()), (1, 0));
    story.pass(5 * SECOND);
    assert_eq!(story.killed(), [(old, Outcome::Cancelled(CancelReason::Replaced))]);
    story.end(Outcome::Cancelled(CancelReason::Replaced));
    assert_eq!(story.started.len(), 1);
    assert_ne!(story.started[0].run, old);
    story.end(Outcome::Succeeded);
    story.stands(State::Active, Status::Healthy, "last run succeeded");
}

#[test]
fn attempts_are_retried_with_pauses_and_then_the_run_has_failed() {
    let mut story = Story::of("every: 1h, backoffLimit: 2");
    let run = story.begin().run;
    story.end(TRANSIENT);
    story.stands(State::Active, Status::Degraded, "attempt 2 of 3 at");
    assert!(story.started.is_empty());
    story.pass(2 * SECOND);
    assert_eq!((story.started[0].run, story.started[0].attempt), (run, 2));
    story.end(Outcome::Trapped);
    story.pass(3 * SECOND);
    assert_eq!(story.started[0].attempt, 3);
    story.end(TRANSIENT);
    story.stands(State::Active, Status::Degraded, "1 failed run in a row: Failed, because");
    let view = story.view();
    assert_eq!((view.failures_in_row, view.last_runs.len(), view.last_runs[0].attempts), (1, 1, 3));
    assert_eq!(view.totals.runs["Failed"], 1);
}

#[test]
fn a_permanent_failure_is_not_retried_and_retry_after_is_kept_within_bounds() {
    let mut story = Story::of("every: 2h, activeDeadlineSeconds: 10000");
    story.end(Outcome::Failed(Failure::Permanent));
    assert_eq!(story.view().last_runs.len(), 1);
    story.pass(7200 * SECOND);
    story.end(Outcome::Failed(Failure::Transient { retry_after: Some(Duration::from_secs(90_000)) }));
    story.pass(3599 * SECOND);
    assert!(story.started.is_empty());
    story.pass(SECOND);
    assert_eq!(story.started[0].attempt, 2);
}

#[test]
fn the_threshold_makes_it_unhealthy_and_a_success_well_again() {
    let mut story = Story::of("every: 1m, backoffLimit: 0, health: { failureThreshold: 2 }");
    story.end(TRANSIENT);
    story.stands(State::Active, Status::Degraded, "1 failed run");
    story.pass(60 * SECOND);
    story.end(TRANSIENT);
    story.stands(State::Active, Status::Unhealthy, "2 failed runs in a row");
    assert!(!story.view().escalates, "only where an operator asked for it");
    story.pass(60 * SECOND);
    story.end(Outcome::Succeeded);
    story.stands(State::Active, Status::Healthy, "succeeded");
    assert!(story.view().exception.is_none());
}

#[test]
fn deadlines_count_from_the_first_slice_and_kill() {
    let mut story = Story::of("every: 1h, activeDeadlineSeconds: 30, attemptDeadlineSeconds: 20, backoffLimit: 5");
    story.pass(100 * SECOND);
    assert!(story.killed().is_empty(), "before its first slice a run waits");
    let run = story.begin().run;
    story.pass(20 * SECOND);
    assert_eq!(story.killed(), [(run, Outcome::DeadlineExceeded { starved: false })]);
    let usage = Usage { elapsed: 20 * SECOND, ..Usage::default() };
    story.end_with(run, Outcome::DeadlineExceeded { starved: false }, usage);
    story.pass(2 * SECOND);
    assert_eq!(story.begin().attempt, 2);
    story.pass(9 * SECOND);
    assert_eq!(story.killed().len(), 2, "the run's own 30 s are over before the attempt's 20 s");
    story.end_with(
        run,
        Outcome::DeadlineExceeded { starved: false },
        Usage { elapsed: 9 * SECOND, ..Usage::default() },
    );
    story.stands(State::Active, Status::Degraded, "DeadlineExceeded");
    assert!(story.started.is_empty());
}

#[test]
fn a_deadline_that_passed_for_want_of_a_lane_is_held_against_nobody() {
    let mut story = Story::of("every: 1h, activeDeadlineSeconds: 30");
    let run = story.begin().run;
    story.pass(30 * SECOND);
    let usage = Usage { elapsed: 30 * SECOND, starved: 16 * SECOND, ..Usage::default() };
    story.end_with(run, Outcome::DeadlineExceeded { starved: false }, usage);
    story.stands(State::Active, Status::Healthy, "DeadlineExceeded(Starved)");
    let host = story.supervisor.snapshot(story.now).host;
    assert_eq!(host.status, Status::Degraded);
    assert!(host.description.contains("1 runs starved"), "{}", host.description);
    story.pass(301 * SECOND);
    assert_eq!(story.supervisor.snapshot(story.now).host.status, Status::Healthy);
}

#[test]
fn the_starting_deadline_ends_a_run_that_never_began() {
    let mut story = Story::of("every: 1h, startingDeadlineSeconds: 10");
    let run = story.started[0].run;
    story.pass(10 * SECOND);
    assert_eq!(story.killed().len(), 1);
    story.end_with(run, Outcome::DeadlineExceeded { starved: true }, Usage::default());
    assert_eq!(story.skipped(SkipReason::DeadlineMissed), 1);
    assert!(story.view().last_runs.is_empty());
}

#[test]
fn continuous_restarts_with_growing_pauses_and_never_gives_up() {
    let mut story =
        Story::of("continuous: true, restartDelaySeconds: 3, health: { quarantine: false, maxSilenceSeconds: 10000 }");
    story.begin();
    story.end(Outcome::Succeeded);
    story.pass(2 * SECOND);
    assert!(story.started.is_empty());
    story.pass(SECOND);
    assert_eq!(story.started.len(), 1);
    for _ in 0..20 {
        story.end(Outcome::Trapped);
        story.pass(360 * SECOND);
        assert_eq!(story.started.len(), 1, "at the latest after five minutes and a fifth");
    }
    assert_eq!(story.view().status, Status::Unhealthy);
}

#[test]
fn once_runs_once_and_a_new_artifact_runs_again() {
    let mut story = Story::of("once: true, health: { maxSilenceSeconds: 5 }");
    story.end(Outcome::Succeeded);
    story.pass(86_400 * SECOND);
    assert!(story.started.is_empty());
    story.stands(State::Active, Status::Healthy, "succeeded");
    story.load(2, false, &[]);
    assert_eq!((story.started.len(), story.started[0].version.0), (1, 2));
}

#[test]
fn silence_counts_from_when_a_sign_was_due() {
    let mut story = Story::of("every: 10m, health: { maxSilenceSeconds: 100 }");
    story.begin();
    story.end(Outcome::Succeeded);
    story.pass(500 * SECOND);
    story.stands(State::Active, Status::Healthy, "succeeded");
    story.pass(100 * SECOND);
    story.begin();
    story.pass(100 * SECOND);
    story.stands(State::Active, Status::Unhealthy, "no sign of life for 1m40s");
    story.end(Outcome::Succeeded);
    story.stands(State::Active, Status::Healthy, "succeeded");

    let mut story = Story::of("continuous: true");
    let run = story.begin().run;
    story.pass(299 * SECOND);
    story.tell(Event::Progressed { run });
    story.pass(299 * SECOND);
    story.stands(State::Active, Status::Healthy, "running");
    story.pass(SECOND);
    story.stands(State::Active, Status::Unhealthy, "no sign of life for 5m");
}

#[test]
fn quarantine_pauses_with_one_trial_each_and_ends_with_a_success() {
    let mut story = Story::of("every: 20m, backoffLimit: 0, health: { failureThreshold: 1 }");
    story.end(TRANSIENT);
    story.pass(1200 * SECOND);
    story.end(TRANSIENT);
    story.stands(State::Quarantined, Status::Unhealthy, "in quarantine after 2 failed runs, trial run at");
    for pause in [60, 300, 900, 1200, 1200] {
        story.pass(Duration::from_secs(pause) - SECOND);
        assert!(story.started.is_empty(), "before {pause} s");
        story.pass(SECOND);
        assert_eq!(story.started.len(), 1, "one trial after {pause} s, and no longer than the period");
        story.end(TRANSIENT);
    }
    assert!(story.skipped(SkipReason::Quarantined) > 0);
    story.pass(1200 * SECOND);
    story.end(Outcome::Succeeded);
    story.stands(State::Active, Status::Healthy, "succeeded");
}

#[test]
fn suspended_is_healthy_and_skips() {
    let mut story = Story::of("every: 10s, suspend: true");
    story.pass(25 * SECOND);
    assert!(story.started.is_empty());
    assert_eq!(story.skipped(SkipReason::Suspended), 3);
    story.stands(State::Suspended, Status::Healthy, "suspended since 2026-01-01T00:00:00Z");
    assert!(story.view().next_run.is_none());
}

#[test]
fn starts_by_hand_wait_for_their_turn_up_to_a_bound() {
    let mut story = Story::of("backoffLimit: 0");
    let plugin = story.plugin;
    for _ in 0..1_002 {
        story.tell(Event::Triggered { plugin, payload: Payload::default() });
    }
    assert_eq!(story.started.len(), 1);
    assert!(
        story.actions.iter().any(|action| matches!(action, Action::Note(Note::TriggerRefused { waiting: 1_000, .. })))
    );
    for _ in 0..1_001 {
        story.end(Outcome::Succeeded);
    }
    assert!(story.started.is_empty());
    assert_eq!(story.view().totals.runs["Succeeded"], 1_001);
}

#[test]
fn its_own_words_stand_until_the_next_run_ends_and_change_once_a_second() {
    let say = |status, description: &str| Report {
        status,
        description: description.to_owned(),
        data: vec![("k".into(), "v".into())],
    };
    let mut story = Story::of("every: 1m");
    let run = story.begin().run;
    story.tell(Event::Reported { run, report: say(Status::Degraded, "slow") });
    story.stands(State::Active, Status::Degraded, "it says: slow");
    assert_eq!(story.view().data["k"], "v");
    story.tell(Event::Reported { run, report: say(Status::Healthy, "fine") });
    story.stands(State::Active, Status::Degraded, "slow");
    story.pass(SECOND);
    story.stands(State::Active, Status::Healthy, "fine");
    story.tell(Event::Reported { run, report: say(Status::Unhealthy, "bad") });
    story.pass(SECOND);
    story.stands(State::Active, Status::Unhealthy, "it says: bad");
    story.end(Outcome::Succeeded);
    story.stands(State::Active, Status::Unhealthy, "it says: bad");
    story.pass(60 * SECOND);
    story.begin();
    story.stands(State::Active, Status::Unhealthy, "it says: bad");
    story.end(Outcome::Succeeded);
    story.stands(State::Active, Status::Healthy, "succeeded");
}

#[test]
fn the_authors_check_is_called_after_load_after_runs_and_on_time() {
    let mut story = Story::loaded("every: 100s", true);
    let plugin = story.plugin;
    let checks = |story: &Story| story.actions.iter().filter(|action| matches!(action, Action::Check { .. })).count();
    assert_eq!(checks(&story), 1);
    let bad = Report { status: Status::Degraded, description: "queue is long".to_owned(), data: Vec::new() };
    story.tell(Event::Checked { plugin, digest: Digest([1; 32]), result: Ok(bad) });
    story.end(Outcome::Succeeded);
    assert_eq!(checks(&story), 2, "after the run");
    story.stands(State::Active, Status::Degraded, "its health check says: queue is long");
    story.tell(Event::Checked { plugin, digest: Digest([1; 32]), result: Err("Trapped: unreachable".to_owned()) });
    story.stands(State::Active, Status::Unhealthy, "its health check failed: Trapped");
    story.pass(30 * SECOND);
    assert_eq!(checks(&story), 3);
}

#[test]
fn a_long_wait_for_memory_is_shown_and_names_the_holder() {
    let mut story = Story::of("every: 10s");
    let run = story.started[0].run;
    let of = Some(crate::event::Starved::Memory { held_by: "hog (512Mi)".to_owned() });
    story.tell(Event::Starving { run, of });
    story.stands(State::Active, Status::Healthy, "waiting for memory");
    story.pass(60 * SECOND);
    story.stands(State::Active, Status::Degraded, "starved of memory since");
    assert!(story.view().description.contains("held by hog (512Mi)"));
    story.tell(Event::Starving { run, of: None });
    story.begin();
    story.stands(State::Active, Status::Healthy, "running");
}

#[test]
fn a_drain_starts_nothing_asks_all_and_kills_at_its_end() {
    let mut story = Story::of("every: 10s");
    let run = story.begin().run;
    story.tell(Event::Drain);
    assert!(story.actions.iter().any(|action| matches!(action, Action::Ask { run: asked } if *asked == run)));
    story.pass(24 * SECOND);
    assert!(story.killed().is_empty() && story.started.len() == 1 && !story.supervisor.is_idle());
    story.pass(SECOND);
    assert_eq!(story.killed(), [(run, Outcome::Cancelled(CancelReason::HostShutdown))]);
    story.end(Outcome::Cancelled(CancelReason::HostShutdown));
    assert!(story.supervisor.is_idle());
    let view = story.view();
    assert_eq!((view.failures_in_row, view.last_runs[0].outcome.label()), (0, "Cancelled(HostShutdown)"));
    story.pass(1000 * SECOND);
    assert!(story.started.is_empty());
}

#[test]
fn a_drain_ends_a_pause_between_attempts_at_once() {
    let mut story = Story::of("every: 1h");
    story.end(TRANSIENT);
    story.tell(Event::Drain);
    assert!(story.supervisor.is_idle());
    assert_eq!(story.view().last_runs[0].outcome.label(), "Cancelled(HostShutdown)");
}

#[test]
fn loading_says_how_far_it_is_and_ignored_files_are_only_listed() {
    let mut story = Story::loading("every: 1m");
    story.stands(State::Loading, Status::Degraded, "waiting");
    let plugin = story.plugin;
    story.tell(Event::Loading { plugin });
    story.stands(State::Loading, Status::Degraded, "compiling, 1 of 1");
    let now = story.now;
    let refused = Entry::Refused("its entry is no good".to_owned());
    for (number, name, entry) in [(7, "a-file", Entry::Ignored), (9, "z", refused)] {
        let (name, source) = (PluginName::new(name).unwrap(), Arc::from("file:it"));
        story.tell(Event::Entry { plugin: PluginId(number), name, source, entry });
    }
    let snapshot = story.supervisor.snapshot(now);
    let names: Vec<_> = snapshot.plugins.iter().map(|view| (view.name.as_str(), view.state)).collect();
    assert_eq!(names, [("a-file", State::Ignored), ("p", State::Loading), ("z", State::Refused)]);
    assert!(!snapshot.all_loaded());
}

#[test]
fn what_is_late_or_unknown_is_ignored() {
    let mut story = Story::of("every: 1m");
    let run = story.started[0].run;
    story.end(Outcome::Succeeded);
    let before = story.view();
    story.tell(Event::Started { run });
    story.tell(Event::Progressed { run: RunId(999) });
    let ended = Ended {
        outcome: Outcome::Trapped,
        reason: String::new(),
        refusals: Vec::new(),
        exit_code: None,
        usage: Usage::default(),
    };
    story.tell(Event::Ended { run, ended });
    story.tell(Event::Loading { plugin: PluginId(77) });
    let after = story.view();
    assert_eq!((before.last_runs.len(), before.status), (after.last_runs.len(), after.status));
}

#[test]
fn a_jump_of_the_wall_clock_moves_no_start_and_no_deadline() {
    let mut story = Story::of("every: 10s, activeDeadlineSeconds: 60");
    story.begin();
    story.now.wall += Duration::from_secs(3600);
    story.pass(5 * SECOND);
    assert!(story.killed().is_empty());
    story.end(Outcome::Succeeded);
    story.now.wall -= Duration::from_secs(7200);
    story.pass(5 * SECOND);
    assert_eq!(story.started.len(), 1);
}
