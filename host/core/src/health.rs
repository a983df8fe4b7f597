//! What health says: the types of the report, and the fold that makes a status out of what happened.
//!
//! A [`Snapshot`] is immutable. The supervisor makes one, the shell swaps it in, and the health thread renders it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::name::{Digest, PluginName, RunId, VersionNumber};
use crate::outcome::{Outcome, SkipReason, Usage};
use crate::time::{Now, Timestamp};
use crate::verdict::{HostCall, Verdict};

/// How well something is; the worse of two is the larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Status {
    /// All is well.
    Healthy,
    /// It works, but someone should look.
    Degraded,
    /// It does not do what it is for.
    Unhealthy,
}

/// Where a plugin is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum State {
    /// Its artifact is being verified and compiled.
    Loading,
    /// It runs when it is due.
    Active,
    /// `suspend: true`: nothing starts.
    Suspended,
    /// Failed too often: pauses between trial runs.
    Quarantined,
    /// A newer version asks for capabilities that the present one did not, and waits for a person's word.
    AwaitingGrant,
    /// Cannot run at all.
    Refused,
    /// A file without an entry, while `discover` is off: listed, never run, and no part of `/health`.
    Ignored,
}

impl State {
    /// All of them.
    pub const ALL: [State; 6] =
        [State::Loading, State::Active, State::Suspended, State::Quarantined, State::Refused, State::Ignored];
}

/// What a guest says of its own health; bounded by the shell (texts to 1 KiB, 32 data pairs, control characters escaped).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How it is.
    pub status: Status,
    /// For a person.
    pub description: String,
    /// Names and values.
    pub data: Vec<(String, String)>,
}

/// What a guest last said of how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// Steps in all; 0 if it does not know.
    pub total: u64,
    /// What it is at; bounded and escaped by the shell.
    pub message: String,
}

/// Everything the health port tells, at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When it was made.
    pub taken: Now,
    /// When the host started, on the wall clock.
    pub started: Timestamp,
    /// The entry `windlass`: the host's own status and the reason, empty when Healthy.
    pub host: HostView,
    /// Every plugin, sorted by name; those `Ignored` are among them.
    pub plugins: Arc<[Arc<PluginView>]>,
}

/// The host's own entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    /// How the host is.
    pub status: Status,
    /// Why, for a person.
    pub description: String,
    /// Whether runs are asked to end because the host shuts down.
    pub draining: bool,
    /// How many plugins still load.
    pub loading: usize,
    /// The hash of the configuration that was last taken over; empty where there is no file.
    pub config_hash: String,
}

/// One plugin in the report.
#[derive(Debug, Clone)]
pub struct PluginView {
    /// Its name.
    pub name: PluginName,
    /// Where it is in its life.
    pub state: State,
    /// How it is.
    pub status: Status,
    /// Why, in a sentence for a person.
    pub description: String,
    /// The last failure's own words, while they matter.
    pub exception: Option<String>,
    /// `tags` of its entry.
    pub tags: Arc<[String]>,
    /// `labels` of its entry.
    pub labels: Arc<BTreeMap<String, String>>,
    /// What its last report or check said besides.
    pub data: BTreeMap<String, String>,
    /// Where its artifact comes from, as configured.
    pub source: Arc<str>,
    /// How it is started: `every 30s`, `continuous`, `once`, `manual`.
    pub trigger: Arc<str>,
    /// The version that new runs use; none before the first has loaded.
    pub version: Option<VersionView>,
    /// A newer version that is not live yet, and what it is at: for people, and for who waits until nothing changes.
    pub candidate: Option<String>,
    /// The lives of its last versions, newest first, at most ten.
    pub versions: Arc<[VersionRecord]>,
    /// Runs in progress.
    pub running: Vec<RunningView>,
    /// The last runs that ended, newest first, at most ten.
    pub last_runs: Vec<RunView>,
    /// When its next run is due; none if nothing is planned.
    pub next_run: Option<Timestamp>,
    /// When a run last succeeded.
    pub last_success: Option<Timestamp>,
    /// How many runs failed in a row.
    pub failures_in_row: u32,
    /// Sums since the host started.
    pub totals: Totals,
    /// Whether it turns `/health/live` red: `escalate: OnUnhealthy`, Unhealthy by what happened in this process, and not too
    /// soon after the last time.
    pub escalates: bool,
    /// The worst verdict on its runs in progress.
    pub verdict: Option<Verdict>,
    /// What the host does about its failures; none while there is nothing to do.
    pub ladder: Option<LadderView>,
}

/// How far the host goes for a plugin that fails, from the mildest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Rung {
    /// The attempt failed and is made again, on a fresh instance.
    Retry,
    /// The run failed with all its attempts; the next start goes on as planned.
    NextRun,
    /// Pauses with one trial run after each.
    Quarantine,
    /// `/health/live` is red for it, so that the pod is restarted.
    Escalated,
}

