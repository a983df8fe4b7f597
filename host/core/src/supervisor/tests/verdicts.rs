//! Verdicts on runs in progress, starvation that is held against nobody, and what the log is told.

use super::*;
use crate::event::Sample;
use crate::health::Progress;
use crate::verdict::{Budget, HostCall, Lack, Verdict};

/// Where the time of one second of a run goes.
#[derive(Clone, Copy)]
enum Second {
    Computes,
    Sleeps,
    /// With one short slice.
    Queues,
    /// Without any.
    Starves,
}

/// A run that is sampled once a second.
struct Sampled {
    story: Story,
    run: RunId,
    sample: Sample,
}

impl Sampled {
    fn of(entry: &str) -> Sampled {
        let mut story = Story::of(entry);
        let run = story.begin().run;
        Sampled { story, run, sample: Sample::default() }
    }

    fn lives(&mut self, second: Second) -> Option<Verdict> {
        let ms = Duration::from_millis;
        self.story.pass(SECOND);
        let sample = &mut self.sample;
        sample.usage.elapsed += SECOND;
        (sample.is_queued, sample.in_call) = (false, None);
        match second {
            Second::Computes => sample.usage.cpu += ms(990),
            Second::Sleeps => {
                sample.usage.cpu += ms(1);
                sample.waiting += ms(999);
                (sample.call, sample.in_call) = (Some(HostCall::Clock), Some(ms(999)));
            }
            Second::Queues | Second::Starves => {
                sample.is_queued = true;
                sample.usage.starved += ms(999);
                if matches!(second, Second::Queues) {
                    sample.usage.cpu += ms(1);
                }
            }
        }
        self.story.tell(Event::Sampled { run: self.run, sample: Box::new(self.sample.clone()) });
        self.story.view().verdict
    }

    fn told(&self) -> Vec<Verdict> {
        let notes = self.story.actions.iter().filter_map(|action| match action {
            Action::Note(Note::Verdict { to, .. }) => Some(*to),
            _ => None,
        });
        notes.collect()
    }
}

const CLOCK: Verdict = Verdict::Waiting(HostCall::Clock);
const LANES: Verdict = Verdict::Starved(Lack::Lanes);

#[test]
fn the_verdict_follows_where_the_time_goes() {
    let mut run = Sampled::of("every: 1h");
    assert_eq!(run.story.view().verdict, None, "nothing has been measured yet");
    assert_eq!(run.lives(Second::Computes), Some(Verdict::Computing));
    run.story.stands(State::Active, Status::Healthy, "computing since 2026-01-01T00:00:00Z, 0s of CPU time");
    for _ in 0..5 {
        run.lives(Second::Sleeps);
    }
    assert_eq!(run.story.view().verdict, Some(CLOCK));
    run.story.stands(
        State::Active,
        Status::Healthy,
        "waiting in wasi:clocks/monotonic-clock since 2026-01-01T00:00:05Z",
    );
    for _ in 0..5 {
        run.lives(Second::Queues);
    }
    run.story.stands(State::Active, Status::Healthy, "queued for a lane most of the time since");
    assert_eq!(run.story.view().verdict, Some(LANES));
}

#[test]
fn a_lane_that_the_kernel_gives_no_cpu_to_is_computing_and_not_waiting() {
    let mut run = Sampled::of("every: 1h");
    run.sample.usage.cpu = Duration::from_millis(1);
    for _ in 0..3 {
        run.story.pass(SECOND);
        run.sample.usage.elapsed += SECOND;
        run.sample.usage.cpu += Duration::from_millis(20);
        run.story.tell(Event::Sampled { run: run.run, sample: Box::new(run.sample.clone()) });
        assert_eq!(run.story.view().verdict, Some(Verdict::Computing));
    }
}

