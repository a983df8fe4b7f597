//! What follows a run: the pause of a continuous plugin, and the quarantine of one that fails too often.

use std::time::Duration;

use super::super::run::Pending;
use super::ending::Counts;
use super::{Context, PluginState, Quarantine, later};
use crate::backoff;
use crate::config::{Plugin, Trigger};
use crate::event::{Payload, TriggerKind};
use crate::time::Now;

/// Failed runs of this long ago no longer count towards a quarantine.
const QUARANTINE_WINDOW: Duration = Duration::from_secs(3600);

/// The pauses of a quarantine, each with one trial run after it.
const QUARANTINE_PAUSES: [Duration; 4] =
    [Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(900), Duration::from_secs(3600)];

/// A continuous plugin that has not failed for so long begins its pauses anew.
const CONTINUOUS_FORGIVES: Duration = Duration::from_secs(600);

/// The pause of a step; the last holds for all beyond.
pub(super) fn pause_of(step: usize) -> Duration {
    QUARANTINE_PAUSES.get(step).copied().unwrap_or(QUARANTINE_WINDOW)
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
        let pause = pause_of(step);
        let pause = period.map_or(pause, |period| pause.min(period));
        let failures = u32::try_from(self.failed_at.len()).unwrap_or(u32::MAX);
        self.quarantine = Some(Quarantine { step, until: Some(later(now, pause)), failures });
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
