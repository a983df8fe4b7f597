//! Verdicts: what a run in progress is at, concluded from what the host measures and without the guest's help. Pure.
//!
//! Two questions, asked in this order. Is something about to happen to the run: is it [`Verdict::Silent`], or close to its deadline
//! or its budget? If not: which of computing, waiting in a host call and queueing had the largest part of its time lately?

use std::fmt;
use std::time::Duration;

use crate::config::amount::show_duration;
use crate::time::{Mono, Now, Timestamp};

/// From which part of a budget or a deadline on a run counts as near it: late enough to be rare, and early enough to act on.
pub const NEAR: f64 = 0.9;

/// What is kept of the time before, at each sample: with one a second, half of what counts is from the last two and a half seconds.
/// A guest that computes for a second and waits for a second in turns keeps one verdict.
const KEPT: f64 = 0.75;

/// How much larger the new part must be, as a part of the whole, before the verdict changes: what is about even stays what it was.
const MARGIN: f64 = 0.25;

/// What the host concluded about a run; the worst of two is the larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It burns fuel on the lanes.
    Computing,
    /// It is parked in a host call.
    Waiting(HostCall),
    /// It could go on, and lacks what the host has too little of.
    Starved(Lack),
    /// It has used up nine tenths of a budget.
    NearBudget(Budget),
    /// Nine tenths of its time are over.
    NearDeadline,
    /// Its plugin has given no sign of life for longer than `maxSilenceSeconds`.
    Silent,
}

/// A host call that can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum HostCall {
    /// A poll in which everything waited for is a timer: the guest sleeps.
    Clock = 1,
    /// A poll of anything else.
    Poll,
    /// A blocking read or skip of a stream.
    StreamRead,
    /// A blocking write, flush or splice of a stream.
    StreamWrite,
    /// The poll of preview 1 where everything waited for is a timer.
    Preview1Clock,
    /// The poll of preview 1 of anything else.
    Preview1Poll,
}

impl HostCall {
    /// All of them.
    pub const ALL: [HostCall; 6] = [
        HostCall::Clock,
        HostCall::Poll,
        HostCall::StreamRead,
        HostCall::StreamWrite,
        HostCall::Preview1Clock,
        HostCall::Preview1Poll,
    ];

    /// The interface that the guest called, as it is named in WIT.
    pub fn name(self) -> &'static str {
        match self {
            HostCall::Clock => "wasi:clocks/monotonic-clock",
            HostCall::Poll => "wasi:io/poll",
            HostCall::StreamRead => "wasi:io/streams.blocking-read",
            HostCall::StreamWrite => "wasi:io/streams.blocking-write",
            HostCall::Preview1Clock => "poll_oneoff of a clock",
            HostCall::Preview1Poll => "poll_oneoff",
        }
    }
}

/// What a run lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lack {
    /// The lanes are full.
    Lanes,
    /// The host's `limits.memory` is spent.
    Memory,
    /// `limits.maxConcurrentRuns` is reached.
    Slots,
}

impl Lack {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Lack::Lanes => "lanes",
            Lack::Memory => "memory",
            Lack::Slots => "slots",
        }
    }
}

/// Which budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Budget {
    /// `limits.fuel`
    Fuel,
    /// `limits.cpuSeconds`
    Cpu,
}

impl Budget {
    /// Its key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Budget::Fuel => "limits.fuel",
            Budget::Cpu => "limits.cpuSeconds",
        }
    }
}

impl Verdict {
    /// Every word that [`Verdict::name`] can say.
    pub const NAMES: [&'static str; 6] = ["Computing", "Waiting", "Starved", "NearBudget", "NearDeadline", "Silent"];

    /// The word, without its detail.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Computing => "Computing",
            Verdict::Waiting(_) => "Waiting",
            Verdict::Starved(_) => "Starved",
            Verdict::NearBudget(_) => "NearBudget",
            Verdict::NearDeadline => "NearDeadline",
            Verdict::Silent => "Silent",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Waiting(call) => write!(f, "Waiting({})", call.name()),
            Verdict::Starved(lack) => write!(f, "Starved({})", lack.name()),
            Verdict::NearBudget(budget) => write!(f, "NearBudget({})", budget.key()),
            Verdict::Computing | Verdict::NearDeadline | Verdict::Silent => f.write_str(self.name()),
        }
    }
}

