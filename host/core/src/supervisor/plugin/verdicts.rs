//! The plugin's verdict: the worst of its runs', and when a change of it is worth a line in the log.

use std::time::Duration;

use super::{Context, PluginState};
use crate::config::Trigger;
use crate::event::{Action, Note, Sample};
use crate::name::RunId;
use crate::time::{Mono, Now, Timestamp};
use crate::verdict::{Lack, Verdict};

/// How long a verdict must have stood before it is logged: what is over sooner is of no use to whoever reads the log. Those that say
/// that something is about to happen are logged at once.
const LOGGED_AFTER: Duration = Duration::from_secs(3);

/// How often changes between those that wait for [`LOGGED_AFTER`] are logged at most.
const LOGGED_EVERY: Duration = Duration::from_secs(30);

/// How long a run may be starved, at least, before someone should look.
const STARVED_FOR_LONG: Duration = Duration::from_secs(60);

/// What the log was told last.
#[derive(Debug, Default)]
pub(super) struct ToldVerdict {
    told: Option<(Verdict, Mono)>,
    /// What it has been since then, and since when.
    stands: Option<(Verdict, Mono)>,
}

impl PluginState {
    pub(super) fn sampled(&mut self, id: RunId, sample: Sample, context: &mut Context<'_>) {
        let Some(config) = self.config.clone() else { return };
        let (silent, now) = (self.silent(context.now), context.now);
        let Some(run) = self.run_mut(id) else { return };
        run.take(sample, &config, silent.map(|since| since.wall), now);
        self.note_verdict(silent.map(|since| since.wall), context);
    }

    /// Since when a sign of life is due, if that is longer ago than it may be.
    pub(super) fn silent(&self, now: Now) -> Option<Now> {
        self.silent_at().is_some_and(|at| at <= now.mono).then_some(self.sign_due).flatten()
    }

    /// What a run has been starved of for longer than it may, since when, and which run.
    pub(in super::super) fn starved_for_long(&self, now: Mono) -> Option<(RunId, (Lack, Now))> {
        let limit = self.may_starve();
        let starving = self.runs.iter().filter_map(|run| Some((run.id, run.lacks()?)));
        starving.filter(|(_, (_, since))| since.mono + limit <= now).min_by_key(|(_, (_, since))| since.mono)
    }

    /// How long a run may be starved: the larger of a minute and its period.
    pub(super) fn may_starve(&self) -> Duration {
        let period = match self.config.as_ref().map(|config| config.trigger) {
            Some(Trigger::Every(period)) => period,
            Some(Trigger::Once | Trigger::Continuous { .. } | Trigger::Manual) | None => Duration::ZERO,
        };
        period.max(STARVED_FOR_LONG)
    }

    fn note_verdict(&mut self, silent: Option<Timestamp>, context: &mut Context<'_>) {
        let now = context.now.mono;
        let worst =
            self.runs.iter().filter_map(|run| Some((run.judged()?.verdict, run))).max_by_key(|(worst, _)| *worst);
        let Some((verdict, run)) = worst else { return };
        let stands = self.told_verdict.stands.filter(|(before, _)| *before == verdict);
        let (_, since) = *self.told_verdict.stands.insert(stands.unwrap_or((verdict, now)));
        let told = self.told_verdict.told;
        if told.is_some_and(|(told, _)| told == verdict) {
            return;
        }
        let is_urgent = match verdict {
            Verdict::Computing | Verdict::Waiting(_) | Verdict::Starved(_) => false,
            Verdict::NearBudget(_) | Verdict::NearDeadline | Verdict::Silent => true,
        };
        let is_settled = now.since(since) >= LOGGED_AFTER && told.is_none_or(|(_, at)| now.since(at) >= LOGGED_EVERY);
        if !is_urgent && !is_settled {
            return;
        }
        let Some(config) = self.config.as_deref() else { return };
        let Some((to, description)) = run.verdict(config, silent, context.now) else { return };
        let (plugin, run) = (self.name.clone(), run.id);
        self.told_verdict.told = Some((verdict, now));
        let from = told.map(|(told, _)| told);
        context.actions.push(Action::Note(Note::Verdict { plugin, run, from, to, description }));
    }
}
