//! The health fold: from what happened to a status, a sentence that says why, and the view that the report shows. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::plugin::{Life, Quarantine, Versions};
use super::run::{Phase, Run};
use crate::config::amount::show_duration;
use crate::config::{Plugin, Trigger};
use crate::event::Starved;
use crate::health::{PluginView, Report, RunView, State, Status, Totals, VersionView};
use crate::name::PluginName;
use crate::outcome::Outcome;
use crate::time::{Now, Timestamp};

/// What the fold looks at.
pub(super) struct Facts<'a> {
    pub(super) now: Now,
    pub(super) name: &'a PluginName,
    pub(super) source: &'a Arc<str>,
    pub(super) config: Option<&'a Plugin>,
    pub(super) life: &'a Life,
    pub(super) runs: &'a [Run],
    pub(super) last_runs: &'a VecDeque<RunView>,
    pub(super) totals: &'a Totals,
    pub(super) next_due: Option<Now>,
    pub(super) failures_in_row: u32,
    pub(super) last_failure: Option<&'a (Now, Outcome, String)>,
    pub(super) quarantine: Option<Quarantine>,
    pub(super) last_success: Option<Timestamp>,
    /// Since when a sign of life is due, if that is longer ago than it may be.
    pub(super) silent: Option<Now>,
    /// Whether a run has waited for memory or a slot for longer than it may.
    pub(super) starved: bool,
    pub(super) check: Option<&'a Result<Report, String>>,
    pub(super) report: Option<&'a Report>,
    pub(super) suspended_since: Timestamp,
    pub(super) versions: &'a Versions,
}

/// State, status and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) state: State,
    pub(super) status: Status,
    pub(super) description: String,
}

impl Default for Standing {
    fn default() -> Standing {
        Standing { state: State::Loading, status: Status::Degraded, description: String::new() }
    }
}

/// How a plugin stands, from the facts alone.
pub(super) fn standing(facts: &Facts<'_>) -> Standing {
    let is = |state, status, description: String| Standing { state, status, description };
    match facts.life {
        Life::Ignored => {
            is(State::Ignored, Status::Healthy, "has no entry in `plugins`, and discover is false".to_owned())
        }
        Life::Refused { reason } => is(State::Refused, Status::Unhealthy, reason.clone()),
        Life::Loading { nth: None } => is(State::Loading, Status::Degraded, "waiting to be compiled".to_owned()),
        Life::Loading { nth: Some((nth, of)) } => {
            is(State::Loading, Status::Degraded, format!("compiling, {nth} of {of}"))
        }
        Life::Leaving => {
            let left = facts.runs.len();
            is(State::Active, Status::Healthy, format!("its entry is gone; {left} runs are asked to end"))
        }
        Life::Ready(_) if facts.config.is_some_and(|config| config.suspend) => {
            is(State::Suspended, Status::Healthy, format!("suspended since {}", clock(facts.suspended_since)))
        }
        Life::Ready(_) => {
            let state = match facts.quarantine {
                Some(_) => State::Quarantined,
                None if facts.versions.awaits_grant() => State::AwaitingGrant,
                None => State::Active,
            };
            let (status, description) = worst(facts);
            is(state, status, description)
        }
    }
}

/// Whether nothing at all is the matter, which most steps leave it at: told without writing a word.
pub(super) fn is_plainly_well(facts: &Facts<'_>) -> bool {
    matches!(facts.life, Life::Ready(_))
        && !facts.config.is_some_and(|config| config.suspend)
        && facts.quarantine.is_none()
        && facts.versions.matter().is_none()
        && facts.silent.is_none()
        && facts.failures_in_row == 0
        && facts.check.is_none_or(|check| check.as_ref().is_ok_and(|report| report.status == Status::Healthy))
        && facts.report.is_none_or(|report| report.status == Status::Healthy)
        && facts.runs.iter().all(|run| run.retry_at().is_none())
        && !facts.starved
}

/// The worst of all that is the matter; what is said first is the cause, so the order below matters among equals.
fn worst(facts: &Facts<'_>) -> (Status, String) {
    let mut matters: Vec<(Status, String)> = Vec::new();
    let last_words = facts.last_failure.map_or_else(String::new, |(_, outcome, reason)| {
        if reason.is_empty() { format!(": {}", outcome.label()) } else { format!(": {}, {reason}", outcome.label()) }
    });
    if let Some(quarantine) = facts.quarantine {
        let next = match quarantine.until {
            Some(until) => format!("trial run at {}", clock(until.wall)),
            None => "trial run now or at the next start".to_owned(),
        };
        matters.push((
            Status::Unhealthy,
            format!("in quarantine after {} failed runs, {next}{last_words}", quarantine.failures),
        ));
    }
    if let Some(matter) = facts.versions.matter() {
        matters.push((Status::Degraded, matter));
    }
    if let Some(since) = facts.silent {
        let silence = show_duration(std::time::Duration::from_secs(facts.now.mono.since(since.mono).as_secs()));
        matters.push((Status::Unhealthy, format!("no sign of life for {silence}, since {}", clock(since.wall))));
    }
    let threshold = facts.config.map_or(3, |config| config.health.failure_threshold);
    let failures = facts.failures_in_row;
    if failures > 0 {
        let status = if failures >= threshold { Status::Unhealthy } else { Status::Degraded };
        let runs = if failures == 1 { "run" } else { "runs" };
        let again = match facts.config.map(|config| config.trigger) {
            Some(Trigger::Once) => "; it will not run again before the next host start",
            _ => "",
        };
        matters.push((status, format!("{failures} failed {runs} in a row{again}{last_words}")));
    }
    match facts.check {
        Some(Ok(check)) if check.status != Status::Healthy => {
            matters.push((check.status, format!("its health check says: {}", check.description)));
        }
        Some(Err(why)) => matters.push((Status::Unhealthy, format!("its health check failed: {why}"))),
        Some(Ok(_)) | None => {}
    }
    if let Some(report) = facts.report.filter(|report| report.status != Status::Healthy) {
        matters.push((report.status, format!("it says: {}", report.description)));
    }
    if let Some((run, at)) = facts.runs.iter().find_map(|run| Some((run, run.retry_at()?))) {
        let of = facts.config.map_or(0, |config| config.backoff_limit) + 1;
        let next = run.attempt + 1;
        matters.push((Status::Degraded, format!("attempt {next} of {} at {}{last_words}", of.max(next), clock(at))));
    }
    if let Some((since, of)) = facts.runs.iter().filter(|_| facts.starved).find_map(|run| run.starving.as_ref()) {
        let (what, held) = match of {
            Starved::Memory { held_by } => ("memory", format!(", held by {held_by}")),
            Starved::Slots => ("slots", ": limits.maxConcurrentRuns is reached".to_owned()),
        };
        matters.push((Status::Degraded, format!("starved of {what} since {}{held}", clock(since.wall))));
    }
    let worst = matters.iter().map(|(status, _)| *status).max().unwrap_or(Status::Healthy);
    match matters.into_iter().find(|(status, _)| *status == worst) {
        Some(matter) => matter,
        None => (Status::Healthy, healthy(facts)),
    }
}

