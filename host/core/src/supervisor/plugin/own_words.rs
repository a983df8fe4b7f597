//! What a plugin says of itself, or does not: the author's check, the guest's reports, silence and starvation.

use std::time::Duration;

use super::{Context, Life, PluginState};
use crate::config::{Plugin, Trigger};
use crate::event::Action;
use crate::health::Report;
use crate::time::{Mono, Now};

/// How often a guest's word on its own health is taken over.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(1);

impl PluginState {
    pub(super) fn check(&mut self, context: &mut Context<'_>) {
        let (Some(config), Life::Ready(live)) = (&self.config, &self.life) else { return };
        if self.checking.in_flight || config.suspend {
            self.checking.next = None;
            return;
        }
        self.checking.in_flight = true;
        self.checking.next = None;
        context.actions.push(Action::Check {
            plugin: context.id,
            digest: live.loaded.digest,
            timeout: config.health.check_timeout,
        });
    }

    pub(super) fn take_report(&mut self, report: Report, now: Mono) {
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

    pub(super) fn sign_of_life(&mut self, now: Now) {
        if matches!(self.config.as_deref(), Some(Plugin { trigger: Trigger::Continuous { .. }, .. })) {
            self.sign_due = Some(now);
        }
    }

    /// When it counts as silent, if nothing happens before.
    pub(super) fn silent_at(&self) -> Option<Mono> {
        let config = self.config.as_ref()?;
        let limit = config.health.max_silence?;
        let counts = !config.suspend && !self.once_done && matches!(self.life, Life::Ready(_));
        self.sign_due.filter(|_| counts).map(|due| due.mono + limit)
    }

    /// When it counts as starved of memory or slots, if nothing happens before. For want of a lane the samples tell.
    pub(super) fn starved_at(&self) -> Option<Mono> {
        let since = self.runs.iter().filter_map(|run| run.starving.as_ref()).map(|(since, _)| since.mono).min()?;
        Some(since + self.may_starve())
    }
}
