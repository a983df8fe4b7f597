//! What ends: late runs, attempts with or without another try, and what the end of a run means for its plugin.

use std::time::Duration;

use super::super::run::{Killed, Phase, Run};
use super::versions::Part;
use super::{Context, Life, PluginState, later};
use crate::backoff;
use crate::config::{Plugin, Trigger};
use crate::event::{Action, Note, TriggerKind};
use crate::health::{DURATION_BUCKETS_S, RunView};
use crate::name::RunId;
use crate::outcome::{CancelReason, Ended, Failure, MemoryLimit, Outcome, SkipReason, Usage};
use crate::time::{Now, Timestamp};

/// How many runs that ended are kept for the report.
const LAST_RUNS: usize = 10;

/// How often an attempt that starved is tried again without costing one.
const STARVED_ATTEMPTS: u32 = 10;

impl PluginState {
    /// Kills what the clock is over for.
    pub(super) fn end_late_runs(&mut self, context: &mut Context<'_>) {
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
    pub(super) fn end_paused(&mut self, id: RunId, mut outcome: Outcome, reason: &str, context: &mut Context<'_>) {
        let Some(at) = self.runs.iter().position(|run| run.id == id) else { return };
        let run = self.runs.remove(at);
        if let Outcome::DeadlineExceeded { starved } = &mut outcome {
            *starved = run.has_starved(&Usage::default(), context.now.mono);
        }
        let ended = Ended {
            outcome,
            reason: reason.to_owned(),
            refusals: Vec::new(),
            exit_code: None,
            usage: Usage { elapsed: run.usage.elapsed, ..Usage::default() },
        };
        self.note_end(&run, &ended, None, context);
        self.finish(run, ended, context);
    }

    pub(super) fn ended(&mut self, id: RunId, mut ended: Ended, context: &mut Context<'_>) {
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
        run.note_starved(&ended.usage, now.mono);
        if let Outcome::DeadlineExceeded { starved } = &mut ended.outcome {
            *starved = run.has_starved(&ended.usage, now.mono);
        }
        let is_one_kill_too_many = self.part(&run) == Part::Live && self.count_kill(&run, &ended.outcome, now);
        let may_retry = run.asked.is_none() && context.shared.draining.is_none() && !is_one_kill_too_many;
        let retry = match run.killed {
            None | Some(Killed::AttemptDeadline) if may_retry => {
                self.retry_pause(&mut run, &ended.outcome, &config, context)
            }
            _ => None,
        };
        let until = retry.map(|pause| later(now, pause));
        self.note_end(&run, &ended, until.map(|until| until.wall), context);
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

    /// Tells the log of the end of an attempt, or of a run between two.
    pub(super) fn note_end(&self, run: &Run, ended: &Ended, retry_at: Option<Timestamp>, context: &mut Context<'_>) {
        let attempts = match self.config.as_ref().map(|config| (config.trigger, config.backoff_limit)) {
            Some((Trigger::Every(_) | Trigger::Once | Trigger::Manual, limit)) => Some(limit.saturating_add(1)),
            Some((Trigger::Continuous { .. }, _)) | None => None,
        };
        context.actions.push(Action::Note(Note::AttemptEnded {
            plugin: self.name.clone(),
            version: run.version,
            run: run.id,
            attempt: run.attempt,
            attempts,
            ended: ended.clone(),
            retry_at,
        }));
    }

    /// How long to pause before the next attempt; none if there is none.
    pub(super) fn retry_pause(
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
            | Outcome::OutOfMemory(MemoryLimit::Plugin | MemoryLimit::LargestHolder) => {
                run.failed_attempts += 1;
                (run.failed_attempts <= config.backoff_limit).then(|| backoff::pause(run.failed_attempts, random))
            }
        }
    }

    /// A run is over with all its attempts: what it means for the plugin.
    pub(super) fn finish(&mut self, run: Run, ended: Ended, context: &mut Context<'_>) {
        let now = context.now;
        let part = self.part(&run);
        if run.killed == Some(Killed::StartingDeadline) {
            self.judge_version(part, &ended, context);
            // It never began: a start that did not take place, not a run that failed.
            context.gone.push(run.id);
            self.skip(&run.start, SkipReason::DeadlineMissed, context);
            context.starved = true;
            return self.after_run(run.is_trial, context);
        }
        let verdict = match part {
            Part::Live => Counts::of(&ended.outcome),
            // How a version that is not live does says nothing of the plugin as it is.
            Part::Old | Part::Trial => Counts::Nothing,
        };
        if matches!(ended.outcome, Outcome::DeadlineExceeded { starved: true }) {
            context.starved = true;
        }
        // What an earlier run said of itself stood until now; what this one said stands until the next ends.
        if self.report.by != Some(run.id) {
            self.report.shown = None;
            self.report.pending = None;
        }
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
        self.record(run, ended.clone(), context);
        if trigger == TriggerKind::Continuous {
            self.plan_restart(verdict, context);
        }
        self.judge_version(part, &ended, context);
        self.after_run(was_trial, context);
    }

    pub(super) fn after_run(&mut self, was_trial: bool, context: &mut Context<'_>) {
        if context.shared.draining.is_some() {
            return;
        }
        if let Some(quarantine) = self.quarantine.as_mut().filter(|quarantine| was_trial && quarantine.until.is_none())
        {
            // The trial told nothing: the same pause again.
            let pause = super::quarantine::pause_of(quarantine.step);
            quarantine.until = Some(later(context.now, pause));
        }
        let has_check = matches!(&self.life, Life::Ready(version) if version.loaded.has_check);
        if has_check {
            self.check(context);
        }
        self.start_waiting(context);
    }

    /// Writes a run that is over into the report.
    pub(super) fn record(&mut self, run: Run, ended: Ended, context: &mut Context<'_>) {
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

    pub(super) fn count_duration(&mut self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        self.totals.duration_sum_s += seconds;
        let bucket = DURATION_BUCKETS_S.iter().position(|bound| seconds <= *bound).unwrap_or(DURATION_BUCKETS_S.len());
        if let Some(count) = self.totals.duration_buckets.get_mut(bucket) {
            *count += 1;
        }
    }
}

/// What the end of a run counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    Success,
    Failure,
    /// The host's doing, or nobody's.
    Nothing,
}

impl Counts {
    pub(super) fn of(outcome: &Outcome) -> Counts {
        match outcome {
            Outcome::Succeeded => Counts::Success,
            Outcome::Failed(_)
            | Outcome::Trapped
            | Outcome::OutOfFuel
            | Outcome::OutOfCpu
            | Outcome::DeadlineExceeded { starved: false }
            | Outcome::OutOfMemory(MemoryLimit::Plugin | MemoryLimit::LargestHolder)
            | Outcome::Denied => Counts::Failure,
            Outcome::DeadlineExceeded { starved: true }
            | Outcome::OutOfMemory(MemoryLimit::Host)
            | Outcome::Cancelled(_)
            | Outcome::Lost => Counts::Nothing,
        }
    }
}
