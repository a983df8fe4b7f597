//! One run in progress: which attempt it is at, and what the clock may do to it.

use std::time::Duration;

use super::measured::Measured;
use crate::config::Plugin;
use crate::event::{Payload, Starved, TriggerKind};
use crate::health::RunningView;
use crate::name::{Digest, RunId, VersionNumber};
use crate::outcome::{CancelReason, Usage};
use crate::time::{Mono, Now, Timestamp};

/// How long a run that is replaced may take to end by itself.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// A start that has not taken place yet.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) trigger: TriggerKind,
    pub(super) due: Now,
    pub(super) payload: Payload,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) version: VersionNumber,
    pub(super) digest: Digest,
    pub(super) start: Pending,
    /// From 1.
    pub(super) attempt: u32,
    /// Attempts that failed by their own fault: what `backoffLimit` counts.
    pub(super) failed_attempts: u32,
    /// Attempts that ended for want of the host's memory or lanes.
    pub(super) starved_attempts: u32,
    pub(super) phase: Phase,
    /// The first slice of its first attempt.
    pub(super) began: Option<Now>,
    /// It was asked to end, why, and when it is killed if it does not.
    pub(super) asked: Option<(CancelReason, Option<Mono>)>,
    /// It was told to be killed; its end is on the way.
    pub(super) killed: Option<Killed>,
    pub(super) starving: Option<(Now, Starved)>,
    /// Whether it is the trial run of a quarantine.
    pub(super) is_trial: bool,
    pub(super) usage: Usage,
    pub(super) memory_bytes: u64,
    /// The rest of what is measured of the present attempt.
    pub(super) measured: Measured,
    /// Time spent for want of a lane or memory since the run began, over all attempts before the present one.
    pub(super) starved: Duration,
}

/// Where the present attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Given to the shell, and not at its first slice yet.
    Waiting,
    /// Since when its slices go on.
    Running { since: Mono },
    /// Between two attempts.
    Pausing { until: Now },
}

/// Which limit killed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Killed {
    /// `startingDeadlineSeconds` passed before its first slice.
    StartingDeadline,
    /// `attemptDeadlineSeconds`
    AttemptDeadline,
    /// `activeDeadlineSeconds`
    ActiveDeadline,
    /// It was asked to end and did not, or the drain is over.
    Cancelled,
}

impl Run {
    /// The next moment at which the clock does something to it, and what.
    pub(super) fn deadline(&self, config: &Plugin) -> Option<(Mono, Killed)> {
        if self.killed.is_some() {
            return None;
        }
        let active =
            config.active_deadline.zip(self.began).map(|(limit, began)| (began.mono + limit, Killed::ActiveDeadline));
        let own = match self.phase {
            Phase::Waiting if self.began.is_none() => {
                config.starting_deadline.map(|limit| (self.start.due.mono + limit, Killed::StartingDeadline))
            }
            Phase::Running { since } => config.attempt_deadline.map(|limit| (since + limit, Killed::AttemptDeadline)),
            Phase::Waiting | Phase::Pausing { .. } => None,
        };
        let grace = self.asked.and_then(|(_, kill_at)| kill_at).map(|at| (at, Killed::Cancelled));
        [own, active, grace].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Its attempt has begun its first slice, or is over: counts the time that it waited for that, if it is not the first attempt.
    pub(super) fn note_begun(&mut self, now: Mono) {
        if self.attempt > 1 {
            self.starved += now.since(self.measured.asked);
        }
    }

    /// Its attempt is over: counts the time that it starved.
    pub(super) fn note_starved(&mut self, usage: &Usage, now: Mono) {
        if self.phase == Phase::Waiting && usage.elapsed.is_zero() {
            self.note_begun(now);
        }
        self.starved += usage.starved;
    }

    /// Whether the deadline that it was killed for passed for want of a lane or memory. `usage` is the last attempt's, if one was in
    /// progress.
    pub(super) fn has_starved(&self, usage: &Usage, now: Mono) -> bool {
        match self.killed {
            Some(Killed::StartingDeadline) => true,
            Some(Killed::AttemptDeadline) => usage.starved * 2 > usage.elapsed,
            Some(Killed::ActiveDeadline | Killed::Cancelled) | None => {
                let whole = self.began.map_or(Duration::ZERO, |began| now.since(began.mono));
                self.starved * 2 > whole
            }
        }
    }

    pub(super) fn view(&self, config: &Plugin, silent: Option<Timestamp>, now: Now) -> RunningView {
        RunningView {
            run: self.id,
            attempt: self.attempt,
            due: self.start.due.wall,
            started: self.began.map(|began| began.wall),
            retry_at: self.retry_at(),
            usage: self.usage,
            memory_bytes: self.memory_bytes,
            waiting: self.measured.waiting,
            waiting_for: self.waiting_for(),
            progress: self.measured.progress.clone(),
            verdict: self.verdict(config, silent, now),
        }
    }

    pub(super) fn retry_at(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Pausing { until } => Some(until.wall),
            Phase::Waiting | Phase::Running { .. } => None,
        }
    }
}
