//! What goes into the supervisor and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Plugin;
use crate::health::{Progress, Report, Stage};
use crate::name::{Digest, PluginId, PluginName, RunId, VersionNumber};
use crate::outcome::{CancelReason, Ended, Outcome, SkipReason, Usage};
use crate::time::Timestamp;
use crate::verdict::{HostCall, Verdict};

/// Something that happened. All of it comes from the shell, with the time it is told at.
#[derive(Debug, Clone)]
pub enum Event {
    /// The operator's configuration has, or a folder brought, an entry for a plugin: a new one, or another than before.
    Entry {
        /// Whose. An identity that is new makes a new plugin.
        plugin: PluginId,
        /// Its name.
        name: PluginName,
        /// Where its artifact comes from, as configured.
        source: Arc<str>,
        /// What the entry comes to.
        entry: Entry,
    },
    /// The plugin's entry is gone: its runs are asked to end, and then it is forgotten.
    Removed {
        /// Which plugin.
        plugin: PluginId,
    },
    /// The plugin's file is gone while its entry stays: its runs are asked to end, and it stands in the report with `reason`.
    Vanished {
        /// Which plugin.
        plugin: PluginId,
        /// One line that names cause and remedy.
        reason: String,
    },
    /// An artifact was found that may be a newer one, and waits to be loaded: [`Event::Loaded`] or [`Event::Refused`] follows.
    Found {
        /// Whose.
        plugin: PluginId,
    },
    /// How far an artifact has come on its way to a version.
    Staged {
        /// Whose.
        plugin: PluginId,
        /// Which artifact.
        digest: Digest,
        /// How far: [`Stage::Seen`], [`Stage::Verified`] or [`Stage::Compiled`].
        stage: Stage,
    },
    /// The plugin's artifact is being read, verified and compiled.
    Loading {
        /// Whose artifact.
        plugin: PluginId,
    },
    /// A version is ready to run.
    Loaded {
        /// Whose version.
        plugin: PluginId,
        /// The plugin's configuration with what this version's manifest says.
        config: Arc<Plugin>,
        /// What was learnt of it.
        version: Arc<LoadedVersion>,
    },
    /// The version that [`Action::Recall`] asked for is ready to run.
    Recalled {
        /// Whose version.
        plugin: PluginId,
        /// The plugin's configuration with what this version's manifest says.
        config: Arc<Plugin>,
        /// What was learnt of it.
        version: Arc<LoadedVersion>,
    },
    /// The version that [`Action::Recall`] asked for cannot be had.
    NotRecalled {
        /// Whose version.
        plugin: PluginId,
        /// Which artifact.
        digest: Digest,
        /// One line that names the cause.
        reason: String,
    },
    /// A version that the shell holds has another configuration: the entry changed.
    Reconfigured {
        /// Whose.
        plugin: PluginId,
        /// Which version's.
        digest: Digest,
        /// From now on.
        config: Arc<Plugin>,
    },
    /// The newest entry, file or code is no good. It stands in the report with `reason`; a version that runs goes on.
    Refused {
        /// Which plugin.
        plugin: PluginId,
        /// Which artifact, if it came that far.
        digest: Option<Digest>,
        /// One line that names cause and remedy.
        reason: String,
    },
    /// The first slice of the first attempt begins. Left out where the attempt ended within its first poll:
    /// [`Event::Ended`] then says it all.
    Started {
        /// Which run.
        run: RunId,
    },
    /// An attempt is over, whoever ended it.
    Ended {
        /// Which run.
        run: RunId,
        /// How.
        ended: Ended,
    },
    /// The guest said how it is, inside a run.
    Reported {
        /// Which run.
        run: RunId,
        /// What it said; bounded by the shell.
        report: Report,
    },
    /// The guest said that it moves on.
    Progressed {
        /// Which run.
        run: RunId,
    },
    /// The author's own health check returned, or failed to.
    Checked {
        /// Whose check.
        plugin: PluginId,
        /// Which version's.
        digest: Digest,
        /// What it said, or why it said nothing (trapped, timed out).
        result: Result<Report, String>,
    },
    /// The author's own health check ran out of its time for want of a lane: it says nothing, and is not held against the plugin.
    CheckStarved {
        /// Whose check.
        plugin: PluginId,
        /// Which version's.
        digest: Digest,
    },
    /// A manual start.
    Triggered {
        /// Which plugin.
        plugin: PluginId,
        /// What to hand to the guest.
        payload: Payload,
    },
    /// A run that the supervisor started waits for memory or a slot before its first slice (`true`), or no longer does.
    Starving {
        /// Which run.
        run: RunId,
        /// Memory or slots; none when it got what it waited for.
        of: Option<Starved>,
    },
    /// What a run has used up so far, told now and then while it goes on.
    Sampled {
        /// Which run.
        run: RunId,
        /// What was measured.
        sample: Box<Sample>,
    },
    /// Something is wrong with the host that a restart would not heal, or (`None`) no longer is. Shown in the entry `windlass`.
    HostFault {
        /// Which fault; one of a kind at a time.
        key: &'static str,
        /// For a person.
        problem: Option<String>,
    },
    /// The configuration was read and taken over.
    Configured {
        /// The SHA-256 of its files, in hexadecimal digits.
        hash: String,
    },
    /// SIGTERM came: start nothing more, ask all runs to end.
    Drain,
}