/// Where a run's time went; what is newer weighs more.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Parts {
    /// On a lane, in seconds.
    pub computing: f64,
    /// Parked in host calls, in seconds.
    pub waiting: f64,
    /// Runnable without a lane, in seconds.
    pub queued: f64,
}

impl Parts {
    /// Takes in where the time since the last sample went.
    pub fn take(&mut self, lately: Parts) {
        self.computing = self.computing * KEPT + lately.computing;
        self.waiting = self.waiting * KEPT + lately.waiting;
        self.queued = self.queued * KEPT + lately.queued;
    }

    fn of(&self, verdict: Verdict) -> f64 {
        match verdict {
            Verdict::Computing => self.computing,
            Verdict::Waiting(_) => self.waiting,
            Verdict::Starved(_) => self.queued,
            Verdict::NearBudget(_) | Verdict::NearDeadline | Verdict::Silent => 0.0,
        }
    }
}

/// A deadline that a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// From when on it counts.
    pub began: Mono,
    /// When it passes.
    pub at: Mono,
    /// Its key in the configuration.
    pub key: &'static str,
}

/// All that a verdict is made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Facts<'a> {
    /// Where its time went lately.
    pub parts: Parts,
    /// What it lacks, if it has had no slice since the last sample for want of it, and since when.
    pub lacks: Option<(Lack, Timestamp)>,
    /// Who holds what it lacks, where that is known.
    pub held_by: Option<&'a str>,
    /// The host call that it waits in or last waited in.
    pub call: Option<HostCall>,
    /// Since when it has been in that call; none if it is not in it now.
    pub call_since: Option<Timestamp>,
    /// CPU time used, and the budget.
    pub cpu: (Duration, Option<Duration>),
    /// Fuel burnt, and the budget.
    pub fuel: (u64, Option<u64>),
    /// The deadline that passes first.
    pub deadline: Option<Deadline>,
    /// Since when its plugin owes a sign of life, if that is longer ago than it may be.
    pub silent_since: Option<Timestamp>,
}

/// What a run is at, whatever may be about to happen to it: the largest part of its time. `before` stays unless another part is
/// clearly larger.
pub fn doing(facts: &Facts<'_>, before: Option<Verdict>) -> Verdict {
    if let Some((lack, _)) = facts.lacks {
        return Verdict::Starved(lack);
    }
    let parts = &facts.parts;
    let starved = Verdict::Starved(Lack::Lanes);
    let waiting = facts.call.map(Verdict::Waiting);
    let mut largest = Verdict::Computing;
    for other in [waiting, Some(starved)].into_iter().flatten() {
        if parts.of(other) > parts.of(largest) {
            largest = other;
        }
    }
    let whole = parts.computing + parts.waiting + parts.queued;
    match before {
        // The same, save that it may wait in another call, or for another thing, than it did.
        Some(before) if before.name() == largest.name() => largest,
        Some(before) if parts.of(largest) - parts.of(before) < MARGIN * whole => match before {
            Verdict::Waiting(_) => waiting.unwrap_or(largest),
            Verdict::Starved(_) => starved,
            Verdict::Computing | Verdict::NearBudget(_) | Verdict::NearDeadline | Verdict::Silent => before,
        },
        Some(_) | None => largest,
    }
}