#[test]
fn budgets_deadlines_and_silence_are_seen_coming() {
    let mut run = Sampled::of("every: 1h, limits: { fuel: 1000 }");
    run.sample.usage.fuel = 899;
    assert_eq!(run.lives(Second::Computes), Some(Verdict::Computing));
    run.sample.usage.fuel = 900;
    assert_eq!(run.lives(Second::Computes), Some(Verdict::NearBudget(Budget::Fuel)));
    run.story.stands(State::Active, Status::Healthy, "near its budget: 900 of limits.fuel 1000 burnt; it computes");

    let mut run = Sampled::of("every: 1h, limits: { cpuSeconds: 3 }");
    let verdicts: Vec<_> = (0..3).filter_map(|_| run.lives(Second::Computes)).collect();
    assert_eq!(verdicts, [Verdict::Computing, Verdict::Computing, Verdict::NearBudget(Budget::Cpu)]);

    let mut run = Sampled::of("every: 1h, activeDeadlineSeconds: 20");
    for _ in 0..17 {
        assert_eq!(run.lives(Second::Sleeps), Some(CLOCK));
    }
    assert_eq!(run.lives(Second::Sleeps), Some(Verdict::NearDeadline));
    let words = "near its deadline: activeDeadlineSeconds passes in 2s; it waits in wasi:clocks/monotonic-clock";
    run.story.stands(State::Active, Status::Healthy, words);
    assert_eq!(run.told(), [CLOCK, Verdict::NearDeadline], "at once, since someone may want to act");

    let mut run = Sampled::of("continuous: true, health: { maxSilenceSeconds: 10 }");
    for _ in 0..9 {
        assert_eq!(run.lives(Second::Computes), Some(Verdict::Computing));
    }
    assert_eq!(run.lives(Second::Computes), Some(Verdict::Silent));
    run.story.stands(State::Active, Status::Unhealthy, "no sign of life for 10s");
    let running = run.story.view().running[0].verdict.clone().unwrap().1;
    assert_eq!(running, "no sign of life since 2026-01-01T00:00:00Z; it computes");
    let progress = Progress { done: 3, total: 4, message: "three".to_owned() };
    run.sample.progress = Some((progress.clone(), Duration::from_millis(500)));
    run.story.tell(Event::Progressed { run: run.run });
    assert_eq!(run.lives(Second::Computes), Some(Verdict::Computing));
    assert_eq!(run.story.view().running[0].progress.as_ref().unwrap().0, progress);
}

#[test]
fn continuous_plugins_are_silent_after_five_minutes_unless_they_say_otherwise() {
    let mut run = Sampled::of("continuous: true");
    for _ in 0..299 {
        assert_eq!(run.lives(Second::Computes), Some(Verdict::Computing));
    }
    assert_eq!(run.lives(Second::Computes), Some(Verdict::Silent));
}

#[test]
fn the_log_hears_of_a_change_that_stands_and_not_of_every_turn() {
    let mut run = Sampled::of("continuous: true, health: { maxSilenceSeconds: 100000 }");
    for second in 0..600 {
        // Ten seconds of each in turn: the report follows, the log is told at most every half minute.
        run.lives(if second / 10 % 2 == 0 { Second::Computes } else { Second::Sleeps });
    }
    let told = run.told();
    assert!((2..=21).contains(&told.len()), "{told:?}");
    assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "each line is a change: {told:?}");
}

#[test]
fn a_run_without_a_slice_for_long_degrades_its_plugin_and_the_host_and_nothing_is_held_against_it() {
    let mut run = Sampled::of("every: 2m, activeDeadlineSeconds: 200");
    run.lives(Second::Computes);
    for _ in 0..119 {
        run.lives(Second::Starves);
    }
    assert_eq!(run.story.view().verdict, Some(LANES));
    run.story.stands(State::Active, Status::Healthy, "waiting for a lane since");
    run.lives(Second::Starves);
    run.story.stands(State::Active, Status::Degraded, "starved of lanes since 2026-01-01T00:00:01Z");
    let host = run.story.supervisor.snapshot(run.story.now).host;
    assert_eq!((host.status, host.description.as_str()), (Status::Degraded, "starved of lanes: p"));
    for _ in 0..79 {
        run.lives(Second::Starves);
    }
    assert_eq!(run.story.killed().len(), 1, "200 s from its first slice are over");
    let (id, usage) = (run.run, run.sample.usage);
    run.story.end_with(id, Outcome::DeadlineExceeded { starved: false }, usage);
    let view = run.story.view();
    assert_eq!((view.failures_in_row, view.ladder.clone()), (0, None), "nothing is held against it");
    assert_eq!(view.last_runs[0].outcome.label(), "DeadlineExceeded(Starved)");
}

