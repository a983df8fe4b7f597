//! The report as JSON: pure, from a snapshot. Written in pieces, so that a report on many plugins holds the thread for a moment only.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::timespan::timespan;
use crate::core::health::{
    HostView, LadderView, PluginView, RunView, RunningView, Snapshot, Stage, State, Status, VersionRecord,
};
use crate::core::name::HOST_ENTRY;
use crate::core::time::Timestamp;
use crate::text::shown;

/// One entry in the shape of ASP.NET Core's UI response writer.
#[derive(Serialize)]
struct Entry<'a> {
    data: BTreeMap<&'a str, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    duration: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exception: Option<String>,
    status: Status,
    tags: &'a [String],
}

/// The worst status of all that is part of the report.
pub(super) fn overall(snapshot: &Snapshot) -> Status {
    let plugins = snapshot.plugins.iter().filter(|view| view.state != State::Ignored).map(|view| view.status);
    plugins.chain([snapshot.host.status]).max().unwrap_or(Status::Healthy)
}

/// The report up to its entries. `making` is how long it took to make.
pub(super) fn head(status: Status, making: Duration) -> String {
    format!("{{\"status\":\"{status:?}\",\"totalDuration\":\"{}\",\"entries\":{{", timespan(making))
}

/// What ends the report.
pub(super) const TAIL: &str = "}}";

/// The host's entry: the first of all. `note` is what the health thread itself has to add.
pub(super) fn host_entry(host: &HostView, note: Option<&str>, names_only: bool) -> String {
    let said = [host.description.as_str(), note.unwrap_or_default()];
    let description: Vec<_> = said.into_iter().filter(|text| !text.is_empty()).collect();
    let mut data = BTreeMap::new();
    if !names_only {
        data.insert("version", json!(env!("CARGO_PKG_VERSION")));
        if host.loading > 0 {
            data.insert("loading", json!(host.loading));
        }
        if !host.config_hash.is_empty() {
            data.insert("configHash", json!(host.config_hash));
        }
        if host.draining {
            data.insert("draining", json!(true));
        }
    }
    let entry = Entry {
        data,
        description: (!description.is_empty() && !names_only).then(|| shown(&description.join("; "), 1024)),
        duration: timespan(Duration::ZERO),
        exception: None,
        status: host.status,
        tags: &[],
    };
    named(HOST_ENTRY, &entry)
}

/// One plugin's entry, with the comma before it; empty for one that is only listed.
pub(super) fn plugin_entry(view: &PluginView, names_only: bool) -> String {
    if view.state == State::Ignored {
        return String::new();
    }
    let mut data = BTreeMap::new();
    if !names_only {
        data.extend(view.data.iter().map(|(name, value)| (name.as_str(), json!(value))));
        data.insert("state", json!(view.state));
        if let Some(version) = &view.version {
            data.insert("version", json!(version.number.0));
        }
        if let Some(next) = view.next_run {
            data.insert("nextRun", json!(seconds(next)));
        }
    }
    let entry = Entry {
        data,
        description: (!names_only).then(|| shown(&view.description, 1024)),
        duration: timespan(view.last_runs.first().map_or(Duration::ZERO, |run| run.usage.elapsed)),
        exception: view.exception.as_ref().filter(|_| !names_only).map(|text| shown(text, 1024)),
        status: view.status,
        tags: &view.tags,
    };
    let mut text = String::from(",");
    text.push_str(&named(view.name.as_str(), &entry));
    text
}

fn named(name: &str, entry: &Entry<'_>) -> String {
    // Names, maps of text and numbers: nothing in it can fail to be written.
    let entry = serde_json::to_string(entry).unwrap_or_default();
    let mut text = json!(name).to_string();
    let _ = write!(text, ":{entry}");
    text
}

/// One line of the compact list.
pub(super) fn summary(view: &PluginView, names_only: bool) -> String {
    let mut summary = json!({ "name": view.name, "state": view.state, "status": view.status });
    if let serde_json::Value::Object(map) = &mut summary {
        if !names_only {
            map.insert("description".to_owned(), json!(view.description));
        }
        if let Some(verdict) = view.verdict {
            map.insert("verdict".to_owned(), json!(verdict.to_string()));
        }
        if let Some(version) = &view.version {
            map.insert("version".to_owned(), json!(version.number.0));
        }
        if let Some(run) = view.last_runs.first() {
            map.insert("lastRun".to_owned(), json!({ "outcome": run.outcome.label(), "ended": seconds(run.ended) }));
        }
        if let Some(next) = view.next_run {
            map.insert("nextRun".to_owned(), json!(seconds(next)));
        }
    }
    summary.to_string()
}

