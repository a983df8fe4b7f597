//! The switch from one version to another, and what may undo it: a version that breaks within its probation gives its place back.

use super::super::run::{GRACE, Run};
use super::choice::Recalling;
use super::ending::Counts;
use super::versions::{Before, Newest, Part, Tenure};
use super::{Checking, Context, Life, PluginState, SelfReport, Version};
use crate::config::Trigger;
use crate::event::{Action, Hand, Note};
use crate::health::{Stage, Status};
use crate::name::{Digest, RunId};
use crate::outcome::{CancelReason, Ended, Outcome};
use crate::time::{Mono, Timestamp};

impl PluginState {
    /// What a run that ends was, so that it counts where it belongs.
    pub(in crate::supervisor) fn part(&self, run: &Run) -> Part {
        match (&self.versions.newest, &self.life) {
            (Newest::Trying { run: Some(trial), .. }, _) if *trial == run.id => Part::Trial,
            (_, Life::Ready(live)) if live.number == run.version => Part::Live,
            _ => Part::Old,
        }
    }

    /// Whether a run in progress is on the live version: what others say of themselves says nothing of the plugin as it is.
    pub(super) fn is_on_live(&self, run: RunId) -> bool {
        self.runs.iter().any(|known| known.id == run && self.part(known) == Part::Live)
    }

    /// What a run's end means for its version.
    pub(in crate::supervisor) fn judge_version(&mut self, part: Part, ended: &Ended, context: &mut Context<'_>) {
        match part {
            Part::Old => {
                // A continuous plugin's old run made way for the new version.
                if let Some(Trigger::Continuous { .. }) = self.config.as_ref().map(|config| config.trigger)
                    && self.quarantine.is_none()
                    && context.shared.draining.is_none()
                    && matches!(self.life, Life::Ready(_))
                {
                    self.next_due = Some(context.now);
                }
            }
            Part::Trial => self.judge_trial(ended, context),
            Part::Live => self.judge_probation(ended, context),
        }
    }

    fn judge_trial(&mut self, ended: &Ended, context: &mut Context<'_>) {
        let Newest::Trying { version, .. } = &self.versions.newest else { return };
        let version = version.clone();
        match Counts::of(&ended.outcome) {
            Counts::Success => self.go_live(version, context),
            Counts::Failure => self.reject(&version, &format!("its trial run ended {}", words(ended)), context),
            // The host's doing: it told nothing of the candidate.
            Counts::Nothing => self.versions.newest = Newest::Trying { version, run: None },
        }
    }

    fn judge_probation(&mut self, ended: &Ended, context: &mut Context<'_>) {
        let Tenure::Probation { runs_left, until, before, .. } = &mut self.versions.tenure else { return };
        match Counts::of(&ended.outcome) {
            Counts::Failure if before.failing != Some(ended.outcome.name()) => {
                self.roll_back(&format!("a run ended {}", words(ended)), context);
            }
            Counts::Success | Counts::Failure => {
                *runs_left = runs_left.saturating_sub(1);
                if *runs_left == 0 && until.is_none() {
                    self.end_probation(context);
                }
            }
            Counts::Nothing => {}
        }
    }

    /// Looks at how the live version is, while it is watched. Called after everything that may have changed that.
    pub(in crate::supervisor) fn watch_probation(&mut self, context: &mut Context<'_>) {
        let Tenure::Probation { until, before, .. } = &self.versions.tenure else { return };
        let (until, before) = (*until, *before);
        if let Some(why) = self.unwell(context.now.mono).filter(|_| !before.unwell) {
            return self.roll_back(&why, context);
        }
        if until.is_some_and(|until| until <= context.now.mono) {
            self.end_probation(context);
        }
    }