#[test]
fn a_run_that_never_had_a_slice_is_starved_too() {
    let mut story = Story::of("every: 30s");
    let run = story.started[0].run;
    assert_eq!(story.view().verdict, Some(LANES));
    story.stands(State::Active, Status::Healthy, "waiting for a lane since 2026-01-01T00:00:00Z, lanes are full");
    for _ in 0..60 {
        story.pass(SECOND);
        story.tell(Event::Sampled { run, sample: Box::new(Sample { is_queued: true, ..Sample::default() }) });
    }
    story.stands(State::Active, Status::Degraded, "starved of lanes since 2026-01-01T00:00:00Z");
    story.begin();
    story.stands(State::Active, Status::Healthy, "running since");
    assert_eq!(story.supervisor.snapshot(story.now).host.status, Status::Healthy);
}

#[test]
fn a_retry_that_waits_past_the_deadline_for_its_first_slice_has_starved() {
    let mut story = Story::of("every: 1h, activeDeadlineSeconds: 30");
    let run = story.begin().run;
    story.end(TRANSIENT);
    story.pass(2 * SECOND);
    assert_eq!(story.started[0].attempt, 2);
    story.pass(28 * SECOND);
    assert_eq!(story.killed().len(), 1);
    story.end_with(run, Outcome::DeadlineExceeded { starved: false }, Usage::default());
    let view = story.view();
    assert_eq!((view.failures_in_row, view.last_runs[0].outcome.label()), (0, "DeadlineExceeded(Starved)"));
}

#[test]
fn waiting_for_memory_counts_at_the_host_as_well() {
    let mut story = Story::of("every: 10s");
    let run = story.started[0].run;
    let of = Some(crate::event::Starved::Memory { held_by: "hog (512Mi)".to_owned() });
    story.tell(Event::Starving { run, of });
    assert_eq!(story.view().verdict, Some(Verdict::Starved(Lack::Memory)));
    story.pass(60 * SECOND);
    let host = story.supervisor.snapshot(story.now).host;
    assert_eq!((host.status, host.description.as_str()), (Status::Degraded, "starved of memory: p"));
    story.tell(Event::Starving { run, of: None });
    assert_eq!(story.supervisor.snapshot(story.now).host.status, Status::Healthy);
}

#[test]
fn the_worst_of_its_runs_is_the_plugins() {
    let mut story = Story::of("every: 10s, concurrencyPolicy: Allow, maxConcurrent: 2");
    let first = story.begin().run;
    story.pass(10 * SECOND);
    let second = story.begin().run;
    let elapsed = Usage { elapsed: SECOND, cpu: SECOND, ..Usage::default() };
    story.tell(Event::Sampled { run: first, sample: Box::new(Sample { usage: elapsed, ..Sample::default() }) });
    assert_eq!(story.view().verdict, Some(Verdict::Computing));
    let starved = Usage { elapsed: SECOND, starved: SECOND, ..Usage::default() };
    let sample = Sample { usage: starved, is_queued: true, ..Sample::default() };
    story.tell(Event::Sampled { run: second, sample: Box::new(sample) });
    assert_eq!(story.view().verdict, Some(LANES));
}

#[test]
fn a_check_that_starved_says_nothing_and_is_called_again() {
    let mut story = Story::loaded("every: 100s", true);
    let plugin = story.plugin;
    let checks = |story: &Story| story.actions.iter().filter(|action| matches!(action, Action::Check { .. })).count();
    story.tell(Event::CheckStarved { plugin, digest: Digest([1; 32]) });
    assert_eq!((story.view().status, checks(&story)), (Status::Healthy, 1));
    story.pass(30 * SECOND);
    assert_eq!(checks(&story), 2);
    let bad = Report { status: Status::Degraded, description: "long".to_owned(), data: Vec::new() };
    story.tell(Event::Checked { plugin, digest: Digest([1; 32]), result: Ok(bad) });
    story.pass(30 * SECOND);
    story.tell(Event::CheckStarved { plugin, digest: Digest([1; 32]) });
    story.stands(State::Active, Status::Degraded, "long");
}