impl Rung {
    /// All of them.
    pub const ALL: [Rung; 4] = [Rung::Retry, Rung::NextRun, Rung::Quarantine, Rung::Escalated];
}

/// The rung that a plugin is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LadderView {
    /// Which.
    pub rung: Rung,
    /// Why, for a person.
    pub reason: String,
    /// When the next step is taken: the next attempt, the trial run, the next start. None if only an event brings it about.
    pub next: Option<Timestamp>,
    /// When it may turn `/health/live` red again; none where it may at any time, or never.
    pub escalates_again: Option<Timestamp>,
}

/// One version of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionView {
    /// Numbered upwards from 1.
    pub number: VersionNumber,
    /// Its artifact.
    pub digest: Digest,
    /// What its author calls it.
    pub author_version: Option<String>,
    /// When it was loaded.
    pub loaded: Timestamp,
}

/// The life of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRecord {
    /// Its number; none as long as it has not loaded.
    pub number: Option<VersionNumber>,
    /// Its artifact.
    pub digest: Digest,
    /// What its author calls it.
    pub author_version: Option<String>,
    /// What happened to it and why, the oldest first, at most sixteen.
    pub history: Vec<(Timestamp, Stage, String)>,
}

/// What happens to a version in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Stage {
    /// Its bytes were read.
    Seen,
    /// It is WebAssembly that this host can call, and its manifest is good.
    Verified,
    /// It is compiled and linked.
    Compiled,
    /// It asks for more than the version before it.
    AwaitingGrant,
    /// Its own health check is called.
    Checking,
    /// A trial run is to succeed first.
    Trying,
    /// New runs use it.
    Live,
    /// It got through its probation.
    Proven,
    /// It proved bad, and the version before it took over again.
    RolledBack,
    /// It never went live: not loadable, or its check or trial failed.
    Refused,
    /// Another version, or none, took its place.
    Replaced,
    /// Its code was let go.
    Freed,
}

/// A run in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningView {
    /// Which run.
    pub run: RunId,
    /// Which attempt.
    pub attempt: u32,
    /// When it was due.
    pub due: Timestamp,
    /// When its first slice began; none while it waits for it.
    pub started: Option<Timestamp>,
    /// When the next attempt begins, while it pauses between two.
    pub retry_at: Option<Timestamp>,
    /// What this attempt has used up, as of about a second ago.
    pub usage: Usage,
    /// What its memories hold, likewise.
    pub memory_bytes: u64,
    /// Time of this attempt spent in host calls that had to wait, likewise.
    pub waiting: Duration,
    /// The host call that it waits in, and since when.
    pub waiting_for: Option<(HostCall, Timestamp)>,
    /// What it said last of how far it is, and when.
    pub progress: Option<(Progress, Timestamp)>,
    /// What the host concluded, with a sentence for a person; none between two attempts and before the first sample.
    pub verdict: Option<(Verdict, String)>,
}

/// A run that ended, with the last attempt's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunView {
    /// Which run.
    pub run: RunId,
    /// Which version executed the last attempt.
    pub version: VersionNumber,
    /// How many attempts it took.
    pub attempts: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, for a person; empty on success.
    pub reason: String,
    /// What was refused along the way.
    pub refusals: Vec<String>,
    /// The exit code of a program.
    pub exit_code: Option<i32>,
    /// When it was due.
    pub due: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// The last attempt's use; `elapsed` is the report's `duration`.
    pub usage: Usage,
}

/// Upper bounds in seconds of the buckets of `windlass_run_duration_seconds`; one more bucket holds the rest.
pub const DURATION_BUCKETS_S: [f64; 9] = [0.005, 0.05, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0];

/// Sums over all runs of one plugin since the host started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// Runs by [`Outcome::name`].
    pub runs: BTreeMap<&'static str, u64>,
    /// Starts that did not happen.
    pub skipped: BTreeMap<SkipReason, u64>,
    /// CPU time of all attempts.
    pub cpu: Duration,
    /// Fuel of all attempts.
    pub fuel: u64,
    /// How many attempts' durations fell into each bucket (not cumulative); one more than [`DURATION_BUCKETS_S`].
    pub duration_buckets: [u64; DURATION_BUCKETS_S.len() + 1],
    /// The sum of those durations, in seconds.
    pub duration_sum_s: f64,
}

impl Snapshot {
    /// Whether every plugin is loaded or refused, so that readiness need not wait.
    pub fn all_loaded(&self) -> bool {
        self.host.loading == 0
    }

    /// Looks a plugin up by its name.
    pub fn plugin(&self, name: &str) -> Option<&Arc<PluginView>> {
        let at = self.plugins.binary_search_by(|view| view.name.as_str().cmp(name)).ok()?;
        self.plugins.get(at)
    }
}
