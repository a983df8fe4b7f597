//! What a kubelet does with a container's probes, as a pure state machine: answers and `now` in, kills and events out. `now` is the time
//! since the bed began. It knows what the documentation of Kubernetes says: probes count in a row, startup holds the others back, a
//! restart waits 0, 10, 20, … 300 seconds, and ten minutes of running make that short again.

use std::time::Duration;

use serde_json::Value as Json;

use crate::Result;

const BACK_OFF_MOST: Duration = Duration::from_secs(300);
const BACK_OFF_FIRST: Duration = Duration::from_secs(10);
const BACK_OFF_FORGOTTEN: Duration = Duration::from_secs(600);

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Startup,
    Readiness,
    Liveness,
}

/// One probe as the Deployment says it, with Kubernetes' defaults for what it does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) path: String,
    pub(super) timeout: Duration,
    initial_delay: Duration,
    period: Duration,
    failure_threshold: u32,
}

/// What came back: a status code, or why there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Status(u16),
    Nothing(String),
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Ask(Kind),
    WaitUntil(Duration),
}

/// What an answer leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    GoOn,
    Kill,
}

/// A line of `kubectl describe pod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) at: Duration,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

struct Watched {
    kind: Kind,
    probe: Probe,
    next: Duration,
    failures: u32,
    has_succeeded: bool,
}

/// One container's kubelet.
pub(super) struct Kubelet {
    watched: Vec<Watched>,
    started: Duration,
    back_off: Duration,
    pub(super) restarts: u32,
    pub(super) events: Vec<Event>,
}

impl Probe {
    /// The probe of this name, if the container has one.
    ///
    /// # Errors
    /// It is not one by HTTP.
    pub(super) fn of(container: &Json, name: &str) -> Result<Option<Probe>> {
        let Some(probe) = container.get(name) else { return Ok(None) };
        let path = probe.pointer("/httpGet/path").and_then(Json::as_str);
        let path = path.ok_or_else(|| format!("{name} has no httpGet.path"))?.to_owned();
        let number = |key: &str, default: u64| probe.get(key).and_then(Json::as_u64).unwrap_or(default);
        let seconds = |key: &str, default: u64| Duration::from_secs(number(key, default));
        Ok(Some(Probe {
            path,
            timeout: seconds("timeoutSeconds", 1),
            initial_delay: seconds("initialDelaySeconds", 0),
            period: seconds("periodSeconds", 10),
            failure_threshold: u32::try_from(number("failureThreshold", 3)).unwrap_or(u32::MAX),
        }))
    }

    /// How long a container that answers no more lives on, at most: the failures in a row, and the last one's timeout.
    pub(super) fn patience(&self) -> Duration {
        self.period * self.failure_threshold + self.timeout
    }
}

impl Kubelet {
    /// For a container as the Deployment has it, not started yet.
    pub(super) fn new(container: &Json) -> Result<Kubelet> {
        let mut watched = Vec::new();
        let names =
            [(Kind::Startup, "startupProbe"), (Kind::Readiness, "readinessProbe"), (Kind::Liveness, "livenessProbe")];
        for (kind, name) in names {
            if let Some(probe) = Probe::of(container, name)? {
                watched.push(Watched { kind, probe, next: Duration::ZERO, failures: 0, has_succeeded: false });
            }
        }
        Ok(Kubelet { watched, started: Duration::ZERO, back_off: Duration::ZERO, restarts: 0, events: Vec::new() })
    }

    /// The probe of a kind.
    pub(super) fn probe(&self, kind: Kind) -> Option<&Probe> {
        self.watched.iter().find(|watched| watched.kind == kind).map(|watched| &watched.probe)
    }

    /// Whether its last answer on readiness was a good one.
    pub(super) fn is_ready(&self) -> bool {
        self.watched.iter().any(|one| one.kind == Kind::Readiness && one.has_succeeded && one.failures == 0)
    }

    /// The container runs from now on.
    pub(super) fn started(&mut self, now: Duration) {
        self.started = now;
        for one in &mut self.watched {
            (one.next, one.failures, one.has_succeeded) = (now + one.probe.initial_delay, 0, false);
        }
        self.tell(now, "Started", "Started container windlass".to_owned());
    }