fn healthy(facts: &Facts<'_>) -> String {
    if let Some(report) = facts.report.filter(|report| !report.description.is_empty()) {
        return format!("it says: {}", report.description);
    }
    if let Some(run) = facts.runs.first() {
        return match (run.phase, &run.starving) {
            (Phase::Waiting, Some((_, Starved::Memory { .. }))) => "waiting for memory".to_owned(),
            (Phase::Waiting, Some((_, Starved::Slots))) => "waiting for a slot".to_owned(),
            (Phase::Waiting, None) => "waiting for a lane".to_owned(),
            (Phase::Running { .. } | Phase::Pausing { .. }, _) => match run.began {
                Some(began) => format!("running since {}", clock(began.wall)),
                None => "running".to_owned(),
            },
        };
    }
    match (facts.last_success, facts.last_runs.front()) {
        (Some(at), _) => format!("last run succeeded at {}", clock(at)),
        (None, Some(run)) => format!("last run: {}", run.outcome.label()),
        (None, None) => "has not run yet".to_owned(),
    }
}

/// The view of a plugin.
pub(super) fn view(facts: &Facts<'_>) -> PluginView {
    let Standing { state, status, description } = standing(facts);
    let version = match facts.life {
        Life::Ready(version) => Some(VersionView {
            number: version.number,
            digest: version.loaded.digest,
            author_version: version.loaded.author_version.clone(),
            loaded: version.since,
        }),
        Life::Loading { .. } | Life::Refused { .. } | Life::Ignored | Life::Leaving => None,
    };
    let mut data = BTreeMap::new();
    for report in [facts.check.and_then(|check| check.as_ref().ok()), facts.report].into_iter().flatten() {
        data.extend(report.data.iter().cloned());
    }
    if let Some(run) = facts.last_runs.front()
        && !run.refusals.is_empty()
    {
        data.insert("refused".to_owned(), run.refusals.join("; "));
    }
    let mut totals = facts.totals.clone();
    for run in facts.runs.iter().filter(|run| !matches!(run.phase, Phase::Pausing { .. })) {
        totals.cpu += run.usage.cpu;
        totals.fuel = totals.fuel.saturating_add(run.usage.fuel);
    }
    let escalates = facts.config.is_some_and(|config| config.health.escalate)
        && matches!(state, State::Active | State::AwaitingGrant)
        && status == Status::Unhealthy;
    PluginView {
        name: facts.name.clone(),
        state,
        status,
        description,
        exception: facts.last_failure.map(|(_, outcome, reason)| match reason.as_str() {
            "" => outcome.label().to_owned(),
            reason => format!("{}: {reason}", outcome.label()),
        }),
        tags: facts.config.map_or_else(|| Arc::from([]), |config| config.tags.as_slice().into()),
        labels: Arc::new(facts.config.map_or_else(BTreeMap::new, |config| config.labels.clone())),
        data,
        source: facts.source.clone(),
        trigger: trigger(facts.config).into(),
        version,
        candidate: facts.versions.candidate(),
        versions: facts.versions.records(),
        running: facts.runs.iter().map(Run::view).collect(),
        last_runs: facts.last_runs.iter().cloned().collect(),
        next_run: next_run(facts),
        last_success: facts.last_success,
        failures_in_row: facts.failures_in_row,
        totals,
        escalates,
    }
}

fn next_run(facts: &Facts<'_>) -> Option<Timestamp> {
    if facts.config.is_none_or(|config| config.suspend) {
        return None;
    }
    let quarantined = facts.quarantine.and_then(|quarantine| quarantine.until).map(|until| until.wall);
    let retry = facts.runs.iter().filter_map(Run::retry_at).min();
    retry.or(quarantined).or(facts.next_due.map(|due| due.wall))
}

fn trigger(config: Option<&Plugin>) -> String {
    match config.map(|config| config.trigger) {
        Some(Trigger::Every(period)) => format!("every {}", show_duration(period)),
        Some(Trigger::Once) => "once".to_owned(),
        Some(Trigger::Continuous { .. }) => "continuous".to_owned(),
        Some(Trigger::Manual) => "manual".to_owned(),
        None => String::new(),
    }
}

/// A moment as reports show it: to the second, in UTC.
fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
