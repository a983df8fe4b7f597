//! One plugin's life: what is due, what runs, what failed, and what that does to it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::fold::{self, Standing};
use super::run::{GRACE, Killed, Pending, Phase, Run};
use crate::backoff;
use crate::config::{Concurrency, Plugin, Trigger};
use crate::event::{Action, Event, LoadedVersion, Note, Payload, Start, TriggerKind};
use crate::health::{DURATION_BUCKETS_S, Report, RunView, Totals};
use crate::name::{PluginId, PluginName, RunId, VersionNumber};
use crate::outcome::{CancelReason, Ended, Failure, MemoryLimit, Outcome, SkipReason};
use crate::time::{Mono, Now, Timestamp};

/// How many starts by hand wait for their turn.
pub(super) const TRIGGERS_WAITING: usize = 1_000;

/// How many runs that ended are kept for the report.
const LAST_RUNS: usize = 10;

/// How often an attempt that starved is tried again without costing one.
const STARVED_ATTEMPTS: u32 = 10;

/// Failed runs of this long ago no longer count towards a quarantine.
const QUARANTINE_WINDOW: Duration = Duration::from_secs(3600);

/// The pauses of a quarantine, each with one trial run after it.
const QUARANTINE_PAUSES: [Duration; 4] =
    [Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(900), Duration::from_secs(3600)];

/// A continuous plugin that has not failed for so long begins its pauses anew.
const CONTINUOUS_FORGIVES: Duration = Duration::from_secs(600);

/// How often a guest's word on its own health is taken over.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Where it is in its life.
#[derive(Debug, Clone)]
pub(super) enum Life {
    /// `nth`: its place among those that began to be compiled.
    Loading {
        nth: Option<(usize, usize)>,
    },
    Ready(Version),
    Refused {
        reason: String,
    },
    Ignored,
}

#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) number: VersionNumber,
    pub(super) loaded: Arc<LoadedVersion>,
    pub(super) since: Timestamp,
}

/// Too many failed runs: pauses, with one trial run after each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quarantine {
    /// Which pause.
    step: usize,
    /// When the trial may begin; none while it goes on.
    pub(super) until: Option<Now>,
    /// How many failed runs brought it about.
    pub(super) failures: u32,
}

/// The author's own check.
#[derive(Debug, Default)]
struct Checking {
    in_flight: bool,
    next: Option<Mono>,
    last: Option<Result<Report, String>>,
}

/// What the guest says of itself.
#[derive(Debug, Default)]
struct SelfReport {
    shown: Option<Report>,
    taken: Option<Mono>,
    pending: Option<Report>,
}

/// What a machine may use while it acts.
pub(super) struct Context<'a> {
    pub(super) id: PluginId,
    pub(super) now: Now,
    pub(super) actions: &'a mut Vec<Action>,
    pub(super) shared: &'a mut Shared,
    /// Runs that are over.
    pub(super) gone: Vec<RunId>,
    /// A run starved past its deadline.
    pub(super) starved: bool,
}

#[derive(Debug)]
pub(super) struct PluginState {
    name: PluginName,
    source: Arc<str>,
    /// None for a plugin that can never run.
    config: Option<Arc<Plugin>>,
    life: Life,
    versions: u32,
    /// When the next run of its trigger is due.
    next_due: Option<Now>,
    runs: Vec<Run>,
    /// Starts by hand that wait for their turn, and the one that waits for the run it replaces.
    triggered: VecDeque<Pending>,
    replacing: Option<Pending>,
    once_done: bool,
    failures_in_row: u32,
    last_failure: Option<(Now, Outcome, String)>,
    failed_at: VecDeque<Mono>,
    quarantine: Option<Quarantine>,
    last_success: Option<Timestamp>,
    /// Since when a sign of life is due.
    sign_due: Option<Now>,
    checking: Checking,
    report: SelfReport,
    suspended_since: Timestamp,
    last_runs: VecDeque<RunView>,
    totals: Totals,
    wakeup: Option<Mono>,
    told: Standing,
    /// Where it stands in the report.
    pub(super) place: Option<usize>,
}

impl PluginState {
    pub(super) fn new(config: Arc<Plugin>, life: Life, now: Now) -> PluginState {
        let mut state = PluginState::nameplate(config.name.clone(), &config.source, life, now);
        state.config = Some(config);
        state.told = state.standing(now);
        state
    }