    /// Which probe is due, or until when none is.
    pub(super) fn next(&self, now: Duration) -> Step {
        let is_up = !self.watched.iter().any(|one| one.kind == Kind::Startup && !one.has_succeeded);
        let asked = self.watched.iter().filter(|one| match one.kind {
            Kind::Startup => !one.has_succeeded,
            Kind::Readiness | Kind::Liveness => is_up,
        });
        match asked.min_by_key(|one| one.next) {
            Some(one) if one.next <= now => Step::Ask(one.kind),
            Some(one) => Step::WaitUntil(one.next),
            None => Step::WaitUntil(now + Duration::from_secs(1)),
        }
    }

    /// Takes an answer to a probe that was asked at `asked`.
    pub(super) fn answered(&mut self, kind: Kind, answer: &Answer, asked: Duration, now: Duration) -> Verdict {
        let Some(one) = self.watched.iter_mut().find(|one| one.kind == kind) else { return Verdict::GoOn };
        one.next = (asked + one.probe.period).max(now);
        let why = match answer {
            Answer::Status(code) if (200..400).contains(code) => {
                (one.failures, one.has_succeeded) = (0, true);
                return Verdict::GoOn;
            }
            Answer::Status(code) => format!("HTTP probe failed with statuscode: {code}"),
            Answer::Nothing(why) => why.clone(),
        };
        one.failures += 1;
        let is_fatal = one.failures >= one.probe.failure_threshold && kind != Kind::Readiness;
        self.tell(now, "Unhealthy", format!("{kind:?} probe failed: {why}"));
        if !is_fatal {
            return Verdict::GoOn;
        }
        let name = format!("{kind:?}").to_lowercase();
        self.tell(now, "Killing", format!("Container windlass failed {name} probe, will be restarted"));
        Verdict::Kill
    }

    /// The container has ended. Returns when it is to be started again.
    pub(super) fn ended(&mut self, now: Duration) -> Duration {
        if now.saturating_sub(self.started) >= BACK_OFF_FORGOTTEN {
            self.back_off = Duration::ZERO;
        }
        let again = now + self.back_off;
        if !self.back_off.is_zero() {
            self.tell(now, "BackOff", "Back-off restarting failed container windlass".to_owned());
        }
        self.back_off = (self.back_off * 2).clamp(BACK_OFF_FIRST, BACK_OFF_MOST);
        self.restarts += 1;
        again
    }

    /// How many events have this reason and this text in them.
    pub(super) fn count(&self, reason: &str, text: &str) -> usize {
        self.events.iter().filter(|event| event.reason == reason && event.message.contains(text)).count()
    }

    /// Adds an event.
    pub(super) fn tell(&mut self, at: Duration, reason: &'static str, message: String) {
        self.events.push(Event { at, reason, message });
    }
}

