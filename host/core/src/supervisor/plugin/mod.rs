//! One plugin's life: what is due, what runs, what failed, and what that does to it.

mod candidate;
mod choice;
mod ending;
mod escalation;
mod own_words;
mod quarantine;
mod starting;
mod switching;
mod verdicts;
pub(super) mod versions;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use choice::{Recalling, ToldChoice};
pub(super) use escalation::Escalation;
use verdicts::ToldVerdict;

use super::Shared;
use super::fold::{self, Standing};
use super::run::{Pending, Phase, Run};
use crate::config::Plugin;
use crate::event::{Action, Entry, Event, LoadedVersion, Note};
use crate::health::{Report, RunView, State, Status, Totals};
use crate::name::{Digest, PluginId, PluginName, RunId, VersionNumber};
use crate::outcome::{CancelReason, Ended, Outcome};
use crate::time::{Mono, Now, Timestamp};
pub(super) use versions::Versions;

/// How many starts by hand wait for their turn.
pub(super) const TRIGGERS_WAITING: usize = 1_000;

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
    /// Its entry is gone; it is forgotten when the last run has ended.
    Leaving,
}

#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) number: VersionNumber,
    pub(super) loaded: Arc<LoadedVersion>,
    pub(super) since: Timestamp,
    /// What it runs with: its manifest is part of that.
    pub(super) config: Arc<Plugin>,
}

/// Too many failed runs: pauses, with one trial run after each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quarantine {
    /// Which pause.
    step: usize,
    /// When the trial may begin; none while it goes on.
    pub(super) until: Option<Now>,
    /// What brought it about.
    pub(super) cause: Cause,
}

/// Why a plugin is in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// So many failed runs.
    Failures(u32),
    /// So many kills that protect the host.
    Kills(u32),
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
    /// The run that said it.
    by: Option<RunId>,
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
    versions: Versions,
    /// What a host before this one chose, on its way.
    recalling: Option<Recalling>,
    told_choice: ToldChoice,
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
    told_verdict: ToldVerdict,
    escalation: Escalation,
    /// When artifacts that were live before may turn liveness red again.
    spent: VecDeque<(Digest, Now)>,
    /// When attempts were killed to protect the host, within the last hour.
    kills: VecDeque<Mono>,
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
            versions: Versions::default(),
            recalling: None,
            told_choice: None,
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
            told_verdict: ToldVerdict::default(),
            escalation: Escalation::Allowed,
            spent: VecDeque::new(),
            kills: VecDeque::new(),
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
            Event::Entry { source, entry, .. } => self.take_entry(source, entry, context),
            Event::Removed { .. } => self.leave(Life::Leaving, "its entry is gone", context),
            Event::Vanished { reason, .. } => {
                let why = reason.clone();
                self.leave(Life::Refused { reason }, &why, context);
            }
            Event::Found { .. } => self.found(),
            Event::Staged { digest, stage, .. } => self.note_stage(digest, stage, "", context),
            Event::Loaded { config, version, .. } => self.loaded(config, version, context),
            Event::Recalled { config, version, .. } => self.recalled(config, version, context),
            Event::NotRecalled { digest, reason, .. } => self.not_recalled(digest, &reason, context),
            Event::Reconfigured { digest, config, .. } => self.reconfigured(digest, config, context),
            Event::Refused { digest, reason, .. } => self.refused(digest, reason, context),
            Event::Checked { digest, result, .. } => self.checked(digest, result, context),
            Event::CheckStarved { digest, .. } => self.check_starved(digest, context),
            Event::Triggered { payload, .. } => self.triggered(payload, context),
            Event::Started { run } => {
                let now = context.now;
                if let Some(run) = self.run_mut(run)
                    && run.phase == Phase::Waiting
                {
                    run.phase = Phase::Running { since: now.mono };
                    run.note_begun(now.mono);
                    run.began.get_or_insert(now);
                    run.starving = None;
                    run.measured.begun(now);
                }
            }
            Event::Ended { run, ended } => self.ended(run, ended, context),
            Event::Reported { run, report } => {
                if self.is_on_live(run) {
                    self.sign_of_life(context.now);
                    self.report.by = Some(run);
                    self.take_report(report, context.now.mono);
                }
            }
            Event::Progressed { run } => {
                if self.is_on_live(run) {
                    self.sign_of_life(context.now);
                }
            }
            Event::Sampled { run, sample } => self.sampled(run, *sample, context),
            Event::Starving { run, of } => {
                let now = context.now;
                if let Some(run) = self.run_mut(run) {
                    run.starving = of.map(|of| (run.starving.as_ref().map_or(now, |(since, _)| *since), of));
                    run.measured.moved(now);
                }
            }
            Event::HostFault { .. } | Event::Configured { .. } | Event::Drain => {}
        }
        self.watch_probation(context);
        self.retire_unused(context);
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
        self.watch_probation(context);
        self.retire_unused(context);
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
            self.note_end(&run, &ended, None, context);
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
        let report = self.report.pending.as_ref().and(self.report.taken).map(|taken| taken + own_words::REPORT_EVERY);
        let own = [
            self.next_due.map(|due| due.mono),
            self.quarantine.and_then(|quarantine| quarantine.until).map(|until| until.mono),
            self.checking.next,
            report,
            self.versions.probation_ends(),
            self.silent_at().filter(|at| *at > now.mono),
            self.starved_at().filter(|at| *at > now.mono),
            self.escalates_again().filter(|at| *at > now.mono),
        ];
        runs.chain(own).flatten().min()
    }

    /// Another entry than before, or the first.
    fn take_entry(&mut self, source: Arc<str>, entry: Entry, context: &mut Context<'_>) {
        self.source = source;
        match (entry, &self.life) {
            (Entry::Wanted(config), Life::Loading { .. } | Life::Refused { .. } | Life::Ignored | Life::Leaving) => {
                if !matches!(self.life, Life::Loading { .. }) {
                    context.shared.loading += 1;
                    context.shared.to_load += 1;
                }
                self.life = Life::Loading { nth: None };
                self.reconfigure(config, context.now);
            }
            // What it means for the version that runs is told with the version's manifest, as `Reconfigured`.
            (Entry::Wanted(_), Life::Ready(_)) => {}
            (Entry::Refused(reason), _) => self.refused(None, reason, context),
            (Entry::Ignored, _) => self.leave(Life::Ignored, "its entry is gone", context),
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

    pub(super) fn note_change(&mut self, now: Now) -> Option<Note> {
        let was_well = (self.told.state, self.told.status) == (State::Active, Status::Healthy);
        if was_well && fold::is_plainly_well(&self.facts(now)) {
            return None;
        }
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

    #[cfg(test)]
    pub(super) fn is_plainly_well(&self, now: Now) -> bool {
        fold::is_plainly_well(&self.facts(now))
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
            silent: self.silent(now),
            starved: self.starved_for_long(now.mono),
            escalation: self.escalation,
            check: self.checking.last.as_ref(),
            report: self.report.shown.as_ref(),
            suspended_since: self.suspended_since,
            versions: &self.versions,
        }
    }

    pub(super) fn view(&self, now: Now) -> crate::health::PluginView {
        fold::view(&self.facts(now))
    }
}

/// So much later on both clocks.
fn later(now: Now, by: Duration) -> Now {
    let by_wall = jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::MAX);
    Now { mono: now.mono + by, wall: now.wall.checked_add(by_wall).unwrap_or(Timestamp::MAX) }
}