/// What an entry comes to.
#[derive(Debug, Clone)]
pub enum Entry {
    /// It is good; its artifact is to be loaded. Without what the manifest will say.
    Wanted(Arc<Plugin>),
    /// It is no good, and this is why.
    Refused(String),
    /// A file that nobody asked to run.
    Ignored,
}

/// What a person asks of a plugin's versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hand {
    /// Take the newer version: accept what it asks for, or try it once more.
    Swap,
    /// Go back to the last good version before the live one.
    Rollback,
}

/// What the shell has measured of a run in progress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// Since its attempt began; `memory_peak_bytes` so far.
    pub usage: Usage,
    /// Within `usage.elapsed`: time spent in host calls that had to wait.
    pub waiting: Duration,
    /// The host call that it waits in or last waited in.
    pub call: Option<HostCall>,
    /// How long it has been waiting in that call; none if it is not in it now.
    pub in_call: Option<Duration>,
    /// Whether it is runnable and has no lane at this moment.
    pub is_queued: bool,
    /// What its memories hold now, in bytes.
    pub memory_bytes: u64,
    /// What it said of how far it is since the last sample, and how long ago.
    pub progress: Option<(Progress, Duration)>,
}

/// What a run lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Starved {
    /// The host's `limits.memory` is spent. `held_by` names the largest holders: "A (512Mi), B (128Mi)".
    Memory {
        /// For a person.
        held_by: String,
    },
    /// `limits.maxConcurrentRuns` is reached.
    Slots,
}

/// What the supervisor knows of a version that can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedVersion {
    /// The artifact.
    pub digest: Digest,
    /// The version that the author gave it, if any.
    pub author_version: Option<String>,
    /// Whether it exports a health check of its own.
    pub has_check: bool,
    /// The capabilities that its author says it needs.
    pub wants: Arc<[String]>,
}

/// What a trigger hands to a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    /// The bytes; empty if there is nothing.
    pub bytes: Arc<[u8]>,
    /// Their media type, if known.
    pub content_type: Option<Arc<str>>,
}

/// What causes a run: the same words as in the WIT contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TriggerKind {
    /// An interval.
    Every,
    /// Once per artifact.
    Once,
    /// All the time.
    Continuous,
    /// By hand.
    Manual,
}

/// Something the shell has to do. The order of the actions of one step is the order to do them in.
#[derive(Debug, Clone)]
pub enum Action {
    /// Run an attempt. The shell answers with [`Event::Ended`], exactly once, whatever happens.
    Start(Start),
    /// Tell the guest that it should end (`is-cancelled` turns true). The shell does nothing more.
    Ask {
        /// Which run.
        run: RunId,
    },
    /// End the attempt now, wherever it is; its [`Event::Ended`] carries `outcome`, unless it ended by itself before.
    Kill {
        /// Which run.
        run: RunId,
        /// What to report: a passed deadline or a cancellation.
        outcome: Outcome,
        /// For a person.
        reason: String,
    },
    /// Call the author's health check, with its own small budget. The shell answers with [`Event::Checked`] or
    /// [`Event::CheckStarved`], exactly once.
    Check {
        /// Whose.
        plugin: PluginId,
        /// Which version's.
        digest: Digest,
        /// How long it may take.
        timeout: Duration,
    },
    /// No run and no decision needs this version any more: let its code go.
    Retire {
        /// Whose.
        plugin: PluginId,
        /// Which version.
        digest: Digest,
    },
    /// Load the plugin's artifact again, though it did not change: a person wants it.
    Reload {
        /// Whose.
        plugin: PluginId,
    },
    /// Load what was kept of this artifact, though the plugin's source holds another one. The shell answers with [`Event::Recalled`] or
    /// [`Event::NotRecalled`], or with what became of a newer artifact.
    Recall {
        /// Whose.
        plugin: PluginId,
        /// Which artifact.
        digest: Digest,
    },
    /// Which version of a plugin runs instead of what its source holds, or (`None`) that none does any more: to be remembered over a
    /// restart, where there is a place to.
    Choice {
        /// Whose.
        plugin: PluginName,
        /// What was decided.
        chosen: Option<Chosen>,
    },
    /// A plugin is forgotten: nothing of it is left.
    Forget {
        /// Which.
        plugin: PluginId,
    },
    /// A plugin turns `/health/live` red from now on: to be remembered over a restart of the process, where there is a place to.
    Escalated(Escalated),
    /// Something to log: every transition and every record passes here, once.
    Note(Note),
}