    pub(super) fn nameplate(name: PluginName, source: &str, life: Life, now: Now) -> PluginState {
        let mut state = PluginState {
            name,
            source: source.into(),
            config: None,
            life,
            versions: 0,
            next_due: None,
            runs: Vec::new(),
            triggered: VecDeque::new(),
            replacing: None,
            once_done: false,
            failures_in_row: 0,
            last_failure: None,
            failed_at: VecDeque::new(),
            quarantine: None,
            last_success: None,
            sign_due: None,
            checking: Checking::default(),
            report: SelfReport::default(),
            suspended_since: now.wall,
            last_runs: VecDeque::new(),
            totals: Totals::default(),
            wakeup: None,
            told: Standing::default(),
            place: None,
        };
        state.told = state.standing(now);
        state
    }

    pub(super) fn name(&self) -> &PluginName {
        &self.name
    }

    pub(super) fn reconfigure(&mut self, config: Arc<Plugin>, now: Now) {
        if config.suspend && !self.config.as_ref().is_some_and(|before| before.suspend) {
            self.suspended_since = now.wall;
        }
        self.source = config.source.as_str().into();
        self.config = Some(config);
    }

    pub(super) fn registered_wakeup(&self) -> Option<Mono> {
        self.wakeup
    }

    pub(super) fn register_wakeup(&mut self, at: Option<Mono>) {
        self.wakeup = at;
    }

    /// Takes in one event.
    pub(super) fn step(&mut self, event: Event, context: &mut Context<'_>) {
        match event {
            Event::Loading { .. } => {
                context.shared.began_loading += 1;
                if matches!(self.life, Life::Loading { .. }) {
                    self.life = Life::Loading { nth: Some((context.shared.began_loading, context.shared.to_load)) };
                }
            }
            Event::Loaded { version, .. } => self.loaded(version, context),
            Event::Refused { reason, .. } => {
                // A version that runs is not given up for a file that is no good.
                if !matches!(self.life, Life::Ready(_)) {
                    self.leave_loading(context);
                    self.life = Life::Refused { reason };
                }
            }
            Event::Checked { result, .. } => {
                self.checking.in_flight = false;
                self.checking.last = Some(result);
                self.checking.next = self.config.as_ref().map(|config| context.now.mono + config.health.check_every);
            }
            Event::Triggered { payload, .. } => self.triggered(payload, context),
            Event::Started { run } => {
                let now = context.now;
                if let Some(run) = self.run_mut(run)
                    && run.phase == Phase::Waiting
                {
                    run.phase = Phase::Running { since: now.mono };
                    run.began.get_or_insert(now);
                    run.starving = None;
                }
            }
            Event::Ended { run, ended } => self.ended(run, ended, context),
            Event::Reported { run, report } => {
                if self.run_mut(run).is_some() {
                    self.sign_of_life(context.now);
                    self.take_report(report, context.now.mono);
                }
            }
            Event::Progressed { run } => {
                if self.run_mut(run).is_some() {
                    self.sign_of_life(context.now);
                }
            }
            Event::Sampled { run, usage, memory_bytes } => {
                if let Some(run) = self.run_mut(run) {
                    run.usage = usage;
                    run.memory_bytes = memory_bytes;
                }
            }
            Event::Starving { run, of } => {
                let now = context.now;
                if let Some(run) = self.run_mut(run) {
                    run.starving = of.map(|of| (run.starving.as_ref().map_or(now, |(since, _)| *since), of));
                }
            }
            Event::HostFault { .. } | Event::Drain => {}
        }
    }

    /// Does what is due by now.
    pub(super) fn tick(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        if let Some(report) = self.report.pending.take() {
            self.take_report(report, now.mono);
        }
        self.end_late_runs(context);
        self.retry_paused(context);
        if context.shared.draining.is_some() {
            return;
        }
        if self.quarantine.and_then(|quarantine| quarantine.until).is_some_and(|until| until.mono <= now.mono) {
            self.begin_trial(context);
        }
        if self.next_due.is_some_and(|due| due.mono <= now.mono) {
            self.fall_due(context);
        }
        if self.checking.next.is_some_and(|at| at <= now.mono) {
            self.check(context);
        }
    }

