//! The health fold: from what happened to a status, a sentence that says why, and the view that the report shows. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::plugin::{Cause, Escalation, Life, Quarantine, Versions};
use super::run::{Phase, Run};
use crate::config::amount::show_duration;
use crate::config::{Plugin, Trigger};
use crate::event::Starved;
use crate::health::{LadderView, PluginView, Report, RunView, Rung, RunningView, State, Status, Totals, VersionView};
use crate::name::{PluginName, RunId};
use crate::outcome::Outcome;
use crate::time::{Now, Timestamp};
use crate::verdict::{Lack, Verdict};

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
    /// The run that has been starved for longer than it may, of what, and since when.
    pub(super) starved: Option<(RunId, (Lack, Now))>,
    pub(super) escalation: Escalation,
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
            let (status, mut description) = worst(facts);
            if status == Status::Unhealthy {
                description.push_str(&escalation(facts));
            }
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
        && facts.starved.is_none()
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
        let cause = cause_of(quarantine);
        matters.push((Status::Unhealthy, format!("in quarantine after {cause}, {next}{last_words}")));
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
    if let Some((id, (lack, since))) = facts.starved {
        let starving = facts.runs.iter().find(|run| run.id == id).and_then(|run| run.starving.as_ref());
        let held = match (lack, starving) {
            (Lack::Memory, Some((_, Starved::Memory { held_by }))) => format!(", held by {held_by}"),
            (Lack::Memory, _) => String::new(),
            (Lack::Slots, _) => ": limits.maxConcurrentRuns is reached".to_owned(),
            (Lack::Lanes, _) => ": lanes are full of other runs".to_owned(),
        };
        matters.push((Status::Degraded, format!("starved of {} since {}{held}", lack.name(), clock(since.wall))));
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
    if let Some((_, sentence)) = worst_verdict(facts) {
        return sentence;
    }
    if let Some(run) = facts.runs.first() {
        return match run.began {
            Some(began) => format!("running since {}", clock(began.wall)),
            None => "running".to_owned(),
        };
    }
    match (facts.last_success, facts.last_runs.front()) {
        (Some(at), _) => format!("last run succeeded at {}", clock(at)),
        (None, Some(run)) => format!("last run: {}", run.outcome.label()),
        (None, None) => "has not run yet".to_owned(),
    }
}

/// The worst of the verdicts on its runs, with its sentence.
fn worst_verdict(facts: &Facts<'_>) -> Option<(Verdict, String)> {
    let config = facts.config?;
    let silent = facts.silent.map(|since| since.wall);
    // A plugin with very many runs is told of by the verdicts of the last samples, rather than by as many sentences.
    let worst = facts.runs.iter().max_by_key(|run| run.judged().map(|judged| judged.verdict))?;
    worst.verdict(config, silent, facts.now)
}

fn cause_of(quarantine: Quarantine) -> String {
    match quarantine.cause {
        Cause::Failures(failures) => format!("{failures} failed runs"),
        Cause::Kills(kills) => format!("{kills} kills that protect the host"),
    }
}

/// What escalation adds to the description of an Unhealthy plugin.
fn escalation(facts: &Facts<'_>) -> String {
    match facts.escalation {
        Escalation::Allowed => String::new(),
        Escalation::Red { since, .. } => format!("; /health/live is red for it since {}", clock(since.wall)),
        Escalation::Spent { again, .. } => {
            format!("; /health/live may turn red for it again at {}", clock(again.wall))
        }
    }
}

/// The rung of the ladder that a plugin is on.
fn ladder(facts: &Facts<'_>, standing: &Standing) -> Option<LadderView> {
    let escalates_again = match facts.escalation {
        Escalation::Spent { again, .. } if again.mono > facts.now.mono => Some(again.wall),
        Escalation::Spent { .. } | Escalation::Red { .. } | Escalation::Allowed => None,
    };
    let is = |rung, reason: String, next| Some(LadderView { rung, reason, next, escalates_again });
    let last_words = || match facts.last_failure {
        Some((_, outcome, reason)) if !reason.is_empty() => format!("{}: {reason}", outcome.label()),
        Some((_, outcome, _)) => outcome.label().to_owned(),
        None => String::new(),
    };
    let retry = facts.runs.iter().filter_map(Run::retry_at).min();
    if let Escalation::Red { .. } = facts.escalation {
        return is(Rung::Escalated, standing.description.clone(), next_run(facts));
    }
    if let Some(quarantine) = facts.quarantine {
        let until = quarantine.until.map(|until| until.wall);
        return is(Rung::Quarantine, format!("{}; {}", cause_of(quarantine), last_words()), until);
    }
    if retry.is_some() {
        return is(Rung::Retry, last_words(), retry);
    }
    if facts.failures_in_row > 0 {
        return is(Rung::NextRun, last_words(), next_run(facts));
    }
    None
}

/// The view of a plugin.
pub(super) fn view(facts: &Facts<'_>) -> PluginView {
    let standing = standing(facts);
    let ladder = ladder(facts, &standing);
    let Standing { state, status, description } = standing;
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
    let silent = facts.silent.map(|since| since.wall);
    let running: Vec<RunningView> = facts
        .config
        .map_or_else(Vec::new, |config| facts.runs.iter().map(|run| run.view(config, silent, facts.now)).collect());
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
        verdict: running.iter().filter_map(|run| run.verdict.as_ref()).map(|(verdict, _)| *verdict).max(),
        running,
        last_runs: facts.last_runs.iter().cloned().collect(),
        next_run: next_run(facts),
        last_success: facts.last_success,
        failures_in_row: facts.failures_in_row,
        totals,
        escalates: matches!(facts.escalation, Escalation::Red { .. }),
        ladder,
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