/// A version that runs although the plugin's source holds a newer artifact: what a host remembers of it, so that the next one runs
/// the same for as long as the source holds that artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Which plugin.
    pub plugin: PluginName,
    /// What runs, and its number, if known.
    pub runs: (Digest, Option<VersionNumber>),
    /// What the source held.
    pub instead_of: (Digest, Option<VersionNumber>),
    /// How that proved bad; none if it asks for what nobody granted yet.
    pub bad: Option<String>,
}

/// A plugin turned `/health/live` red: what a host remembers of it, so that the next one does not do the same too soon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escalated {
    /// Which plugin.
    pub plugin: PluginName,
    /// Which artifact it was at.
    pub digest: Digest,
    /// When.
    pub at: Timestamp,
}

/// One attempt to run.
#[derive(Debug, Clone)]
pub struct Start {
    /// The run; its attempts share it.
    pub run: RunId,
    /// Whose.
    pub plugin: PluginId,
    /// Which version executes it.
    pub version: VersionNumber,
    /// That version's artifact.
    pub digest: Digest,
    /// From 1.
    pub attempt: u32,
    /// What caused the run.
    pub trigger: TriggerKind,
    /// When the run was due.
    pub due: Timestamp,
    /// The same moment on the clock that never jumps, for lateness.
    pub due_mono: crate::time::Mono,
    /// Whether it makes up for a missed start.
    pub made_up: bool,
    /// What is left of the time for this attempt, counted from its first slice; none without a deadline. For the guest's
    /// information: it is the supervisor that ends the attempt.
    pub time_left: Option<Duration>,
    /// What the trigger carried along.
    pub payload: Payload,
}

/// Something that an operator may want to read in the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// One attempt is over: the event of STYLE rule 15, the same fields each time.
    AttemptEnded {
        /// Whose.
        plugin: PluginName,
        /// Which version.
        version: VersionNumber,
        /// Which run.
        run: RunId,
        /// Which attempt, and of how many; none for `continuous`.
        attempt: u32,
        /// `backoffLimit` + 1; none where it does not apply.
        attempts: Option<u32>,
        /// How it ended.
        ended: Ended,
        /// When the next attempt is, if there is one.
        retry_at: Option<Timestamp>,
    },
    /// Starts did not happen: one, or several in a row.
    Skipped {
        /// Whose.
        plugin: PluginName,
        /// When the first of them was due.
        due: Timestamp,
        /// How many.
        times: u64,
        /// Why.
        reason: SkipReason,
    },
    /// A plugin's state, status or description changed.
    Changed {
        /// Whose.
        plugin: PluginName,
        /// From which state and status.
        from: (crate::health::State, crate::health::Status),
        /// To which.
        to: (crate::health::State, crate::health::Status),
        /// Why.
        description: String,
    },
    /// A version moved on in its life.
    Version {
        /// Whose.
        plugin: PluginName,
        /// Which artifact.
        digest: Digest,
        /// Its number, once it has one.
        version: Option<VersionNumber>,
        /// To where.
        stage: Stage,
        /// Why, where there is more to say.
        why: String,
    },
    /// The verdict on a plugin's runs in progress changed, and stands for some time already.
    Verdict {
        /// Whose.
        plugin: PluginName,
        /// The run with the worst verdict.
        run: RunId,
        /// What it was before, if it was told.
        from: Option<Verdict>,
        /// What it is now.
        to: Verdict,
        /// The same in a sentence.
        description: String,
    },
    /// A start by hand was refused, since too many wait already.
    TriggerRefused {
        /// Whose.
        plugin: PluginName,
        /// How many wait.
        waiting: usize,
    },
    /// A run was told to end.
    Cancelling {
        /// Whose.
        plugin: PluginName,
        /// Which run.
        run: RunId,
        /// Why.
        reason: CancelReason,
    },
}
