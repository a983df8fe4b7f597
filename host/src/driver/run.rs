//! What ties one attempt together: its watcher tells the driver of its start and end, its listener passes on what it says.

use std::sync::Arc;
use std::time::Instant;

use super::inbox::{Inbox, Message};
use crate::core::event::Event;
use crate::core::health::Report;
use crate::core::name::{Digest, PluginId, PluginName, RunId};
use crate::core::time::Mono;
use crate::guest::{CheckAnswer, Line, LineSource, Listener, Probe, Progress};
use crate::health::Board;
use crate::lanes::{End, Meter, Watcher};
use crate::telemetry;

/// Passes on what a guest says in one attempt.
pub(super) struct RunListener {
    pub(super) inbox: Arc<Inbox>,
    pub(super) plugin: PluginName,
    pub(super) run: RunId,
    pub(super) attempt: u32,
    /// Whether what it says of its health counts: not in a health check, which answers by returning.
    pub(super) counts: bool,
}

impl Listener for RunListener {
    fn line(&self, line: &Line<'_>) {
        log_line(&self.plugin, self.run, self.attempt, line);
    }

    fn reported(&self, report: Report) {
        if self.counts {
            self.inbox.send(Message::Event(Event::Reported { run: self.run, report }));
        }
    }

    fn progressed(&self, _: &Progress) {
        if self.counts {
            self.inbox.send(Message::Event(Event::Progressed { run: self.run }));
        }
    }
}

/// Writes a guest's line to the log.
pub(super) fn log_line(plugin: &PluginName, run: RunId, attempt: u32, line: &Line<'_>) {
    let (level, stream) = match line.source {
        LineSource::Stdout => (tracing::Level::INFO, "stdout"),
        LineSource::Stderr => (tracing::Level::INFO, "stderr"),
        LineSource::Log(level) => (level, "log"),
    };
    telemetry::guest_line(plugin.as_str(), run.0, attempt, level, stream, line.text, line.fields);
}

/// Tells the driver how an attempt fares.
pub(super) struct RunWatcher {
    pub(super) inbox: Arc<Inbox>,
    pub(super) board: Arc<Board>,
    pub(super) probe: Arc<Probe>,
    pub(super) run: RunId,
    /// When its first slice was due, on the driver's clock; none for a retry, whose pause is no lateness.
    pub(super) due: Option<Mono>,
    /// The driver's clock.
    pub(super) epoch: Instant,
}

impl RunWatcher {
    fn began(&self, meter: &Meter) {
        if let (Some(due), Some(since)) = (self.due, meter.since_first_poll()) {
            let began = Mono::from_start(self.epoch.elapsed()) - since;
            self.board.observe_lateness(began.since(due));
        }
    }
}

impl Watcher for RunWatcher {
    fn started(&self, meter: &Meter) {
        self.began(meter);
        self.inbox.send(Message::Event(Event::Started { run: self.run }));
    }

    fn ended(&self, end: End, meter: &Meter) {
        if meter.polls() == 1 && end == End::Returned {
            self.began(meter);
        }
        let ended = self.probe.ended(end, meter);
        self.inbox.send(Message::Event(Event::Ended { run: self.run, ended }));
    }
}

/// Tells the driver what a health check answered.
pub(super) struct CheckWatcher {
    pub(super) inbox: Arc<Inbox>,
    pub(super) probe: Arc<Probe>,
    pub(super) plugin: PluginId,
    pub(super) digest: Digest,
    pub(super) answer: CheckAnswer,
}

impl Watcher for CheckWatcher {
    fn started(&self, _: &Meter) {}

    fn ended(&self, end: End, meter: &Meter) {
        let answer = self.answer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        // More than half of its time, or all of it before a first slice: the host's doing.
        let has_starved = meter.polls() == 0 || meter.waited() * 2 > meter.elapsed();
        if end == End::Killed && has_starved {
            self.inbox.send(Message::Event(Event::CheckStarved { plugin: self.plugin, digest: self.digest }));
            return;
        }
        let result = match (end, answer) {
            (End::Returned, Some(result)) => result,
            (End::OutOfCpu, _) => {
                Err(format!("OutOfCpu: a health check has {} s of CPU time", super::CHECK_CPU.as_secs_f64()))
            }
            (end, _) => {
                let ended = self.probe.ended(end, meter);
                Err(format!("{}: {}", ended.outcome.label(), ended.reason))
            }
        };
        self.inbox.send(Message::Event(Event::Checked { plugin: self.plugin, digest: self.digest, result }));
    }
}