/// The verdict on a run that is at `doing`. What is about to happen to it comes first, the worst of all before the others.
pub fn judge(facts: &Facts<'_>, doing: Verdict, now: Mono) -> Verdict {
    if facts.silent_since.is_some() {
        return Verdict::Silent;
    }
    let is_near = |deadline: Deadline| {
        let whole = deadline.at.since(deadline.began);
        now.since(deadline.began) >= whole.mul_f64(NEAR)
    };
    if facts.deadline.is_some_and(is_near) {
        return Verdict::NearDeadline;
    }
    if facts.fuel.1.is_some_and(|limit| facts.fuel.0 as f64 >= limit as f64 * NEAR) {
        return Verdict::NearBudget(Budget::Fuel);
    }
    if facts.cpu.1.is_some_and(|limit| facts.cpu.0 >= limit.mul_f64(NEAR)) {
        return Verdict::NearBudget(Budget::Cpu);
    }
    doing
}

/// The verdict in a sentence for a person. `since`: since when it has been at what it is at.
pub fn sentence(facts: &Facts<'_>, verdict: Verdict, doing: Verdict, since: Timestamp, now: Now) -> String {
    let at = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    match verdict {
        Verdict::Computing => {
            format!("computing since {}, {} of CPU time", at(since), whole_seconds(facts.cpu.0))
        }
        Verdict::Waiting(call) => match facts.call_since {
            // Its own clock: a guest that sleeps again and again waits in each call for a moment only.
            Some(call_since) => {
                let long = now.wall.duration_since(call_since.min(now.wall));
                format!("waiting in {} since {}, {}", call.name(), at(call_since), whole_seconds(long.unsigned_abs()))
            }
            None => format!("waiting in {} again and again since {}", call.name(), at(since)),
        },
        Verdict::Starved(lack) => {
            let since = at(facts.lacks.map_or(since, |(_, since)| since));
            match (lack, facts.held_by) {
                (Lack::Lanes, _) if facts.lacks.is_some() => {
                    format!("waiting for a lane since {since}, lanes are full")
                }
                (Lack::Lanes, _) => format!("queued for a lane most of the time since {since}, lanes are full"),
                (Lack::Memory, Some(held)) => format!("waiting for memory since {since}, held by {held}"),
                (Lack::Memory, None) => format!("waiting for memory since {since}"),
                (Lack::Slots, _) => format!("waiting for a slot since {since}, limits.maxConcurrentRuns is reached"),
            }
        }
        Verdict::NearBudget(Budget::Fuel) => {
            let limit = facts.fuel.1.unwrap_or(0);
            format!("near its budget: {} of limits.fuel {limit} burnt; {}", facts.fuel.0, gerund(doing))
        }
        Verdict::NearBudget(Budget::Cpu) => {
            let limit = facts.cpu.1.unwrap_or_default().as_secs_f64();
            let used = facts.cpu.0.as_secs_f64();
            format!("near its budget: {used:.1} of limits.cpuSeconds {limit} used; {}", gerund(doing))
        }
        Verdict::NearDeadline => match facts.deadline {
            Some(deadline) => {
                let left = whole_seconds(deadline.at.since(now.mono));
                format!("near its deadline: {} passes in {left}; {}", deadline.key, gerund(doing))
            }
            None => format!("near its deadline; {}", gerund(doing)),
        },
        Verdict::Silent => {
            let since = at(facts.silent_since.unwrap_or(since));
            format!("no sign of life since {since}; {}", gerund(doing))
        }
    }
}

fn gerund(doing: Verdict) -> String {
    match doing {
        Verdict::Waiting(call) => format!("it waits in {}", call.name()),
        Verdict::Starved(lack) => format!("it is starved of {}", lack.name()),
        Verdict::Computing | Verdict::NearBudget(_) | Verdict::NearDeadline | Verdict::Silent => {
            "it computes".to_owned()
        }
    }
}

