//! The last rung of the ladder: turning `/health/live` red for a plugin, so that its pod is restarted, and not again too soon.
//!
//! A process remembers it here, and the shell over a restart where there is a `dataDir`: a pod whose plugin fails in every new
//! process too is restarted once every `escalateEverySeconds`, and not in a loop.

use std::time::Duration;

use super::super::fold;
use super::{Context, Life, PluginState, later};
use crate::config::Plugin;
use crate::event::{Action, Escalated};
use crate::health::Status;
use crate::name::Digest;
use crate::time::{Mono, Now};

/// Where a plugin's escalation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Escalation {
    /// It may turn `/health/live` red as soon as it is Unhealthy.
    Allowed,
    /// `/health/live` is red for it, for as long as it is Unhealthy.
    Red {
        since: Now,
        /// The artifact that it was at.
        digest: Digest,
    },
    /// It was red for this artifact a while ago, and may not be again before `again`.
    Spent { again: Now, digest: Digest },
}

impl PluginState {
    /// Brings the escalation up to date with how the plugin stands: called after each step.
    pub(in super::super) fn escalate(&mut self, context: &mut Context<'_>) {
        let Some((config, digest)) = self.may_escalate() else {
            self.calm_down();
            return;
        };
        let (every, now) = (config.health.escalate_every, context.now);
        // Another artifact owes nothing for what the one before it did.
        let same = |escalation: &Escalation| match escalation {
            Escalation::Allowed => true,
            Escalation::Red { digest: before, .. } | Escalation::Spent { digest: before, .. } => *before == digest,
        };
        if !same(&self.escalation) {
            self.escalation = Escalation::Allowed;
        }
        if let Escalation::Spent { again, .. } = self.escalation
            && again.mono <= now.mono
        {
            self.escalation = Escalation::Allowed;
        }
        let is_unhealthy = !fold::is_plainly_well(&self.facts(now)) && self.standing(now).status == Status::Unhealthy;
        match self.escalation {
            Escalation::Allowed if is_unhealthy && context.shared.draining.is_none() => {
                self.escalation = Escalation::Red { since: now, digest };
                let escalated = Escalated { plugin: self.name.clone(), digest, at: now.wall };
                context.actions.push(Action::Escalated(escalated));
            }
            Escalation::Red { since, digest } if !is_unhealthy => {
                self.escalation = Escalation::Spent { again: later(since, every), digest };
            }
            Escalation::Allowed | Escalation::Red { .. } | Escalation::Spent { .. } => {}
        }
    }

    /// Another version goes live: what the one before it spent stays spent, should that come back, and likewise for the new one.
    pub(super) fn hand_over_escalation(&mut self, digest: Digest, every: Duration, context: &Context<'_>) {
        /// So many artifacts are remembered.
        const SPENT: usize = 10;
        let before = match self.escalation {
            Escalation::Allowed => None,
            Escalation::Red { since, digest } => Some((digest, later(since, every))),
            Escalation::Spent { again, digest } => Some((digest, again)),
        };
        if let Some(before) = before {
            self.spent.retain(|(of, _)| *of != before.0);
            self.spent.push_front(before);
            self.spent.truncate(SPENT);
        }
        let again = self.spent.iter().find(|(of, _)| *of == digest).map(|(_, again)| *again);
        match again.filter(|again| again.mono > context.now.mono) {
            Some(again) => self.escalation = Escalation::Spent { again, digest },
            None => {
                self.escalation = Escalation::Allowed;
                self.remember_escalation(context.shared.escalated.get(&self.name).cloned().as_ref(), context.now);
            }
        }
    }

    /// Takes over what a host before this one remembered.
    fn remember_escalation(&mut self, before: Option<&Escalated>, now: Now) {
        let Some((config, digest)) = self.may_escalate() else { return };
        let Some(before) = before.filter(|before| before.digest == digest) else { return };
        let every = config.health.escalate_every;
        // The wall clock may have been set since: a time in the future counts as now, so that no clock forbids it for ever.
        let ago = now.wall.duration_since(before.at);
        let ago = if ago.is_negative() { Duration::ZERO } else { ago.unsigned_abs() };
        if let Some(left) = every.checked_sub(ago).filter(|left| !left.is_zero()) {
            self.escalation = Escalation::Spent { again: later(now, left), digest };
        }
    }

    /// Whether a restart of the pod comes before a quarantine.
    pub(super) fn restart_comes_first(&self, now: Mono) -> bool {
        self.may_escalate().is_some()
            && match self.escalation {
                Escalation::Allowed | Escalation::Red { .. } => true,
                Escalation::Spent { again, .. } => again.mono <= now,
            }
    }

    /// When it may be red again.
    pub(super) fn escalates_again(&self) -> Option<Mono> {
        match self.escalation {
            Escalation::Spent { again, .. } => Some(again.mono),
            Escalation::Allowed | Escalation::Red { .. } => None,
        }
    }

    /// The configuration and the artifact, if it is one that may escalate at all: it runs, and an operator asked for it. What could
    /// never run does not: a restart would not heal it.
    fn may_escalate(&self) -> Option<(&Plugin, Digest)> {
        let config = self.config.as_deref().filter(|config| config.health.escalate && !config.suspend)?;
        match &self.life {
            Life::Ready(version) => Some((config, version.loaded.digest)),
            Life::Loading { .. } | Life::Refused { .. } | Life::Ignored | Life::Leaving => None,
        }
    }

    /// It may not escalate (any more): red turns to green, and what was spent stays spent.
    fn calm_down(&mut self) {
        if let Escalation::Red { since, digest } = self.escalation {
            let every = self.config.as_ref().map_or(Duration::ZERO, |config| config.health.escalate_every);
            self.escalation = Escalation::Spent { again: later(since, every), digest };
        }
    }
}