/// Everything on one plugin.
pub(super) fn plugin(view: &PluginView, names_only: bool) -> String {
    let mut all = json!({
        "name": view.name,
        "state": view.state,
        "status": view.status,
        "source": *view.source,
        "trigger": *view.trigger,
        "failuresInRow": view.failures_in_row,
        "verdict": view.verdict.map(|verdict| verdict.to_string()),
        "ladder": view.ladder.as_ref().map(|rung| ladder(rung, names_only)),
        "running": view.running.iter().map(|run| running(run, names_only)).collect::<Vec<_>>(),
        "lastRuns": view.last_runs.iter().map(|run| ran(run, names_only)).collect::<Vec<_>>(),
        "totals": {
            "runs": view.totals.runs,
            "skipped": view.totals.skipped.iter().map(|(why, count)| (why.name(), count)).collect::<BTreeMap<_, _>>(),
            "cpuSeconds": view.totals.cpu.as_secs_f64(),
            "fuel": view.totals.fuel,
        },
    });
    if let serde_json::Value::Object(map) = &mut all {
        if !names_only {
            map.insert("description".to_owned(), json!(view.description));
            map.insert("data".to_owned(), json!(view.data));
            if let Some(exception) = &view.exception {
                map.insert("exception".to_owned(), json!(exception));
            }
        }
        if let Some(version) = &view.version {
            map.insert(
                "version".to_owned(),
                json!({
                    "number": version.number.0,
                    "digest": version.digest.to_string(),
                    "authorVersion": version.author_version,
                    "loaded": seconds(version.loaded),
                }),
            );
        }
        let record = |record: &VersionRecord| version_record(record, names_only);
        map.insert("versions".to_owned(), json!(view.versions.iter().map(record).collect::<Vec<_>>()));
        if let Some(candidate) = &view.candidate {
            map.insert("candidate".to_owned(), json!(candidate));
        }
        if let Some(next) = view.next_run {
            map.insert("nextRun".to_owned(), json!(seconds(next)));
        }
        if let Some(last) = view.last_success {
            map.insert("lastSuccess".to_owned(), json!(seconds(last)));
        }
    }
    all.to_string()
}

/// A version's life. What went wrong with it may be a guest's words.
fn version_record(record: &VersionRecord, names_only: bool) -> serde_json::Value {
    let step = |(at, stage, why): &(Timestamp, Stage, String)| match why.is_empty() || names_only {
        true => json!({ "at": seconds(*at), "stage": stage }),
        false => json!({ "at": seconds(*at), "stage": stage, "why": shown(why, 1024) }),
    };
    json!({
        "number": record.number.map(|number| number.0),
        "digest": record.digest.to_string(),
        "authorVersion": record.author_version,
        "history": record.history.iter().map(step).collect::<Vec<_>>(),
    })
}

fn running(run: &RunningView, names_only: bool) -> serde_json::Value {
    let mut all = json!({
        "run": run.run.0,
        "attempt": run.attempt,
        "due": seconds(run.due),
        "started": run.started.map(seconds),
        "retryAt": run.retry_at.map(seconds),
        "cpuSeconds": run.usage.cpu.as_secs_f64(),
        "waitedForLaneSeconds": run.usage.starved.as_secs_f64(),
        "queuedSeconds": run.usage.starved.as_secs_f64(),
        "waitingSeconds": run.waiting.as_secs_f64(),
        "waitingFor": run.waiting_for.map(|(call, since)| json!({ "call": call.name(), "since": seconds(since) })),
        "fuel": run.usage.fuel,
        "memoryBytes": run.memory_bytes,
        "verdict": run.verdict.as_ref().map(|(verdict, _)| verdict.to_string()),
    });
    if let serde_json::Value::Object(map) = &mut all {
        if let Some((progress, at)) = &run.progress {
            let mut said = json!({ "done": progress.done, "total": progress.total, "at": seconds(*at) });
            if let (serde_json::Value::Object(said), false) = (&mut said, names_only) {
                said.insert("message".to_owned(), json!(progress.message));
            }
            map.insert("progress".to_owned(), said);
        }
        if let (Some((_, sentence)), false) = (&run.verdict, names_only) {
            map.insert("because".to_owned(), json!(sentence));
        }
    }
    all
}

fn ladder(ladder: &LadderView, names_only: bool) -> serde_json::Value {
    let mut all = json!({
        "rung": ladder.rung,
        "next": ladder.next.map(seconds),
        "escalatesAgain": ladder.escalates_again.map(seconds),
    });
    if let (serde_json::Value::Object(map), false) = (&mut all, names_only) {
        map.insert("reason".to_owned(), json!(ladder.reason));
    }
    all
}

fn ran(run: &RunView, names_only: bool) -> serde_json::Value {
    let mut all = json!({
        "run": run.run.0,
        "version": run.version.0,
        "attempts": run.attempts,
        "outcome": run.outcome.label(),
        "due": seconds(run.due),
        "ended": seconds(run.ended),
        "duration": timespan(run.usage.elapsed),
        "cpuSeconds": run.usage.cpu.as_secs_f64(),
        "waitedForLaneSeconds": run.usage.starved.as_secs_f64(),
        "fuel": run.usage.fuel,
        "memoryPeakBytes": run.usage.memory_peak_bytes,
    });
    if let (serde_json::Value::Object(map), false) = (&mut all, names_only) {
        if !run.reason.is_empty() {
            map.insert("reason".to_owned(), json!(run.reason));
        }
        if !run.refusals.is_empty() {
            map.insert("refused".to_owned(), json!(run.refusals));
        }
        if let Some(code) = run.exit_code {
            map.insert("exitCode".to_owned(), json!(code));
        }
    }
    all
}

/// A moment to the millisecond, in UTC.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}