    /// Unhealthy by its own word, or by its silence. What its runs come to is judged at their ends.
    fn unwell(&self, now: Mono) -> Option<String> {
        match &self.checking.last {
            Some(Ok(report)) if report.status == Status::Unhealthy => {
                return Some(format!("its health check says: {}", report.description));
            }
            Some(Err(why)) => return Some(format!("its health check failed: {why}")),
            Some(Ok(_)) | None => {}
        }
        if let Some(report) = self.report.shown.as_ref().filter(|report| report.status == Status::Unhealthy) {
            return Some(format!("it says: {}", report.description));
        }
        self.silent_at().filter(|at| *at <= now).map(|_| "it gave no sign of life".to_owned())
    }

    fn end_probation(&mut self, context: &mut Context<'_>) {
        if let Tenure::Probation { previous, .. } = std::mem::replace(&mut self.versions.tenure, Tenure::Trusted) {
            self.versions.previous = Some(previous);
        }
        if let Life::Ready(live) = &self.life {
            let digest = live.loaded.digest;
            self.note_stage(digest, Stage::Proven, "", context);
        }
    }

    /// The candidate failed at what it was tried with.
    pub(super) fn reject(&mut self, version: &Version, why: &str, context: &mut Context<'_>) {
        let digest = version.loaded.digest;
        self.note_stage(digest, Stage::Refused, why, context);
        let live = match &self.life {
            Life::Ready(live) => format!(", version {} goes on", live.number.0),
            Life::Loading { .. } | Life::Refused { .. } | Life::Ignored | Life::Leaving => String::new(),
        };
        let why = format!("version {} ({}) is refused{live}: {why}", version.number.0, digest.short());
        self.versions.bad = Some((digest, why.clone()));
        self.versions.newest = Newest::Rejected { why };
    }

    /// The live version proved bad, or a person says so: the last good one takes over again.
    fn roll_back(&mut self, why: &str, context: &mut Context<'_>) {
        let previous = match std::mem::replace(&mut self.versions.tenure, Tenure::Trusted) {
            Tenure::Probation { previous, .. } => Some(previous),
            Tenure::Trusted => self.versions.previous.take(),
        };
        let (Some(previous), Life::Ready(bad)) = (previous, &self.life) else { return };
        let (number, digest) = (bad.number, bad.loaded.digest);
        self.note_stage(digest, Stage::RolledBack, why, context);
        let why = format!(
            "version {} ({}) was rolled back to version {} at {}: {why}",
            number.0,
            digest.short(),
            previous.number.0,
            clock(context.now.wall)
        );
        let good = previous.loaded.digest;
        self.switch(previous, context);
        self.versions.previous = None;
        // A candidate that came meanwhile goes on with its own trial, unless it is what took over: a file that was put back.
        if self.versions.coming().is_some_and(|coming| coming.loaded.digest == good) {
            self.versions.newest = Newest::Live;
        } else if matches!(self.versions.newest, Newest::Live) {
            self.versions.newest = Newest::Rejected { why: why.clone() };
        }
        self.versions.bad = Some((digest, why));
    }

    /// A version that was accepted, checked and tried takes over.
    pub(super) fn go_live(&mut self, version: Version, context: &mut Context<'_>) {
        let before = Before {
            failing: self.last_failure.as_ref().filter(|_| self.failures_in_row > 0).map(|(_, how, _)| how.name()),
            unwell: self.unwell(context.now.mono).is_some(),
        };
        let probation = version.config.probation;
        let continuous = matches!(version.config.trigger, Trigger::Continuous { .. });
        let until = continuous.then(|| context.now.mono + probation.time);
        self.versions.newest = Newest::Live;
        self.versions.bad = None;
        let digest = version.loaded.digest;
        let replaced = self.switch(version, context);
        // A version that had not proved itself is no good to go back to: then it is the one before it.
        let last_good = match std::mem::replace(&mut self.versions.tenure, Tenure::Trusted) {
            Tenure::Trusted => replaced,
            Tenure::Probation { previous, .. } => Some(previous),
        };
        // One that is back at the last good version itself is that: it has nothing to prove, and there is nothing before it.
        if let Some(previous) = last_good.filter(|previous| previous.loaded.digest != digest) {
            self.versions.previous = None;
            self.versions.tenure = Tenure::Probation { runs_left: probation.runs, until, previous, before };
        }
    }

