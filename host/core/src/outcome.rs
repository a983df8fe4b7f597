//! How an attempt or a run ends, as a value: a plugin's fault is never an error of the host.

use std::time::Duration;

/// How an attempt ended, and with the last attempt the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest returned Ok, or exited with 0.
    Succeeded,
    /// The guest said that it failed, or exited with another code.
    Failed(Failure),
    /// The guest did what WebAssembly forbids: `unreachable`, an index out of bounds, a stack overflow.
    Trapped,
    /// The budget of fuel was used up.
    OutOfFuel,
    /// The budget of CPU time was used up.
    OutOfCpu,
    /// The deadline of the attempt or of the run passed. `starved`: more than half of the time went into waiting for a lane or memory.
    DeadlineExceeded {
        /// Whether the host rather than the guest used up the time.
        starved: bool,
    },
    /// A growth of memory was refused, and the attempt did not succeed.
    OutOfMemory(MemoryLimit),
    /// A capability that the plugin lacks was asked for, and the attempt did not succeed.
    Denied,
    /// The host ended the run.
    Cancelled(CancelReason),
    /// The host died under it.
    Lost,
}

/// What the guest said of its failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Worth another try, after the given pause if the guest named one.
    Transient {
        /// The pause the guest asked for; not yet brought within bounds.
        retry_after: Option<Duration>,
    },
    /// Not worth another try.
    Permanent,
}

/// Whose limit refused the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// The plugin's own `limits.memory`.
    Plugin,
    /// The host's `limits.memory`, for all guests at once: costs no attempt.
    Host,
    /// The same, and the plugin is the largest holder: held against it like its own limit, and as a kill that protects the host.
    LargestHolder,
}

/// Why the host ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// The host shuts down.
    HostShutdown,
    /// `concurrencyPolicy: Replace`, and the next run is due.
    Replaced,
    /// A person asked for it.
    Requested,
    /// The plugin is no longer there.
    Removed,
}

/// Why a start did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// The run before it is still going on, under `concurrencyPolicy: Forbid` or at `maxConcurrent`.
    StillRunning,
    /// Later than `startingDeadlineSeconds`.
    DeadlineMissed,
    /// The plugin is suspended.
    Suspended,
    /// The plugin is in quarantine.
    Quarantined,
    /// The host was not there.
    HostDown,
}

impl Outcome {
    /// The word that log, metric and report use, such as `DeadlineExceeded`; details are in [`Outcome::label`].
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Succeeded => "Succeeded",
            Outcome::Failed(_) => "Failed",
            Outcome::Trapped => "Trapped",
            Outcome::OutOfFuel => "OutOfFuel",
            Outcome::OutOfCpu => "OutOfCpu",
            Outcome::DeadlineExceeded { .. } => "DeadlineExceeded",
            Outcome::OutOfMemory(_) => "OutOfMemory",
            Outcome::Denied => "Denied",
            Outcome::Cancelled(_) => "Cancelled",
            Outcome::Lost => "Lost",
        }
    }

    /// Every word that [`Outcome::name`] can say.
    pub const NAMES: [&'static str; 10] = [
        "Succeeded",
        "Failed",
        "Trapped",
        "OutOfFuel",
        "OutOfCpu",
        "DeadlineExceeded",
        "OutOfMemory",
        "Denied",
        "Cancelled",
        "Lost",
    ];

    /// Every label that has a detail: what [`Outcome::label`] can say besides [`Outcome::NAMES`].
    pub const DETAILED: [&'static str; 7] = [
        "Failed(Permanent)",
        "DeadlineExceeded(Starved)",
        "OutOfMemory(Host)",
        "Cancelled(HostShutdown)",
        "Cancelled(Replaced)",
        "Cancelled(Requested)",
        "Cancelled(Removed)",
    ];

    /// The word with its detail, such as `Cancelled(HostShutdown)` or `DeadlineExceeded(Starved)`.
    pub fn label(&self) -> &'static str {
        match self {
            Outcome::Failed(Failure::Permanent) => "Failed(Permanent)",
            Outcome::DeadlineExceeded { starved: true } => "DeadlineExceeded(Starved)",
            Outcome::OutOfMemory(MemoryLimit::Host) => "OutOfMemory(Host)",
            Outcome::Cancelled(CancelReason::HostShutdown) => "Cancelled(HostShutdown)",
            Outcome::Cancelled(CancelReason::Replaced) => "Cancelled(Replaced)",
            Outcome::Cancelled(CancelReason::Requested) => "Cancelled(Requested)",
            Outcome::Cancelled(CancelReason::Removed) => "Cancelled(Removed)",
            Outcome::Succeeded
            | Outcome::Failed(Failure::Transient { .. })
            | Outcome::Trapped
            | Outcome::OutOfFuel
            | Outcome::OutOfCpu
            | Outcome::DeadlineExceeded { starved: false }
            | Outcome::OutOfMemory(MemoryLimit::Plugin | MemoryLimit::LargestHolder)
            | Outcome::Denied
            | Outcome::Lost => self.name(),
        }
    }
}

impl SkipReason {
    /// All of them.
    pub const ALL: [SkipReason; 5] = [
        SkipReason::StillRunning,
        SkipReason::DeadlineMissed,
        SkipReason::Suspended,
        SkipReason::Quarantined,
        SkipReason::HostDown,
    ];

    /// The word that log, metric and report use.
    pub fn name(self) -> &'static str {
        match self {
            SkipReason::StillRunning => "StillRunning",
            SkipReason::DeadlineMissed => "DeadlineMissed",
            SkipReason::Suspended => "Suspended",
            SkipReason::Quarantined => "Quarantined",
            SkipReason::HostDown => "HostDown",
        }
    }
}

/// What an attempt used up.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Fuel burnt, exactly.
    pub fuel: u64,
    /// CPU time on the lanes.
    pub cpu: Duration,
    /// From the first slice to the end; zero if it never had one.
    pub elapsed: Duration,
    /// Within `elapsed`: time spent runnable but without a lane, or waiting for memory.
    pub starved: Duration,
    /// The largest sum of its linear memories, in bytes.
    pub memory_peak_bytes: u64,
}

/// The end of one attempt, as the lanes tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// For a person: the guest's message, the trap, the limit. At most 1 KiB, control characters escaped; empty on success.
    pub reason: String,
    /// What was refused along the way though the attempt may have succeeded: one line each, at most eight.
    pub refusals: Vec<String>,
    /// The exit code, where the guest is a program and exited.
    pub exit_code: Option<i32>,
    /// What it used up.
    pub usage: Usage,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_of_words_are_what_outcomes_say() {
        let transient = Outcome::Failed(Failure::Transient { retry_after: None });
        let plain = [
            Outcome::Succeeded,
            transient,
            Outcome::Trapped,
            Outcome::OutOfFuel,
            Outcome::OutOfCpu,
            Outcome::DeadlineExceeded { starved: false },
            Outcome::OutOfMemory(MemoryLimit::LargestHolder),
            Outcome::Denied,
        ];
        assert_eq!(plain.each_ref().map(Outcome::label), Outcome::NAMES[..8]);
        let detailed = [
            Outcome::Failed(Failure::Permanent),
            Outcome::DeadlineExceeded { starved: true },
            Outcome::OutOfMemory(MemoryLimit::Host),
            Outcome::Cancelled(CancelReason::HostShutdown),
            Outcome::Cancelled(CancelReason::Replaced),
            Outcome::Cancelled(CancelReason::Requested),
            Outcome::Cancelled(CancelReason::Removed),
        ];
        assert_eq!(detailed.each_ref().map(Outcome::label), Outcome::DETAILED);
    }
}
