//! What `windlass status` is told, as JSON: pure, from a snapshot.

use serde_json::{Value, json};

use crate::core::health::{PluginView, Snapshot, State};
use crate::core::time::Timestamp;

/// Everything at once. `pending` counts what is on its way to be something else: who waits, waits until it is 0.
pub(super) fn report(snapshot: &Snapshot) -> Value {
    let pending = snapshot.plugins.iter().filter(|view| is_pending(view)).count();
    json!({
        "status": snapshot.host.status,
        "description": snapshot.host.description,
        "draining": snapshot.host.draining,
        "configHash": snapshot.host.config_hash,
        "pending": pending,
        "plugins": snapshot.plugins.iter().map(|view| plugin(view)).collect::<Vec<_>>(),
    })
}

fn is_pending(view: &PluginView) -> bool {
    // What awaits a person's word may do so for long.
    view.state == State::Loading || (view.candidate.is_some() && view.state != State::AwaitingGrant)
}

fn plugin(view: &PluginView) -> Value {
    json!({
        "name": view.name,
        "state": view.state,
        "status": view.status,
        "description": view.description,
        "trigger": *view.trigger,
        "candidate": view.candidate,
        "version": view.version.as_ref().map(|version| json!({
            "number": version.number.0,
            "digest": version.digest.to_string(),
            "authorVersion": version.author_version,
        })),
        "running": view.running.len(),
        "lastRun": view.last_runs.first().map(|run| json!({
            "outcome": run.outcome.label(),
            "ended": seconds(run.ended),
        })),
        "nextRun": view.next_run.map(seconds),
    })
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
