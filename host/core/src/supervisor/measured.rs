//! What is measured of a run in progress from sample to sample, and the verdict that follows from it.

use std::time::Duration;

use super::run::{Phase, Run};
use crate::config::Plugin;
use crate::event::{Sample, Starved};
use crate::health::Progress;
use crate::time::{Mono, Now, Timestamp};
use crate::verdict::{self, Deadline, Facts, HostCall, Lack, Parts, Verdict};

/// What is known of an attempt besides what it has used up.
#[derive(Debug)]
pub(super) struct Measured {
    /// Time spent in host calls that had to wait.
    pub(super) waiting: Duration,
    pub(super) progress: Option<(Progress, Timestamp)>,
    call: Option<HostCall>,
    call_since: Option<Timestamp>,
    parts: Parts,
    /// When the shell was asked to start it.
    pub(super) asked: Mono,
    /// When it last had a slice, as far as samples tell; before the first: since when it waits for one.
    last_slice: Now,
    /// Runnable, and without a slice since the sample before the last.
    has_no_slice: bool,
    judged: Option<Judged>,
}

/// The verdict as of the last sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged {
    doing: Verdict,
    pub(super) verdict: Verdict,
    /// Since when it is at what it is at.
    since: Timestamp,
}

impl Measured {
    /// Of an attempt that waits for its first slice from now on.
    pub(super) fn new(now: Now) -> Measured {
        Measured {
            waiting: Duration::ZERO,
            progress: None,
            call: None,
            call_since: None,
            parts: Parts::default(),
            asked: now.mono,
            last_slice: now,
            has_no_slice: false,
            judged: None,
        }
    }

    /// It has had its first slice: what was concluded from its waiting is over.
    pub(super) fn begun(&mut self, now: Now) {
        self.moved(now);
        self.judged = None;
    }

    /// It has had a slice, or has been given what it waited for.
    pub(super) fn moved(&mut self, now: Now) {
        self.last_slice = now;
        self.has_no_slice = false;
    }
}

impl Run {
    /// Takes in a sample, and judges the run anew.
    pub(super) fn take(&mut self, sample: Sample, config: &Plugin, silent: Option<Timestamp>, now: Now) {
        let Sample { usage, waiting, call, in_call, is_queued, memory_bytes, progress } = sample;
        let before = self.usage;
        let measured = &mut self.measured;
        let passed = usage.elapsed.saturating_sub(before.elapsed);
        let queued = usage.starved.saturating_sub(before.starved).min(passed);
        let cpu = usage.cpu.saturating_sub(before.cpu);
        // A wait goes on until the next slice, so that the time in the queue before that is in both: it counts as queued.
        let room = passed.saturating_sub(queued).saturating_sub(cpu);
        let waited = waiting.saturating_sub(measured.waiting).min(room);
        // The rest was spent on a lane, which includes a lane that the kernel gave no CPU to.
        let computing = passed.saturating_sub(queued).saturating_sub(waited);
        measured.parts.take(Parts {
            computing: computing.as_secs_f64(),
            waiting: waited.as_secs_f64(),
            queued: queued.as_secs_f64(),
        });
        match is_queued && cpu.is_zero() {
            true => measured.has_no_slice = true,
            false => measured.moved(now),
        }
        measured.waiting = waiting;
        measured.call = call;
        measured.call_since = in_call.map(|ago| before_now(now, ago));
        if let Some((progress, ago)) = progress {
            measured.progress = Some((progress, before_now(now, ago)));
        }
        self.usage = usage;
        self.memory_bytes = memory_bytes;
        let judged = self.measured.judged;
        let facts = self.facts(config, silent);
        let doing = verdict::doing(&facts, judged.map(|judged| judged.doing));
        let verdict = verdict::judge(&facts, doing, now.mono);
        let since = match judged.filter(|judged| judged.doing == doing) {
            Some(judged) => judged.since,
            None => self.began.filter(|_| judged.is_none()).map_or(now.wall, |began| began.wall),
        };
        self.measured.judged = Some(Judged { doing, verdict, since });
    }

    /// The verdict of the last sample, if there was one.
    pub(super) fn judged(&self) -> Option<Judged> {
        self.measured.judged
    }

    /// The verdict at this moment, with a sentence. None between two attempts, and before there is anything to judge by.
    pub(super) fn verdict(&self, config: &Plugin, silent: Option<Timestamp>, now: Now) -> Option<(Verdict, String)> {
        let facts = self.facts(config, silent);
        let (doing, since) = match (self.phase, facts.lacks, self.measured.judged) {
            (Phase::Pausing { .. }, ..) => return None,
            (Phase::Waiting | Phase::Running { .. }, Some((lack, since)), _) => (Verdict::Starved(lack), since),
            (Phase::Waiting | Phase::Running { .. }, None, Some(judged)) => (judged.doing, judged.since),
            (Phase::Waiting | Phase::Running { .. }, None, None) => return None,
        };
        let verdict = verdict::judge(&facts, doing, now.mono);
        Some((verdict, verdict::sentence(&facts, verdict, doing, since, now)))
    }

    /// The host call that it waits in, and since when.
    pub(super) fn waiting_for(&self) -> Option<(HostCall, Timestamp)> {
        self.measured.call.zip(self.measured.call_since)
    }

    /// What keeps it from having a slice, and since when.
    pub(super) fn lacks(&self) -> Option<(Lack, Now)> {
        match (&self.starving, self.phase) {
            (Some((since, Starved::Memory { .. })), _) => Some((Lack::Memory, *since)),
            (Some((since, Starved::Slots)), _) => Some((Lack::Slots, *since)),
            (None, Phase::Waiting) => Some((Lack::Lanes, self.measured.last_slice)),
            (None, Phase::Running { .. }) if self.measured.has_no_slice => {
                Some((Lack::Lanes, self.measured.last_slice))
            }
            (None, Phase::Running { .. } | Phase::Pausing { .. }) => None,
        }
    }

    fn facts(&self, config: &Plugin, silent_since: Option<Timestamp>) -> Facts<'_> {
        let held_by = match &self.starving {
            Some((_, Starved::Memory { held_by })) => Some(held_by.as_str()),
            Some((_, Starved::Slots)) | None => None,
        };
        Facts {
            parts: self.measured.parts,
            lacks: self.lacks().map(|(lack, since)| (lack, since.wall)),
            held_by,
            call: self.measured.call,
            call_since: self.measured.call_since,
            cpu: (self.usage.cpu, config.limits.cpu),
            fuel: (self.usage.fuel, config.limits.fuel),
            deadline: self.next_deadline(config),
            silent_since,
        }
    }

    fn next_deadline(&self, config: &Plugin) -> Option<Deadline> {
        let of = |began: Mono, limit: Duration, key| Deadline { began, at: began + limit, key };
        let active =
            config.active_deadline.zip(self.began).map(|(limit, began)| of(began.mono, limit, "activeDeadlineSeconds"));
        let attempt = match self.phase {
            Phase::Running { since } => config.attempt_deadline.map(|limit| of(since, limit, "attemptDeadlineSeconds")),
            Phase::Waiting | Phase::Pausing { .. } => None,
        };
        active.into_iter().chain(attempt).min_by_key(|deadline| deadline.at)
    }
}

fn before_now(now: Now, ago: Duration) -> Timestamp {
    let ago = jiff::SignedDuration::try_from(ago).unwrap_or_default();
    now.wall.checked_sub(ago).unwrap_or(now.wall)
}