    /// Starts nothing more, and asks what runs to end.
    pub(super) fn drain(&mut self, context: &mut Context<'_>) {
        self.next_due = None;
        self.triggered.clear();
        self.replacing = None;
        self.checking.next = None;
        if let Some(quarantine) = &mut self.quarantine {
            quarantine.until = None;
        }
        let (paused, going): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.runs).into_iter().partition(|run| matches!(run.phase, Phase::Pausing { .. }));
        self.runs = going;
        for run in paused {
            let ended = Ended {
                outcome: Outcome::Cancelled(CancelReason::HostShutdown),
                reason: "the host shut down before the next attempt".to_owned(),
                refusals: Vec::new(),
                exit_code: None,
                usage: run.usage,
            };
            self.record(run, ended, context);
        }
        for run in &mut self.runs {
            run.asked = Some((CancelReason::HostShutdown, context.shared.draining));
            context.actions.push(Action::Ask { run: run.id });
            context.actions.push(Action::Note(Note::Cancelling {
                plugin: self.name.clone(),
                run: run.id,
                reason: CancelReason::HostShutdown,
            }));
        }
    }

    /// The next moment at which [`PluginState::tick`] has something to do.
    pub(super) fn next_wakeup(&self, now: Now) -> Option<Mono> {
        let config = self.config.as_ref()?;
        let runs = self.runs.iter().flat_map(|run| {
            let deadline = run.deadline(config).map(|(at, _)| at);
            let retry = match run.phase {
                Phase::Pausing { until } => Some(until.mono),
                Phase::Waiting | Phase::Running { .. } => None,
            };
            [deadline, retry]
        });
        let report = self.report.pending.as_ref().and(self.report.taken).map(|taken| taken + REPORT_EVERY);
        let own = [
            self.next_due.map(|due| due.mono),
            self.quarantine.and_then(|quarantine| quarantine.until).map(|until| until.mono),
            self.checking.next,
            report,
            self.silent_at().filter(|at| *at > now.mono),
            self.starved_at().filter(|at| *at > now.mono),
        ];
        runs.chain(own).flatten().min()
    }

    fn loaded(&mut self, loaded: Arc<LoadedVersion>, context: &mut Context<'_>) {
        self.leave_loading(context);
        let Some(config) = self.config.clone() else { return };
        let is_new = match &self.life {
            Life::Ready(version) => version.loaded.digest != loaded.digest,
            Life::Loading { .. } | Life::Refused { .. } | Life::Ignored => true,
        };
        if is_new {
            self.versions += 1;
            self.failures_in_row = 0;
            self.last_failure = None;
            self.failed_at.clear();
            self.quarantine = None;
            self.once_done = false;
            self.report = SelfReport::default();
        }
        let has_check = loaded.has_check;
        self.life = Life::Ready(Version { number: VersionNumber(self.versions), loaded, since: context.now.wall });
        self.checking = Checking::default();
        if context.shared.draining.is_some() {
            return;
        }
        match config.trigger {
            Trigger::Every(_) | Trigger::Once | Trigger::Continuous { .. } => {
                let continues = matches!(config.trigger, Trigger::Continuous { .. }) && !self.runs.is_empty();
                if is_new && !continues {
                    self.next_due = Some(context.now);
                }
            }
            Trigger::Manual => self.next_due = None,
        }
        if has_check {
            self.check(context);
        }
        if self.next_due.is_some_and(|due| due.mono <= context.now.mono) {
            self.fall_due(context);
        }
    }

    fn leave_loading(&mut self, context: &mut Context<'_>) {
        if matches!(self.life, Life::Loading { .. }) {
            context.shared.loading = context.shared.loading.saturating_sub(1);
        }
    }

    fn run_mut(&mut self, id: RunId) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.id == id)
    }

    // What starts.

    /// The trigger's time has come.
    fn fall_due(&mut self, context: &mut Context<'_>) {
        let (Some(config), Some(due)) = (self.config.clone(), self.next_due.take()) else { return };
        let kind = match config.trigger {
            Trigger::Every(period) => {
                self.next_due = Some(next_of(due, period, context.now));
                TriggerKind::Every
            }
            Trigger::Once => TriggerKind::Once,
            Trigger::Continuous { .. } => TriggerKind::Continuous,
            Trigger::Manual => return,
        };
        self.start_or_skip(Pending { trigger: kind, due, payload: Payload::default() }, &config, context);
    }

    fn triggered(&mut self, payload: Payload, context: &mut Context<'_>) {
        if context.shared.draining.is_some() || !matches!(self.life, Life::Ready(_)) {
            return;
        }
        let Some(config) = self.config.clone() else { return };
        let pending = Pending { trigger: TriggerKind::Manual, due: context.now, payload };
        let blocked = match config.concurrency {
            Concurrency::Allow(most) => self.runs.len() >= most as usize,
            Concurrency::Forbid => !self.runs.is_empty(),
            Concurrency::Replace => false,
        };
        // By hand, a start waits for its turn where one of a schedule would be skipped: somebody wants it.
        if blocked && !config.suspend {
            if self.triggered.len() >= TRIGGERS_WAITING {
                let waiting = self.triggered.len();
                context.actions.push(Action::Note(Note::TriggerRefused { plugin: self.name.clone(), waiting }));
            } else {
                self.triggered.push_back(pending);
            }
            return;
        }
        self.start_or_skip(pending, &config, context);
    }

    fn start_or_skip(&mut self, pending: Pending, config: &Plugin, context: &mut Context<'_>) {
        if config.suspend {
            return self.skip(&pending, SkipReason::Suspended, context);
        }
        match self.quarantine {
            Some(Quarantine { until: Some(until), .. }) if until.mono > context.now.mono => {
                return self.skip(&pending, SkipReason::Quarantined, context);
            }
            Some(Quarantine { until: None, .. }) if !self.runs.is_empty() => {
                return self.skip(&pending, SkipReason::Quarantined, context);
            }
            Some(_) | None => {}
        }
        if config.starting_deadline.is_some_and(|limit| context.now.mono.since(pending.due.mono) > limit) {
            return self.skip(&pending, SkipReason::DeadlineMissed, context);
        }
        if pending.trigger != TriggerKind::Manual {
            self.sign_due.get_or_insert(pending.due);
        }
        match config.concurrency {
            Concurrency::Allow(most) if self.runs.len() >= most as usize => {
                self.skip(&pending, SkipReason::StillRunning, context);
            }
            Concurrency::Forbid if !self.runs.is_empty() => self.skip(&pending, SkipReason::StillRunning, context),
            Concurrency::Replace if !self.runs.is_empty() => self.replace(pending, context),
            Concurrency::Allow(_) | Concurrency::Forbid | Concurrency::Replace => self.start(pending, false, context),
        }
    }

    fn replace(&mut self, pending: Pending, context: &mut Context<'_>) {
        if let Some(older) = self.replacing.replace(pending) {
            self.skip(&older, SkipReason::StillRunning, context);
        }
        let kill_at = context.now.mono + GRACE;
        let paused: Vec<RunId> =
            self.runs.iter().filter(|run| matches!(run.phase, Phase::Pausing { .. })).map(|run| run.id).collect();
        for run in &mut self.runs {
            if run.asked.is_none() {
                run.asked = Some((CancelReason::Replaced, Some(kill_at)));
                context.actions.push(Action::Ask { run: run.id });
                let (plugin, reason) = (self.name.clone(), CancelReason::Replaced);
                context.actions.push(Action::Note(Note::Cancelling { plugin, run: run.id, reason }));
            }
        }
        for id in paused {
            self.end_paused(id, Outcome::Cancelled(CancelReason::Replaced), "the next run replaced it", context);
        }
    }

    fn skip(&mut self, pending: &Pending, reason: SkipReason, context: &mut Context<'_>) {
        *self.totals.skipped.entry(reason).or_default() += 1;
        let (plugin, due) = (self.name.clone(), pending.due.wall);
        context.actions.push(Action::Note(Note::Skipped { plugin, due, reason }));
    }

    fn start(&mut self, pending: Pending, is_trial: bool, context: &mut Context<'_>) {
        let Life::Ready(version) = &self.life else { return };
        let id = RunId(context.shared.next_run);
        context.shared.next_run += 1;
        let is_trial = is_trial || self.quarantine.is_some();
        if let Some(quarantine) = &mut self.quarantine {
            quarantine.until = None;
        }
        let run = Run {
            id,
            version: version.number,
            digest: version.loaded.digest,
            start: pending,
            attempt: 0,
            failed_attempts: 0,
            starved_attempts: 0,
            phase: Phase::Waiting,
            began: None,
            asked: None,
            killed: None,
            starving: None,
            is_trial,
            usage: crate::outcome::Usage::default(),
            memory_bytes: 0,
        };
        self.runs.push(run);
        self.start_attempt(id, context);
    }

    fn start_attempt(&mut self, id: RunId, context: &mut Context<'_>) {
        let Some(config) = self.config.clone() else { return };
        let (plugin, now) = (context.id, context.now);
        let Some(run) = self.run_mut(id) else { return };
        run.attempt += 1;
        run.phase = Phase::Waiting;
        run.starving = None;
        run.usage = crate::outcome::Usage::default();
        let active = config
            .active_deadline
            .map(|limit| run.began.map_or(limit, |began| limit.saturating_sub(now.mono.since(began.mono))));
        context.actions.push(Action::Start(Start {
            run: id,
            plugin,
            version: run.version,
            digest: run.digest,
            attempt: run.attempt,
            trigger: run.start.trigger,
            due: run.start.due.wall,
            due_mono: run.start.due.mono,
            made_up: false,
            time_left: active.into_iter().chain(config.attempt_deadline).min(),
            payload: run.start.payload.clone(),
        }));
    }

    fn retry_paused(&mut self, context: &mut Context<'_>) {
        let now = context.now.mono;
        let due = |run: &Run| matches!(run.phase, Phase::Pausing { until } if until.mono <= now);
        let ids: Vec<RunId> = self.runs.iter().filter(|run| due(run)).map(|run| run.id).collect();
        for id in ids {
            self.start_attempt(id, context);
        }
    }

    /// Starts by hand that waited, and the one that replaces, as far as there is room now.
    fn start_waiting(&mut self, context: &mut Context<'_>) {
        let Some(config) = self.config.clone() else { return };
        if context.shared.draining.is_some() {
            return;
        }
        if self.runs.is_empty()
            && let Some(pending) = self.replacing.take()
        {
            return self.start_or_skip(pending, &config, context);
        }
        loop {
            let room = match config.concurrency {
                Concurrency::Allow(most) => self.runs.len() < most as usize,
                Concurrency::Forbid | Concurrency::Replace => self.runs.is_empty(),
            };
            let Some(pending) = room.then(|| self.triggered.pop_front()).flatten() else { return };
            self.start_or_skip(pending, &config, context);
        }
    }

    // What ends.

    /// Kills what the clock is over for.
    fn end_late_runs(&mut self, context: &mut Context<'_>) {
        let Some(config) = self.config.clone() else { return };
        let now = context.now.mono;
        let late: Vec<(RunId, Killed)> = self
            .runs
            .iter()
            .filter_map(|run| {
                let (at, why) = run.deadline(&config)?;
                (at <= now).then_some((run.id, why))
            })
            .collect();
        for (id, why) in late {
            let Some(run) = self.run_mut(id) else { continue };
            let seconds = |limit: Option<Duration>| limit.unwrap_or_default().as_secs_f64();
            let (outcome, reason) = match why {
                Killed::StartingDeadline => (
                    Outcome::DeadlineExceeded { starved: true },
                    "startingDeadlineSeconds passed before its first slice".to_owned(),
                ),
                Killed::AttemptDeadline => (
                    Outcome::DeadlineExceeded { starved: false },
                    format!("attemptDeadlineSeconds of {} passed", seconds(config.attempt_deadline)),
                ),
                Killed::ActiveDeadline => (
                    Outcome::DeadlineExceeded { starved: false },
                    format!("activeDeadlineSeconds of {} passed", seconds(config.active_deadline)),
                ),
                Killed::Cancelled => {
                    let reason = run.asked.map_or(CancelReason::HostShutdown, |(reason, _)| reason);
                    (Outcome::Cancelled(reason), "it did not end by itself when it was asked to".to_owned())
                }
            };
            if matches!(run.phase, Phase::Pausing { .. }) {
                self.end_paused(id, outcome, &reason, context);
                continue;
            }
            run.killed = Some(why);
            context.actions.push(Action::Kill { run: id, outcome, reason });
        }
    }

    /// Ends a run that has no attempt in progress.
    fn end_paused(&mut self, id: RunId, outcome: Outcome, reason: &str, context: &mut Context<'_>) {
        let Some(at) = self.runs.iter().position(|run| run.id == id) else { return };
        let run = self.runs.remove(at);
        let ended = Ended {
            outcome,
            reason: reason.to_owned(),
            refusals: Vec::new(),
            exit_code: None,
            usage: crate::outcome::Usage { elapsed: run.usage.elapsed, ..Default::default() },
        };
        self.finish(run, ended, context);
    }

    fn ended(&mut self, id: RunId, mut ended: Ended, context: &mut Context<'_>) {
        let Some(at) = self.runs.iter().position(|run| run.id == id) else { return };
        let Some(config) = self.config.clone() else { return };
        let now = context.now;
        let mut run = self.runs.remove(at);
        // Within its first poll nobody told of its start.
        let began = Now {
            mono: now.mono - ended.usage.elapsed,
            wall: now
                .wall
                .checked_sub(jiff::SignedDuration::try_from(ended.usage.elapsed).unwrap_or_default())
                .unwrap_or(now.wall),
        };
        run.began.get_or_insert(began);
        run.usage = ended.usage;
        self.totals.cpu += ended.usage.cpu;
        self.totals.fuel = self.totals.fuel.saturating_add(ended.usage.fuel);
        self.count_duration(ended.usage.elapsed);
        if let Outcome::DeadlineExceeded { starved } = &mut ended.outcome {
            *starved = run.killed == Some(Killed::StartingDeadline) || ended.usage.starved * 2 > ended.usage.elapsed;
        }
        let retry = match run.killed {
            None | Some(Killed::AttemptDeadline) if run.asked.is_none() && context.shared.draining.is_none() => {
                self.retry_pause(&mut run, &ended.outcome, &config, context)
            }
            _ => None,
        };
        let until = retry.map(|pause| later(now, pause));
        let attempts = match config.trigger {
            Trigger::Continuous { .. } => None,
            Trigger::Every(_) | Trigger::Once | Trigger::Manual => Some(config.backoff_limit + 1),
        };
        context.actions.push(Action::Note(Note::AttemptEnded {
            plugin: self.name.clone(),
            version: run.version,
            run: id,
            attempt: run.attempt,
            attempts,
            ended: ended.clone(),
            retry_at: until.map(|until| until.wall),
        }));
        match until {
            Some(until) => {
                run.phase = Phase::Pausing { until };
                run.killed = None;
                self.last_failure = Some((now, ended.outcome, ended.reason));
                self.runs.push(run);
            }
            None => self.finish(run, ended, context),
        }
    }

    /// How long to pause before the next attempt; none if there is none.
    fn retry_pause(
        &mut self,
        run: &mut Run,
        outcome: &Outcome,
        config: &Plugin,
        context: &mut Context<'_>,
    ) -> Option<Duration> {
        if matches!(config.trigger, Trigger::Continuous { .. }) && run.start.trigger == TriggerKind::Continuous {
            return None;
        }
        let random = &mut context.shared.random;
        match outcome {
            Outcome::Succeeded | Outcome::Cancelled(_) => None,
            // It will be denied again, and it said itself that it will fail again.
            Outcome::Failed(Failure::Permanent) | Outcome::Denied => None,
            // Not its fault: costs no attempt, within reason.
            Outcome::OutOfMemory(MemoryLimit::Host) | Outcome::DeadlineExceeded { starved: true } | Outcome::Lost => {
                run.starved_attempts += 1;
                (run.starved_attempts <= STARVED_ATTEMPTS).then(|| backoff::pause(run.starved_attempts, random))
            }
            Outcome::Failed(Failure::Transient { retry_after }) => {
                run.failed_attempts += 1;
                let pause = retry_after.map_or_else(|| backoff::pause(run.failed_attempts, random), backoff::asked);
                (run.failed_attempts <= config.backoff_limit).then_some(pause)
            }
            Outcome::Trapped
            | Outcome::OutOfFuel
            | Outcome::OutOfCpu
            | Outcome::DeadlineExceeded { starved: false }
            | Outcome::OutOfMemory(MemoryLimit::Plugin) => {
                run.failed_attempts += 1;
                (run.failed_attempts <= config.backoff_limit).then(|| backoff::pause(run.failed_attempts, random))
            }
        }
    }

    /// A run is over with all its attempts: what it means for the plugin.
    fn finish(&mut self, run: Run, ended: Ended, context: &mut Context<'_>) {
        let now = context.now;
        if run.killed == Some(Killed::StartingDeadline) {
            // It never began: a start that did not take place, not a run that failed.
            context.gone.push(run.id);
            self.skip(&run.start, SkipReason::DeadlineMissed, context);
            context.starved = true;
            return self.after_run(run.is_trial, context);
        }
        let verdict = Counts::of(&ended.outcome);
        if matches!(ended.outcome, Outcome::DeadlineExceeded { starved: true }) {
            context.starved = true;
        }
        // What the guest said of itself stood until now.
        self.report.shown = None;
        self.report.pending = None;
        match verdict {
            Counts::Success => {
                self.failures_in_row = 0;
                self.last_failure = None;
                self.failed_at.clear();
                self.quarantine = None;
                self.last_success = Some(now.wall);
                self.sign_due = None;
                self.once_done = self.once_done || run.start.trigger == TriggerKind::Once;
            }
            Counts::Failure => {
                self.failures_in_row = self.failures_in_row.saturating_add(1);
                self.last_failure = Some((now, ended.outcome.clone(), ended.reason.clone()));
                self.count_towards_quarantine(run.is_trial, now);
            }
            Counts::Nothing => {}
        }
        let (was_trial, trigger) = (run.is_trial, run.start.trigger);
        self.record(run, ended, context);
        if trigger == TriggerKind::Continuous {
            self.plan_restart(verdict, context);
        }
        self.after_run(was_trial, context);
    }

    fn after_run(&mut self, was_trial: bool, context: &mut Context<'_>) {
        if context.shared.draining.is_some() {
            return;
        }
        if let Some(quarantine) = self.quarantine.as_mut().filter(|quarantine| was_trial && quarantine.until.is_none())
        {
            // The trial told nothing: the same pause again.
            let pause = QUARANTINE_PAUSES.get(quarantine.step).copied().unwrap_or(QUARANTINE_WINDOW);
            quarantine.until = Some(later(context.now, pause));
        }
        let has_check = matches!(&self.life, Life::Ready(version) if version.loaded.has_check);
        if has_check {
            self.check(context);
        }
        self.start_waiting(context);
    }

    fn plan_restart(&mut self, verdict: Counts, context: &mut Context<'_>) {
        let Some(Plugin { trigger: Trigger::Continuous { restart_delay }, .. }) = self.config.as_deref() else {
            return;
        };
        if context.shared.draining.is_some() || self.quarantine.is_some() {
            return;
        }
        let pause = match verdict {
            Counts::Success => *restart_delay,
            Counts::Failure => backoff::pause(self.failures_in_row, &mut context.shared.random),
            Counts::Nothing => backoff::FIRST,
        };
        self.next_due = Some(later(context.now, pause));
    }

    fn count_towards_quarantine(&mut self, was_trial: bool, now: Now) {
        let Some(config) = self.config.clone() else { return };
        // A continuous plugin that had been well for long begins anew.
        if let (Trigger::Continuous { .. }, Some(last)) = (config.trigger, self.failed_at.back())
            && now.mono.since(*last) > CONTINUOUS_FORGIVES
        {
            self.failures_in_row = 1;
        }
        self.failed_at.push_back(now.mono);
        while self.failed_at.front().is_some_and(|at| now.mono.since(*at) > QUARANTINE_WINDOW) {
            self.failed_at.pop_front();
        }
        let limit = config.health.failure_threshold.saturating_mul(2);
        while self.failed_at.len() > limit as usize {
            self.failed_at.pop_front();
        }
        let period = match config.trigger {
            Trigger::Every(period) => Some(period),
            Trigger::Once | Trigger::Continuous { .. } | Trigger::Manual => None,
        };
        let step = match self.quarantine {
            Some(quarantine) if was_trial => (quarantine.step + 1).min(QUARANTINE_PAUSES.len() - 1),
            Some(_) => return,
            // An escalating plugin gets the pod restarted first.
            None if !config.health.quarantine || config.health.escalate || self.failed_at.len() < limit as usize => {
                return;
            }
            None => 0,
        };
        let pause = QUARANTINE_PAUSES.get(step).copied().unwrap_or(QUARANTINE_WINDOW);
        let pause = period.map_or(pause, |period| pause.min(period));
        let failures = u32::try_from(self.failed_at.len()).unwrap_or(u32::MAX);
        self.quarantine = Some(Quarantine { step, until: Some(later(now, pause)), failures });
    }

    fn begin_trial(&mut self, context: &mut Context<'_>) {
        let Some(config) = self.config.clone() else { return };
        let trigger = match config.trigger {
            Trigger::Every(_) => TriggerKind::Every,
            Trigger::Once => TriggerKind::Once,
            Trigger::Continuous { .. } => TriggerKind::Continuous,
            Trigger::Manual => {
                // The next start by hand is the trial.
                if let Some(quarantine) = &mut self.quarantine {
                    quarantine.until = None;
                }
                return;
            }
        };
        if !self.runs.is_empty() || config.suspend {
            if let Some(quarantine) = &mut self.quarantine {
                quarantine.until = Some(later(context.now, Duration::from_secs(60)));
            }
            return;
        }
        self.start(Pending { trigger, due: context.now, payload: Payload::default() }, true, context);
    }

    /// Writes a run that is over into the report.
    fn record(&mut self, run: Run, ended: Ended, context: &mut Context<'_>) {
        context.gone.push(run.id);
        *self.totals.runs.entry(ended.outcome.name()).or_default() += 1;
        if self.last_runs.len() >= LAST_RUNS {
            self.last_runs.pop_back();
        }
        self.last_runs.push_front(RunView {
            run: run.id,
            version: run.version,
            attempts: run.attempt,
            outcome: ended.outcome,
            reason: ended.reason,
            refusals: ended.refusals,
            exit_code: ended.exit_code,
            due: run.start.due.wall,
            ended: context.now.wall,
            usage: ended.usage,
        });
    }

    fn count_duration(&mut self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        self.totals.duration_sum_s += seconds;
        let bucket = DURATION_BUCKETS_S.iter().position(|bound| seconds <= *bound).unwrap_or(DURATION_BUCKETS_S.len());
        if let Some(count) = self.totals.duration_buckets.get_mut(bucket) {
            *count += 1;
        }
    }

    // What it says of itself.

    fn check(&mut self, context: &mut Context<'_>) {
        let Some(config) = &self.config else { return };
        if self.checking.in_flight || config.suspend {
            self.checking.next = None;
            return;
        }
        self.checking.in_flight = true;
        self.checking.next = None;
        context.actions.push(Action::Check { plugin: context.id, timeout: config.health.check_timeout });
    }

    fn take_report(&mut self, report: Report, now: Mono) {
        let changed = self.report.shown.as_ref() != Some(&report);
        let early = self.report.taken.is_some_and(|taken| now.since(taken) < REPORT_EVERY);
        match (changed, early) {
            (true, true) => self.report.pending = Some(report),
            (true, false) => {
                self.report.taken = Some(now);
                self.report.pending = None;
                self.report.shown = Some(report);
            }
            (false, _) => self.report.pending = None,
        }
    }

    fn sign_of_life(&mut self, now: Now) {
        if matches!(self.config.as_deref(), Some(Plugin { trigger: Trigger::Continuous { .. }, .. })) {
            self.sign_due = Some(now);
        }
    }

    /// When it counts as silent, if nothing happens before.
    fn silent_at(&self) -> Option<Mono> {
        let config = self.config.as_ref()?;
        let limit = config.health.max_silence?;
        let counts = !config.suspend && !self.once_done && matches!(self.life, Life::Ready(_));
        self.sign_due.filter(|_| counts).map(|due| due.mono + limit)
    }

    /// When it counts as starved, if nothing happens before.
    fn starved_at(&self) -> Option<Mono> {
        let period = match self.config.as_ref()?.trigger {
            Trigger::Every(period) => period,
            Trigger::Once | Trigger::Continuous { .. } | Trigger::Manual => Duration::ZERO,
        };
        let since = self.runs.iter().filter_map(|run| run.starving.as_ref()).map(|(since, _)| since.mono).min()?;
        Some(since + period.max(Duration::from_secs(60)))
    }

    pub(super) fn note_change(&mut self, now: Now) -> Option<Note> {
        let standing = self.standing(now);
        if (standing.state, standing.status) == (self.told.state, self.told.status) {
            return None;
        }
        let from = (self.told.state, self.told.status);
        self.told = standing;
        Some(Note::Changed {
            plugin: self.name.clone(),
            from,
            to: (self.told.state, self.told.status),
            description: self.told.description.clone(),
        })
    }

    fn standing(&self, now: Now) -> Standing {
        fold::standing(&self.facts(now))
    }

    fn facts(&self, now: Now) -> fold::Facts<'_> {
        fold::Facts {
            now,
            name: &self.name,
            source: &self.source,
            config: self.config.as_deref(),
            life: &self.life,
            runs: &self.runs,
            last_runs: &self.last_runs,
            totals: &self.totals,
            next_due: self.next_due,
            failures_in_row: self.failures_in_row,
            last_failure: self.last_failure.as_ref(),
            quarantine: self.quarantine,
            last_success: self.last_success,
            silent: self.silent_at().is_some_and(|at| at <= now.mono).then_some(self.sign_due).flatten(),
            starved: self.starved_at().is_some_and(|at| at <= now.mono),
            check: self.checking.last.as_ref(),
            report: self.report.shown.as_ref(),
            suspended_since: self.suspended_since,
        }
    }

    pub(super) fn view(&self, now: Now) -> crate::health::PluginView {
        fold::view(&self.facts(now))
    }
}