fn whole_seconds(time: Duration) -> String {
    show_duration(Duration::from_secs(time.as_secs()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    const NOW: Mono = Mono::START;

    fn facts() -> Facts<'static> {
        Facts {
            parts: Parts::default(),
            lacks: None,
            held_by: None,
            call: None,
            call_since: None,
            cpu: (Duration::ZERO, None),
            fuel: (0, None),
            deadline: None,
            silent_since: None,
        }
    }

    fn parts(computing: f64, waiting: f64, queued: f64) -> Parts {
        Parts { computing, waiting, queued }
    }

    #[test]
    fn the_largest_part_is_what_it_is_at_and_what_is_about_even_stays() {
        let clock = Some(HostCall::Clock);
        let waiting = Verdict::Waiting(HostCall::Clock);
        let starved = Verdict::Starved(Lack::Lanes);
        let cases = [
            (parts(1.0, 0.0, 0.0), None, None, Verdict::Computing),
            (parts(0.1, 0.9, 0.0), clock, None, waiting),
            (parts(0.1, 0.2, 0.7), clock, None, starved),
            // Nothing is known yet: it was given a lane, so it computes.
            (parts(0.0, 0.0, 0.0), None, None, Verdict::Computing),
            (parts(0.4, 0.6, 0.0), clock, Some(Verdict::Computing), Verdict::Computing),
            (parts(0.3, 0.7, 0.0), clock, Some(Verdict::Computing), waiting),
            (parts(0.6, 0.4, 0.0), clock, Some(waiting), waiting),
            (parts(0.0, 0.45, 0.55), clock, Some(waiting), waiting),
            (parts(0.0, 0.3, 0.7), clock, Some(waiting), starved),
            (parts(0.9, 0.0, 0.1), None, Some(starved), Verdict::Computing),
            // In another call than before.
            (parts(0.0, 1.0, 0.0), Some(HostCall::Poll), Some(waiting), Verdict::Waiting(HostCall::Poll)),
        ];
        for (parts, call, before, expected) in cases {
            let facts = Facts { parts, call, ..facts() };
            assert_eq!(doing(&facts, before), expected, "{parts:?} {before:?}");
        }
        let lacks = Some((Lack::Memory, Timestamp::UNIX_EPOCH));
        let facts = Facts { lacks, parts: parts(1.0, 0.0, 0.0), ..facts() };
        assert_eq!(doing(&facts, Some(Verdict::Computing)), Verdict::Starved(Lack::Memory));
    }

    #[test]
    fn what_is_about_to_happen_comes_first() {
        let span = |ago: u64, left: u64| {
            let began = Mono::from_start(Duration::from_secs(1000 - ago));
            let at = Mono::from_start(Duration::from_secs(1000 + left));
            Some(Deadline { began, at, key: "activeDeadlineSeconds" })
        };
        let now = NOW + Duration::from_secs(1000);
        let seconds = Duration::from_secs;
        let silent = Some(Timestamp::UNIX_EPOCH);
        let near = facts();
        let cases = [
            (near, Verdict::Computing),
            (Facts { deadline: span(89, 11), ..near }, Verdict::Computing),
            (Facts { deadline: span(90, 10), ..near }, Verdict::NearDeadline),
            (Facts { fuel: (899, Some(1000)), ..near }, Verdict::Computing),
            (Facts { fuel: (900, Some(1000)), ..near }, Verdict::NearBudget(Budget::Fuel)),
            (Facts { fuel: (u64::MAX, None), ..near }, Verdict::Computing),
            (Facts { cpu: (seconds(8), Some(seconds(10))), ..near }, Verdict::Computing),
            (Facts { cpu: (seconds(9), Some(seconds(10))), ..near }, Verdict::NearBudget(Budget::Cpu)),
            (Facts { fuel: (900, Some(1000)), deadline: span(99, 1), ..near }, Verdict::NearDeadline),
            (Facts { fuel: (900, Some(1000)), deadline: span(99, 1), silent_since: silent, ..near }, Verdict::Silent),
        ];
        for (facts, expected) in cases {
            assert_eq!(judge(&facts, Verdict::Computing, now), expected, "{facts:?}");
        }
    }

    #[test]
    fn turns_of_a_second_keep_one_verdict() {
        let mut lately = Parts::default();
        let mut verdicts = Vec::new();
        let mut before = None;
        for second in 0..60 {
            let computing = if second % 2 == 0 { 1.0 } else { 0.0 };
            lately.take(parts(computing, 1.0 - computing, 0.0));
            let facts = Facts { parts: lately, call: Some(HostCall::Clock), ..facts() };
            before = Some(doing(&facts, before));
            verdicts.extend(before);
        }
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Computing), "{verdicts:?}");
        // A real change is seen within five seconds.
        let mut seconds = 0;
        while before == Some(Verdict::Computing) {
            lately.take(parts(0.0, 1.0, 0.0));
            before = Some(doing(&Facts { parts: lately, call: Some(HostCall::Clock), ..facts() }, before));
            seconds += 1;
        }
        assert!(seconds <= 5, "{seconds}");
    }

    #[test]
    fn sentences_name_the_cause_and_since_when() {
        let now = Now { mono: NOW + Duration::from_secs(100), wall: "2026-01-01T00:01:40Z".parse().unwrap() };
        let since: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let clock = Verdict::Waiting(HostCall::Clock);
        let lanes = Verdict::Starved(Lack::Lanes);
        let deadline = Some(Deadline { began: NOW, at: NOW + Duration::from_secs(105), key: "activeDeadlineSeconds" });
        let cpu = (Duration::from_millis(9_500), Some(Duration::from_secs(10)));
        let cases = [
            (facts(), Verdict::Computing, Verdict::Computing, "computing since 2026-01-01T00:01:00Z, 0s of CPU time"),
            (
                Facts { call_since: Some(since), ..facts() },
                clock,
                clock,
                "waiting in wasi:clocks/monotonic-clock since 2026-01-01T00:01:00Z, 40s",
            ),
            (facts(), clock, clock, "waiting in wasi:clocks/monotonic-clock again and again since"),
            (facts(), lanes, lanes, "queued for a lane most of the time since 2026-01-01T00:01:00Z, lanes are full"),
            (
                Facts { lacks: Some((Lack::Memory, since)), held_by: Some("hog (1Mi)"), ..facts() },
                Verdict::Starved(Lack::Memory),
                Verdict::Starved(Lack::Memory),
                "waiting for memory since 2026-01-01T00:01:00Z, held by hog (1Mi)",
            ),
            (
                Facts { deadline, ..facts() },
                Verdict::NearDeadline,
                clock,
                "activeDeadlineSeconds passes in 5s; it waits",
            ),
            (
                Facts { cpu, ..facts() },
                Verdict::NearBudget(Budget::Cpu),
                Verdict::Computing,
                "near its budget: 9.5 of limits.cpuSeconds 10 used; it computes",
            ),
            (
                Facts { silent_since: Some(since), ..facts() },
                Verdict::Silent,
                lanes,
                "no sign of life since 2026-01-01T00:01:00Z; it is starved of lanes",
            ),
        ];
        for (facts, verdict, doing, expected) in cases {
            let said = sentence(&facts, verdict, doing, since, now);
            assert!(said.contains(expected), "{said:?} lacks {expected:?}");
        }
    }

    #[test]
    fn every_verdict_has_its_word_and_the_order_is_from_well_to_bad() {
        let all = [
            Verdict::Computing,
            Verdict::Waiting(HostCall::Poll),
            Verdict::Starved(Lack::Slots),
            Verdict::NearBudget(Budget::Cpu),
            Verdict::NearDeadline,
            Verdict::Silent,
        ];
        assert!(all.is_sorted());
        assert_eq!(all.map(Verdict::name), Verdict::NAMES);
        assert_eq!(all[1].to_string(), "Waiting(wasi:io/poll)");
        assert_eq!(all[2].to_string(), "Starved(slots)");
        assert_eq!(all[3].to_string(), "NearBudget(limits.cpuSeconds)");
    }
}
