//! What a newer version goes through before it takes over: it is recorded, accepted, asked for its health, and tried.

use std::sync::Arc;

use super::super::run::Pending;
use super::versions::{HISTORY, Newest, Tenure};
use super::{Context, Life, PluginState, Version};
use crate::config::{Concurrency, Plugin, Trial, Trigger};
use crate::event::{Action, LoadedVersion, Note, Payload, TriggerKind};
use crate::health::{Report, Stage, Status};
use crate::name::Digest;
use crate::time::Now;

impl PluginState {
    /// Writes into a version's life, and into the log.
    pub(in crate::supervisor) fn note_stage(
        &mut self,
        digest: Digest,
        stage: Stage,
        why: &str,
        context: &mut Context<'_>,
    ) {
        let record = self.versions.record(digest);
        if record.history.last().is_some_and(|(_, last, _)| *last == stage && why.is_empty()) {
            return;
        }
        if record.history.len() >= HISTORY {
            record.history.remove(0);
        }
        record.history.push((context.now.wall, stage, why.to_owned()));
        let version = record.number;
        self.versions.refresh();
        let plugin = self.name.clone();
        context.actions.push(Action::Note(Note::Version { plugin, digest, version, stage, why: why.to_owned() }));
    }

    /// An artifact waits to be loaded: a newer one, or the same once more. Until it is known which, nothing else changes.
    pub(super) fn found(&mut self) {
        if matches!(self.life, Life::Ready(_)) && self.versions.coming().is_none() {
            self.versions.newest = Newest::Loading { matter: self.versions.matter() };
        }
    }

    /// A version can run: the first goes live at once, a newer one becomes the candidate.
    pub(in crate::supervisor) fn loaded(
        &mut self,
        config: Arc<Plugin>,
        loaded: Arc<LoadedVersion>,
        context: &mut Context<'_>,
    ) {
        let digest = loaded.digest;
        self.versions.hold(digest);
        let chosen = match &self.life {
            Life::Loading { .. } | Life::Refused { .. } | Life::Ignored => self.chosen_before(digest, context),
            Life::Ready(_) | Life::Leaving => None,
        };
        let number = self.versions.number(&loaded);
        if self.versions.coming().is_some_and(|coming| coming.loaded.digest == digest) {
            // It is on its way already.
            return self.reconfigured(digest, config, context);
        }
        let version = Version { number, loaded, since: context.now.wall, config };
        match &self.life {
            Life::Leaving => {}
            Life::Loading { .. } | Life::Refused { .. } | Life::Ignored => match chosen {
                Some(chosen) if chosen.runs.0 != digest => self.recall(version, chosen, context),
                Some(_) | None if self.recalls_still(&version, context) => {}
                chosen => {
                    self.leave_loading(context);
                    self.go_live(version, context);
                    // The source is back at what runs; what proved bad is remembered all the same.
                    self.versions.bad = chosen.and_then(|chosen| Some((chosen.instead_of.0, chosen.bad?)));
                }
            },
            Life::Ready(live) if live.loaded.digest == digest => {
                self.versions.newest = Newest::Live;
                self.reconfigured(digest, version.config, context);
            }
            Life::Ready(_) if self.versions.bad.as_ref().is_some_and(|(bad, _)| *bad == digest) => {
                let why = self.versions.bad.as_ref().map(|(_, why)| why.clone()).unwrap_or_default();
                self.versions.newest = Newest::Rejected { why };
            }
            Life::Ready(live) => {
                let more = |want: &&String| !live.loaded.wants.contains(want);
                let asks: Vec<String> = version.loaded.wants.iter().filter(more).cloned().collect();
                match asks.is_empty() {
                    true => self.check_candidate(version, context),
                    false => {
                        let asks = asks.join(", ");
                        self.note_stage(digest, Stage::AwaitingGrant, &asks, context);
                        self.versions.newest = Newest::AwaitingGrant { version, asks };
                    }
                }
            }
        }
    }

    /// The newest entry or artifact is no good.
    pub(in crate::supervisor) fn refused(&mut self, digest: Option<Digest>, reason: String, context: &mut Context<'_>) {
        if let Some(digest) = digest {
            self.note_stage(digest, Stage::Refused, &reason, context);
        }
        match &self.life {
            Life::Leaving => {}
            // A version that runs is not given up for a file that is no good.
            Life::Ready(live) => {
                let why = format!("the newer one is refused, version {} goes on: {reason}", live.number.0);
                self.versions.newest = Newest::Rejected { why };
            }
            Life::Loading { .. } | Life::Refused { .. } | Life::Ignored => {
                self.leave_loading(context);
                self.life = Life::Refused { reason };
                self.recall_again(context);
            }
        }
    }