/// What the end of a run counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Success,
    Failure,
    /// The host's doing, or nobody's.
    Nothing,
}

impl Counts {
    fn of(outcome: &Outcome) -> Counts {
        match outcome {
            Outcome::Succeeded => Counts::Success,
            Outcome::Failed(_)
            | Outcome::Trapped
            | Outcome::OutOfFuel
            | Outcome::OutOfCpu
            | Outcome::DeadlineExceeded { starved: false }
            | Outcome::OutOfMemory(MemoryLimit::Plugin)
            | Outcome::Denied => Counts::Failure,
            Outcome::DeadlineExceeded { starved: true }
            | Outcome::OutOfMemory(MemoryLimit::Host)
            | Outcome::Cancelled(_)
            | Outcome::Lost => Counts::Nothing,
        }
    }
}

/// The next time after `now` that lies a whole number of periods after `due`: what was missed is not made up for in a burst.
fn next_of(due: Now, period: Duration, now: Now) -> Now {
    let late = now.mono.since(due.mono);
    let missed = late.as_nanos() / period.as_nanos().max(1);
    let ahead = period.saturating_mul(u32::try_from(missed + 1).unwrap_or(u32::MAX));
    let mono = due.mono + ahead;
    later(now, mono.since(now.mono))
}

fn later(now: Now, by: Duration) -> Now {
    let by_wall = jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::MAX);
    Now { mono: now.mono + by, wall: now.wall.checked_add(by_wall).unwrap_or(Timestamp::MAX) }
}
