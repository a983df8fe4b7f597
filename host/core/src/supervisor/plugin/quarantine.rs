//! What follows a run: the pause of a continuous plugin, and the quarantine of one that fails too often.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::run::{Killed, Pending, Run};
use super::ending::Counts;
use super::{Cause, Context, PluginState, Quarantine, later};
use crate::backoff;
use crate::config::{Plugin, Trigger};
use crate::event::{Payload, TriggerKind};
use crate::outcome::{CancelReason, MemoryLimit, Outcome};
use crate::time::{Mono, Now};

/// Failed runs of this long ago no longer count towards a quarantine.
const QUARANTINE_WINDOW: Duration = Duration::from_secs(3600);

/// The pauses of a quarantine, each with one trial run after it.
const QUARANTINE_PAUSES: [Duration; 4] =
    [Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(900), Duration::from_secs(3600)];

/// So many kills within [`QUARANTINE_WINDOW`] are one too many.
const KILLS: usize = 3;

/// A continuous plugin that has not failed for so long begins its pauses anew.
const CONTINUOUS_FORGIVES: Duration = Duration::from_secs(600);

/// The pause of a step; the last holds for all beyond.
pub(super) fn pause_of(step: usize) -> Duration {
    QUARANTINE_PAUSES.get(step).copied().unwrap_or(QUARANTINE_WINDOW)
}

fn forget_old(moments: &mut VecDeque<Mono>, now: Mono) {
    while moments.front().is_some_and(|at| now.since(*at) > QUARANTINE_WINDOW) {
        moments.pop_front();
    }
}

impl PluginState {
    pub(super) fn plan_restart(&mut self, verdict: Counts, context: &mut Context<'_>) {
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

    pub(super) fn count_towards_quarantine(&mut self, was_trial: bool, now: Now) {
        let Some(config) = self.config.clone() else { return };
        // A continuous plugin that had been well for long begins anew.
        if let (Trigger::Continuous { .. }, Some(last)) = (config.trigger, self.failed_at.back())
            && now.mono.since(*last) > CONTINUOUS_FORGIVES
        {
            self.failures_in_row = 1;
        }
        self.failed_at.push_back(now.mono);
        forget_old(&mut self.failed_at, now.mono);
        let limit = config.health.failure_threshold.saturating_mul(2);
        while self.failed_at.len() > limit as usize {
            self.failed_at.pop_front();
        }
        let cause = Cause::Failures(u32::try_from(self.failed_at.len()).unwrap_or(u32::MAX));
        match self.quarantine {
            Some(quarantine) if was_trial => {
                let step = (quarantine.step + 1).min(QUARANTINE_PAUSES.len() - 1);
                self.quarantine_from(step, cause, now);
            }
            Some(_) => {}
            // Where an operator asked for it, the pod is restarted first, unless it was a short while ago.
            None if !config.health.quarantine || self.restart_comes_first(now.mono) => {}
            None if self.failed_at.len() < limit as usize => {}
            None => self.quarantine_from(0, cause, now),
        }
    }

    /// Notes the kill of an attempt that had to be killed to protect the host. True if it was one too many.
    ///
    /// Three are enough, however the runs ended: what kills protect are all the others. These count:
    /// - `OutOfCpu`: it took more of the lanes than an operator gave it;
    /// - `OutOfMemory` while it held the most of the guests' memory, so that nobody else got any;
    /// - it was asked to end, since the next run replaces it, and did not.
    ///
    /// These do not: `OutOfFuel` (an exact budget is part of a job's result), its own `limits.memory` (the growth was refused, and
    /// nobody else lacked it), a deadline (it says how long a result is worth waiting for, and a sleeping run costs nothing), and
    /// what a shutdown cut off.
    pub(super) fn count_kill(&mut self, run: &Run, outcome: &Outcome, now: Now) -> bool {
        let counts = match outcome {
            Outcome::OutOfCpu | Outcome::OutOfMemory(MemoryLimit::LargestHolder) => true,
            Outcome::Cancelled(CancelReason::Replaced | CancelReason::Requested) => {
                run.killed == Some(Killed::Cancelled)
            }
            Outcome::Cancelled(CancelReason::HostShutdown | CancelReason::Removed)
            | Outcome::OutOfMemory(MemoryLimit::Plugin | MemoryLimit::Host)
            | Outcome::Succeeded
            | Outcome::Failed(_)
            | Outcome::Trapped
            | Outcome::OutOfFuel
            | Outcome::DeadlineExceeded { .. }
            | Outcome::Denied
            | Outcome::Lost => false,
        };
        if !counts {
            return false;
        }
        self.kills.push_back(now.mono);
        forget_old(&mut self.kills, now.mono);
        let may = self.config.as_ref().is_some_and(|config| config.health.quarantine);
        let too_many = may && self.kills.len() >= KILLS;
        if too_many && self.quarantine.is_none() {
            self.quarantine_from(0, Cause::Kills(u32::try_from(self.kills.len()).unwrap_or(u32::MAX)), now);
            // Counted once: a trial that succeeds ends the quarantine, and the next three begin anew.
            self.kills.clear();
        }
        too_many
    }

    fn quarantine_from(&mut self, step: usize, cause: Cause, now: Now) {
        let period = match self.config.as_ref().map(|config| config.trigger) {
            Some(Trigger::Every(period)) => Some(period),
            Some(Trigger::Once | Trigger::Continuous { .. } | Trigger::Manual) | None => None,
        };
        let pause = pause_of(step);
        let pause = period.map_or(pause, |period| pause.min(period));
        self.quarantine = Some(Quarantine { step, until: Some(later(now, pause)), cause });
    }

    pub(super) fn begin_trial(&mut self, context: &mut Context<'_>) {
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
                quarantine.until = Some(later(context.now, pause_of(0)));
            }
            return;
        }
        self.start(Pending { trigger, due: context.now, payload: Payload::default() }, true, context);
    }
}
