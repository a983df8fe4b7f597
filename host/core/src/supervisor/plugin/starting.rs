//! What starts: what is due by its trigger, what is started by hand, and what a retry brings.

use std::time::Duration;

use super::super::measured::Measured;
use super::super::run::{GRACE, Pending, Phase, Run};
use super::{Context, Life, PluginState, TRIGGERS_WAITING, later};
use crate::config::{Concurrency, Plugin, Trigger};
use crate::event::{Action, Note, Payload, Start, TriggerKind};
use crate::name::{Digest, RunId, VersionNumber};
use crate::outcome::{CancelReason, Outcome, SkipReason, Usage};
use crate::time::Now;

impl PluginState {
    /// The trigger's time has come.
    pub(super) fn fall_due(&mut self, context: &mut Context<'_>) {
        let (Some(config), Some(due)) = (self.config.clone(), self.next_due.take()) else { return };
        let kind = match config.trigger {
            Trigger::Every(period) => {
                let (next, missed) = next_of(due, period, context.now);
                self.next_due = Some(next);
                self.miss(missed, later(due, period), &config, context);
                TriggerKind::Every
            }
            Trigger::Once => TriggerKind::Once,
            Trigger::Continuous { .. } => TriggerKind::Continuous,
            Trigger::Manual => return,
        };
        self.start_or_skip(Pending { trigger: kind, due, payload: Payload::default() }, &config, context);
    }

    pub(super) fn triggered(&mut self, payload: Payload, context: &mut Context<'_>) {
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

    /// Why nothing of it may start now, whatever else runs.
    fn withheld(&self, config: &Plugin, now: Now) -> Option<SkipReason> {
        let is_quarantined = self.quarantine.as_ref().is_some_and(|quarantine| match quarantine.until {
            Some(until) => until.mono > now.mono,
            // Its trial run goes on.
            None => !self.runs.is_empty(),
        });
        match (config.suspend, is_quarantined) {
            (true, _) => Some(SkipReason::Suspended),
            (false, true) => Some(SkipReason::Quarantined),
            (false, false) => None,
        }
    }

    pub(super) fn start_or_skip(&mut self, pending: Pending, config: &Plugin, context: &mut Context<'_>) {
        if let Some(reason) = self.withheld(config, context.now) {
            return self.skip(&pending, reason, context);
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

    pub(super) fn replace(&mut self, pending: Pending, context: &mut Context<'_>) {
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

    pub(super) fn skip(&mut self, pending: &Pending, reason: SkipReason, context: &mut Context<'_>) {
        self.skip_times(1, pending.due, reason, context);
    }

    /// The times that went by while nobody looked: the host stood still, or was late by more than a period. One start makes up for all
    /// of them.
    fn miss(&mut self, times: u64, first: Now, config: &Plugin, context: &mut Context<'_>) {
        if times > 0 {
            let reason = self.withheld(config, context.now).unwrap_or(SkipReason::HostDown);
            self.skip_times(times, first, reason, context);
        }
    }

    fn skip_times(&mut self, times: u64, first: Now, reason: SkipReason, context: &mut Context<'_>) {
        *self.totals.skipped.entry(reason).or_default() += times;
        let (plugin, due) = (self.name.clone(), first.wall);
        context.actions.push(Action::Note(Note::Skipped { plugin, due, times, reason }));
    }

    pub(super) fn start(&mut self, pending: Pending, is_trial: bool, context: &mut Context<'_>) {
        let Life::Ready(version) = &self.life else { return };
        let (number, digest) = (version.number, version.loaded.digest);
        let is_trial = is_trial || self.quarantine.is_some();
        if let Some(quarantine) = &mut self.quarantine {
            quarantine.until = None;
        }
        self.start_on(number, digest, pending, is_trial, context);
    }

    /// Starts a run on a version of its own.
    pub(super) fn start_on(
        &mut self,
        version: VersionNumber,
        digest: Digest,
        pending: Pending,
        is_trial: bool,
        context: &mut Context<'_>,
    ) -> RunId {
        let id = RunId(context.shared.next_run);
        context.shared.next_run += 1;
        let run = Run {
            id,
            version,
            digest,
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
            usage: Usage::default(),
            memory_bytes: 0,
            measured: Measured::new(context.now),
            starved: std::time::Duration::ZERO,
        };
        self.runs.push(run);
        self.start_attempt(id, context);
        id
    }

    pub(super) fn start_attempt(&mut self, id: RunId, context: &mut Context<'_>) {
        let Some(config) = self.config.clone() else { return };
        let (plugin, now) = (context.id, context.now);
        let Some(run) = self.run_mut(id) else { return };
        run.attempt += 1;
        run.phase = Phase::Waiting;
        run.starving = None;
        run.usage = Usage::default();
        run.measured = Measured::new(now);
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

    pub(super) fn retry_paused(&mut self, context: &mut Context<'_>) {
        let now = context.now.mono;
        let due = |run: &Run| matches!(run.phase, Phase::Pausing { until } if until.mono <= now);
        let ids: Vec<RunId> = self.runs.iter().filter(|run| due(run)).map(|run| run.id).collect();
        for id in ids {
            self.start_attempt(id, context);
        }
    }

    /// Starts by hand that waited, and the one that replaces, as far as there is room now.
    pub(super) fn start_waiting(&mut self, context: &mut Context<'_>) {
        let Some(config) = self.config.clone() else { return };
        if context.shared.draining.is_some() {
            return;
        }
        if self.runs.is_empty()
            && let Some(pending) = self.replacing.take()
        {
            return self.start_or_skip(pending, &config, context);
        }
        self.try_candidate(context);
        loop {
            let room = match config.concurrency {
                Concurrency::Allow(most) => self.runs.len() < most as usize,
                Concurrency::Forbid | Concurrency::Replace => self.runs.is_empty(),
            };
            let Some(pending) = room.then(|| self.triggered.pop_front()).flatten() else { return };
            self.start_or_skip(pending, &config, context);
        }
    }
}

/// The next time after `now` that lies a whole number of periods after `due`, and how many such times went by between the two: what was
/// missed is not made up for in a burst.
fn next_of(due: Now, period: Duration, now: Now) -> (Now, u64) {
    let late = now.mono.since(due.mono);
    let missed = late.as_nanos() / period.as_nanos().max(1);
    let ahead = period.saturating_mul(u32::try_from(missed + 1).unwrap_or(u32::MAX));
    let mono = due.mono + ahead;
    (later(now, mono.since(now.mono)), u64::try_from(missed).unwrap_or(u64::MAX))
}