    /// The entry changed what a version runs with.
    pub(in crate::supervisor) fn reconfigured(
        &mut self,
        digest: Digest,
        config: Arc<Plugin>,
        context: &mut Context<'_>,
    ) {
        if let Some(recalling) = self.recalling.as_mut().filter(|recalling| recalling.newer().loaded.digest == digest) {
            recalling.reconfigure(config.clone());
        }
        if let Some(coming) = self.versions.coming().filter(|coming| coming.loaded.digest == digest) {
            coming.config = config.clone();
        }
        let previous = match &mut self.versions.tenure {
            Tenure::Trusted => self.versions.previous.as_mut(),
            Tenure::Probation { previous, .. } => Some(previous),
        };
        if let Some(previous) = previous.filter(|previous| previous.loaded.digest == digest) {
            previous.config = config.clone();
        }
        if let Life::Ready(live) = &mut self.life
            && live.loaded.digest == digest
        {
            live.config = config.clone();
            let before = self.config.as_ref().map(|config| config.trigger);
            let changed = self.config.as_deref() != Some(&*config);
            self.reconfigure(config, context.now);
            if changed {
                // A changed entry ends a quarantine.
                self.quarantine = None;
                self.failed_at.clear();
            }
            self.replan(before, context);
        }
        self.try_candidate(context);
    }

    /// Plans the next run where the trigger is another one; a schedule that stays the same is not disturbed.
    pub(super) fn replan(&mut self, before: Option<Trigger>, context: &mut Context<'_>) {
        let Some(trigger) = self.config.as_ref().map(|config| config.trigger) else { return };
        if context.shared.draining.is_some() || before == Some(trigger) {
            return;
        }
        self.sign_due = None;
        self.next_due = match trigger {
            Trigger::Manual => None,
            Trigger::Once if self.once_done => None,
            Trigger::Continuous { .. } if !self.runs.is_empty() => None,
            Trigger::Every(_) | Trigger::Once | Trigger::Continuous { .. } => Some(context.now),
        };
        if self.next_due.is_some() {
            self.fall_due(context);
        }
    }

    pub(super) fn check_candidate(&mut self, version: Version, context: &mut Context<'_>) {
        if !version.loaded.has_check {
            return self.await_trial(version, context);
        }
        let (digest, timeout) = (version.loaded.digest, version.config.health.check_timeout);
        self.note_stage(digest, Stage::Checking, "", context);
        self.versions.newest = Newest::Checking { version };
        context.actions.push(Action::Check { plugin: context.id, digest, timeout });
    }

    /// The answer of a check, the live version's or the candidate's.
    pub(in crate::supervisor) fn checked(
        &mut self,
        digest: Digest,
        result: Result<Report, String>,
        context: &mut Context<'_>,
    ) {
        if let Newest::Checking { version } = &self.versions.newest
            && version.loaded.digest == digest
        {
            let version = version.clone();
            return match &result {
                Ok(report) if report.status != Status::Unhealthy => {
                    self.await_trial(version, context);
                    if matches!(&self.life, Life::Ready(live) if live.loaded.digest == digest) {
                        self.take_check(result, context.now);
                    }
                }
                Ok(report) => self.reject(&version, &format!("its health check says: {}", report.description), context),
                Err(why) => self.reject(&version, &format!("its health check failed: {why}"), context),
            };
        }
        // What a version that was replaced meanwhile says is nobody's any more.
        if matches!(&self.life, Life::Ready(live) if live.loaded.digest == digest) {
            self.checking.in_flight = false;
            self.take_check(result, context.now);
        }
    }

    /// A check had no time of its own: asked again, a candidate's at once.
    pub(in crate::supervisor) fn check_starved(&mut self, digest: Digest, context: &mut Context<'_>) {
        if context.shared.draining.is_some() {
            return;
        }
        if let Newest::Checking { version } = &self.versions.newest
            && version.loaded.digest == digest
        {
            let timeout = version.config.health.check_timeout;
            return context.actions.push(Action::Check { plugin: context.id, digest, timeout });
        }
        if matches!(&self.life, Life::Ready(live) if live.loaded.digest == digest) {
            self.checking.in_flight = false;
            self.checking.next = self.config.as_ref().map(|config| context.now.mono + config.health.check_every);
        }
    }

    fn take_check(&mut self, result: Result<Report, String>, now: Now) {
        self.checking.last = Some(result);
        self.checking.next = self.config.as_ref().map(|config| now.mono + config.health.check_every);
    }

    fn await_trial(&mut self, version: Version, context: &mut Context<'_>) {
        match version.config.trial {
            Trial::None => self.go_live(version, context),
            Trial::OneRun => {
                self.note_stage(version.loaded.digest, Stage::Trying, "", context);
                self.versions.newest = Newest::Trying { version, run: None };
                self.try_candidate(context);
            }
        }
    }

    /// Starts the trial run, if there is one to start and room for it.
    pub(in crate::supervisor) fn try_candidate(&mut self, context: &mut Context<'_>) {
        let Newest::Trying { version, run: None } = &self.versions.newest else { return };
        let version = version.clone();
        let Some(config) = self.config.clone() else { return };
        let room = match config.concurrency {
            Concurrency::Allow(most) => self.runs.len() < most as usize,
            Concurrency::Forbid | Concurrency::Replace => self.runs.is_empty(),
        };
        if !room || config.suspend || context.shared.draining.is_some() {
            return;
        }
        let trigger = match config.trigger {
            Trigger::Every(_) => TriggerKind::Every,
            Trigger::Once => TriggerKind::Once,
            Trigger::Continuous { .. } | Trigger::Manual => TriggerKind::Manual,
        };
        let pending = Pending { trigger, due: context.now, payload: Payload::default() };
        let run = self.start_on(version.number, version.loaded.digest, pending, false, context);
        self.versions.newest = Newest::Trying { version, run: Some(run) };
    }
}