/// The events as `kubectl describe pod` prints them, the same ones in a row as one line.
pub(super) fn describe(events: &[Event]) -> String {
    let mut text = String::from("  Reason     At       Message\n");
    for same in events.chunk_by(|one, other| (one.reason, &one.message) == (other.reason, &other.message)) {
        let Some(last) = same.last() else { continue };
        let times = if same.len() > 1 { format!(" (x{})", same.len()) } else { String::new() };
        text.push_str(&format!("  {:<10} {:>5.1} s  {}{times}\n", last.reason, last.at.as_secs_f64(), last.message));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;
    use serde_json::json;

    const RED: Answer = Answer::Status(503);
    const GREEN: Answer = Answer::Status(200);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn kubelet() -> Kubelet {
        let probe = |path: &str, period: u64, failures: u64| json!({ "httpGet": { "path": path }, "periodSeconds": period, "failureThreshold": failures });
        let container = json!({
            "startupProbe": probe("/s", 1, 3), "readinessProbe": probe("/r", 5, 1), "livenessProbe": probe("/l", 10, 3),
        });
        let mut kubelet = Kubelet::new(&container).unwrap();
        kubelet.started(at(0));
        kubelet
    }

    fn up(kubelet: &mut Kubelet) {
        assert_eq!(kubelet.next(at(0)), Step::Ask(Kind::Startup));
        assert_eq!(kubelet.answered(Kind::Startup, &GREEN, at(0), at(0)), Verdict::GoOn);
    }

    #[test]
    fn startup_holds_the_others_back_and_kills_in_the_end() {
        let mut kubelet = kubelet();
        for second in 0..3 {
            assert_eq!(kubelet.next(at(second)), Step::Ask(Kind::Startup));
            let verdict = kubelet.answered(Kind::Startup, &RED, at(second), at(second));
            assert_eq!(verdict, if second == 2 { Verdict::Kill } else { Verdict::GoOn });
        }
        assert_eq!(kubelet.count("Unhealthy", "Startup probe failed: HTTP probe failed with statuscode: 503"), 3);
    }

    #[test]
    fn only_failures_in_a_row_kill() {
        let mut kubelet = kubelet();
        up(&mut kubelet);
        let answers = [&RED, &RED, &GREEN, &RED, &RED, &RED];
        let verdicts: Vec<_> = answers.iter().map(|one| kubelet.answered(Kind::Liveness, one, at(1), at(1))).collect();
        assert_eq!(verdicts[..5], [Verdict::GoOn; 5]);
        assert_eq!(verdicts[5], Verdict::Kill);
        assert_eq!(kubelet.count("Killing", "failed liveness probe"), 1);
    }

    #[test]
    fn readiness_never_kills() {
        let mut kubelet = kubelet();
        up(&mut kubelet);
        assert_eq!(kubelet.answered(Kind::Readiness, &GREEN, at(1), at(1)), Verdict::GoOn);
        assert!(kubelet.is_ready());
        for _ in 0..9 {
            assert_eq!(kubelet.answered(Kind::Readiness, &RED, at(1), at(1)), Verdict::GoOn);
        }
        assert!(!kubelet.is_ready());
    }

    #[test]
    fn a_period_runs_from_question_to_question() {
        let mut kubelet = kubelet();
        up(&mut kubelet);
        kubelet.answered(Kind::Readiness, &GREEN, at(1), at(1));
        kubelet.answered(Kind::Liveness, &GREEN, at(1), at(3));
        assert_eq!(kubelet.next(at(3)), Step::WaitUntil(at(6)));
        kubelet.answered(Kind::Readiness, &GREEN, at(6), at(6));
        assert_eq!(kubelet.next(at(11)), Step::Ask(Kind::Readiness));
        kubelet.answered(Kind::Readiness, &GREEN, at(11), at(11));
        assert_eq!(kubelet.next(at(11)), Step::Ask(Kind::Liveness));
    }

    #[test]
    fn restarts_back_off_and_forget() {
        let mut kubelet = kubelet();
        assert_eq!(kubelet.ended(at(10)), at(10));
        kubelet.started(at(10));
        assert_eq!(kubelet.ended(at(20)), at(30));
        kubelet.started(at(30));
        assert_eq!(kubelet.ended(at(40)), at(60));
        kubelet.started(at(60));
        assert_eq!(kubelet.ended(at(700)), at(700));
        assert_eq!((kubelet.restarts, kubelet.count("BackOff", "")), (4, 2));
    }

    #[test]
    fn defaults_are_those_of_kubernetes() {
        let probe =
            Probe::of(&json!({ "livenessProbe": { "httpGet": { "path": "/l" } } }), "livenessProbe").unwrap().unwrap();
        assert_eq!(probe.patience(), at(31));
        assert!(Probe::of(&json!({ "livenessProbe": { "exec": {} } }), "livenessProbe").is_err());
        assert_eq!(Probe::of(&json!({}), "livenessProbe").unwrap(), None);
    }

    #[test]
    fn the_same_event_is_one_line() {
        let mut kubelet = kubelet();
        up(&mut kubelet);
        for second in 1..4 {
            kubelet.answered(Kind::Liveness, &RED, at(second), at(second));
        }
        let text = describe(&kubelet.events);
        assert!(text.contains("statuscode: 503 (x3)\n") && text.lines().count() == 4, "{text}");
    }
}