    /// The switch itself. Returns the version that was live.
    fn switch(&mut self, mut version: Version, context: &mut Context<'_>) -> Option<Version> {
        version.since = context.now.wall;
        let (digest, config, has_check) = (version.loaded.digest, version.config.clone(), version.loaded.has_check);
        let replaced = match std::mem::replace(&mut self.life, Life::Ready(version)) {
            Life::Ready(old) => Some(old),
            Life::Loading { .. } | Life::Refused { .. } | Life::Ignored | Life::Leaving => None,
        };
        if let Some(old) = &replaced {
            let old = old.loaded.digest;
            self.note_stage(old, Stage::Replaced, "", context);
        }
        // An artifact that runs once has done so, though others came between.
        let was_live = self.versions.record(digest).history.iter().any(|(_, stage, _)| *stage == Stage::Live);
        self.note_stage(digest, Stage::Live, "", context);
        let before = replaced.as_ref().and(self.config.as_ref()).map(|config| config.trigger);
        let escalates_every = self.config.as_ref().map(|config| config.health.escalate_every).unwrap_or_default();
        self.reconfigure(config, context.now);
        if self.versions.last_live.replace(digest) != Some(digest) {
            self.failures_in_row = 0;
            self.last_failure = None;
            self.failed_at.clear();
            self.quarantine = None;
            self.kills.clear();
            // The silence of another version is not held against this one.
            self.sign_due = None;
            self.once_done = was_live;
            self.report = SelfReport::default();
        }
        self.checking = Checking::default();
        self.hand_over_escalation(digest, escalates_every, context);
        if context.shared.draining.is_none() {
            self.plan_version(before, context);
            if has_check {
                self.check(context);
            }
        }
        replaced
    }

    /// When the new version first runs: as planned, but for what runs once per version or all the time.
    fn plan_version(&mut self, before: Option<Trigger>, context: &mut Context<'_>) {
        let Some(trigger) = self.config.as_ref().map(|config| config.trigger) else { return };
        match trigger {
            Trigger::Continuous { .. } if !self.runs.is_empty() => {
                self.next_due = None;
                self.ask_all(CancelReason::Replaced, Some(context.now.mono + GRACE), context);
            }
            Trigger::Once if !self.once_done && before == Some(trigger) => self.next_due = Some(context.now),
            Trigger::Continuous { .. } => self.next_due = Some(context.now),
            Trigger::Once | Trigger::Every(_) | Trigger::Manual => return self.replan(before, context),
        }
        if self.next_due.is_some_and(|due| due.mono <= context.now.mono) {
            self.fall_due(context);
        }
    }

    /// Asks all runs to end, and those between two attempts end at once.
    pub(in crate::supervisor) fn ask_all(
        &mut self,
        reason: CancelReason,
        kill_at: Option<Mono>,
        context: &mut Context<'_>,
    ) {
        for run in self.runs.iter_mut().filter(|run| run.asked.is_none()) {
            run.asked = Some((reason, kill_at));
            context.actions.push(Action::Ask { run: run.id });
            let plugin = self.name.clone();
            context.actions.push(Action::Note(Note::Cancelling { plugin, run: run.id, reason }));
        }
        let paused: Vec<RunId> = self.runs.iter().filter(|run| run.retry_at().is_some()).map(|run| run.id).collect();
        for id in paused {
            self.end_paused(id, Outcome::Cancelled(reason), "it was asked to end between two attempts", context);
        }
    }

    /// Its entry or its file is gone: nothing starts any more, and what runs is asked to end.
    pub(in crate::supervisor) fn leave(&mut self, life: Life, why: &str, context: &mut Context<'_>) {
        self.leave_loading(context);
        self.forget_choice(context);
        if let Life::Ready(live) = std::mem::replace(&mut self.life, life) {
            self.note_stage(live.loaded.digest, Stage::Replaced, why, context);
        }
        self.versions.newest = Newest::Live;
        self.versions.tenure = Tenure::Trusted;
        self.versions.previous = None;
        self.next_due = None;
        self.triggered.clear();
        self.replacing = None;
        self.quarantine = None;
        self.sign_due = None;
        self.checking.next = None;
        self.checking.last = None;
        let kill_at = context.now.mono + context.shared.drain;
        self.ask_all(CancelReason::Removed, Some(kill_at), context);
    }

    /// Whether nothing is left of a plugin that was removed.
    pub(in crate::supervisor) fn is_gone(&self) -> bool {
        matches!(self.life, Life::Leaving) && self.runs.is_empty()
    }

    /// Tells the shell which versions' code nobody needs any more.
    pub(in crate::supervisor) fn retire_unused(&mut self, context: &mut Context<'_>) {
        let live = match &self.life {
            Life::Ready(live) => Some(live),
            Life::Loading { .. } | Life::Refused { .. } | Life::Ignored | Life::Leaving => None,
        };
        if self.versions.held.len() == usize::from(live.is_some()) {
            return;
        }
        let newest = match &self.versions.newest {
            Newest::AwaitingGrant { version, .. } | Newest::Checking { version } | Newest::Trying { version, .. } => {
                Some(version)
            }
            Newest::Live | Newest::Loading { .. } | Newest::Rejected { .. } => None,
        };
        let watched = match &self.versions.tenure {
            Tenure::Probation { previous, .. } => Some(previous),
            Tenure::Trusted => None,
        };
        let recalling = self.recalling.as_ref().map(Recalling::newer);
        let used: Vec<Digest> = [live, newest, watched, recalling, self.versions.previous.as_ref()]
            .into_iter()
            .flatten()
            .map(|version| version.loaded.digest)
            .chain(self.runs.iter().map(|run| run.digest))
            .collect();
        let (kept, unused): (Vec<Digest>, Vec<Digest>) =
            std::mem::take(&mut self.versions.held).into_iter().partition(|digest| used.contains(digest));
        self.versions.held = kept;
        for digest in unused {
            self.note_stage(digest, Stage::Freed, "", context);
            context.actions.push(Action::Retire { plugin: context.id, digest });
        }
    }

    /// What a person asks of the versions. Returns what was done, or why it cannot be.
    pub(in crate::supervisor) fn by_hand(&mut self, hand: Hand, context: &mut Context<'_>) -> Result<String, String> {
        let Life::Ready(live) = &self.life else {
            return Err("it has no version that runs".to_owned());
        };
        let live = live.number.0;
        match (hand, self.versions.newest.clone()) {
            (Hand::Swap, Newest::AwaitingGrant { version, .. }) => {
                let number = version.number.0;
                self.check_candidate(version, context);
                Ok(format!("version {number} is accepted, after version {live}"))
            }
            (Hand::Swap, Newest::Rejected { .. }) => {
                self.versions.bad = None;
                self.versions.newest = Newest::Loading { matter: self.versions.matter() };
                context.actions.push(Action::Reload { plugin: context.id });
                Ok(format!("the newer artifact is loaded and tried again; version {live} goes on until then"))
            }
            (Hand::Swap, Newest::Live) => Err(format!("there is nothing newer than version {live}")),
            (Hand::Swap, Newest::Loading { .. } | Newest::Checking { .. } | Newest::Trying { .. }) => {
                Err(self.versions.candidate().unwrap_or_default())
            }
            (Hand::Rollback, _) => {
                let before = match &self.versions.tenure {
                    Tenure::Probation { previous, .. } => Some(previous.number.0),
                    Tenure::Trusted => self.versions.previous.as_ref().map(|previous| previous.number.0),
                };
                let Some(before) = before else {
                    return Err(format!("there is no older version than {live} to go back to"));
                };
                self.roll_back("by hand", context);
                Ok(format!("version {before} took over from version {live}"))
            }
        }
    }
}

fn words(ended: &Ended) -> String {
    match ended.reason.as_str() {
        "" => ended.outcome.label().to_owned(),
        reason => format!("{}, {reason}", ended.outcome.label()),
    }
}

fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
