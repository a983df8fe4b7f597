//! One attempt as seen from outside of its store: what it has done, what was refused, and how it ended.
//!
//! The lanes, the imports and the limiter write into a [`Probe`]; the driver reads it. Whatever the guest did, the end is a value.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use crate::core::health::Progress;
use crate::core::health::Report;
use crate::core::outcome::{Ended, MemoryLimit, Outcome, Usage};
use crate::core::verdict::HostCall;
use crate::lanes::{End, Meter, clock};
use crate::text::{MESSAGE_BYTES, shown};

/// How many refusals are kept for the report.
const REFUSALS: usize = 8;

/// How often a guest's reports and its progress are passed on at most.
const REPORT_EVERY: Duration = Duration::from_secs(1);
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Who hears of what a guest says. Called on lanes: must be quick and must not block.
pub trait Listener: Send + Sync {
    /// One line of its output or log.
    fn line(&self, line: &Line<'_>);
    /// It said how it is. Comes at most once a second, the last word of an attempt included.
    fn reported(&self, report: Report);
    /// It said that it moves on. Comes at most twice a second.
    fn progressed(&self, progress: &Progress);
}

/// One line of a guest's output or log: at most 8 KiB, not yet escaped.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Where it came from.
    pub source: LineSource,
    /// The text without its end of line.
    pub text: &'a str,
    /// What came with it.
    pub fields: &'a [(String, String)],
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The log import, at this level.
    Log(tracing::Level),
}

/// What a guest waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// The host call that it waits in, or else the last that it waited in.
    pub call: Option<HostCall>,
    /// How long it has been waiting in that call; none if it is not in it now.
    pub in_call: Option<Duration>,
    /// How long all calls of the attempt have waited so far.
    pub in_all: Duration,
}

/// How the guest's own code ended, before it is weighed against what was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GuestEnd {
    pub(super) outcome: Outcome,
    pub(super) reason: String,
    pub(super) exit_code: Option<i32>,
}

/// What is known of one attempt while it goes on and after it.
pub struct Probe {
    listener: Arc<dyn Listener>,
    fuel_given: u64,
    fuel_left: AtomicU64,
    memory_bytes: AtomicU64,
    memory_peak_bytes: AtomicU64,
    cancelled: AtomicBool,
    /// The call that waits or last waited, in the low byte; above it since when in microseconds of uptime, 0 if none waits now.
    waits_in: AtomicU64,
    waited_us: AtomicU64,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    refusals: Vec<String>,
    memory_refused: Option<(MemoryLimit, String)>,
    denied: Option<String>,
    looked_for_folders: bool,
    last_words: String,
    log_bytes_left: u64,
    log_cut: bool,
    report: Throttle<Report>,
    progress: Throttle<Progress>,
    /// When the last progress was said, until someone takes it.
    progressed: Option<Instant>,
    guest_end: Option<GuestEnd>,
    kill_as: Option<(Outcome, String)>,
}

/// Lets one value through per interval, and keeps the latest of the others.
struct Throttle<T> {
    passed: Option<Instant>,
    pending: Option<T>,
}

impl<T> Default for Throttle<T> {
    fn default() -> Throttle<T> {
        Throttle { passed: None, pending: None }
    }
}

impl<T> Throttle<T> {
    fn offer(&mut self, value: T, every: Duration, now: Instant) -> Option<T> {
        if self.passed.is_some_and(|passed| now.saturating_duration_since(passed) < every) {
            self.pending = Some(value);
            return None;
        }
        self.passed = Some(now);
        self.pending = None;
        Some(value)
    }
}

impl Probe {
    /// A probe for an attempt with so much fuel (none: no budget) and so many bytes of log.
    pub fn new(listener: Arc<dyn Listener>, fuel: Option<u64>, log_bytes: u64) -> Arc<Probe> {
        let fuel = fuel.unwrap_or(u64::MAX);
        Arc::new(Probe {
            listener,
            fuel_given: fuel,
            fuel_left: AtomicU64::new(fuel),
            memory_bytes: AtomicU64::new(0),
            memory_peak_bytes: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
            waits_in: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
            notes: Mutex::new(Notes { log_bytes_left: log_bytes, ..Notes::default() }),
        })
    }

    /// Asks the guest to end: `is-cancelled` is true from now on.
    pub fn ask_to_end(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Says how the attempt is to be reported if the lanes end it now. The first word stands.
    pub fn kill_as(&self, outcome: Outcome, reason: String) {
        self.notes().kill_as.get_or_insert((outcome, reason));
    }

    /// Fuel burnt, as known at the last return from the guest; exact once the attempt is over.
    pub fn fuel(&self) -> u64 {
        self.fuel_given.saturating_sub(self.fuel_left.load(Ordering::Relaxed))
    }

    /// What its linear memories hold now, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// What the guest said last of how far it is.
    pub fn last_progress(&self) -> Option<Progress> {
        self.notes().progress.pending.clone()
    }

    /// What the guest said of how far it is since this was called last, and how long ago.
    pub fn take_progress(&self) -> Option<(Progress, Duration)> {
        let mut notes = self.notes();
        let said = notes.progressed.take()?;
        Some((notes.progress.pending.clone()?, said.elapsed()))
    }

    /// What it waits for.
    pub fn waits(&self) -> Waits {
        let (word, waited_us) = (self.waits_in.load(Ordering::Relaxed), self.waited_us.load(Ordering::Relaxed));
        let since_us = word >> 8;
        let in_call = (since_us != 0).then(|| Duration::from_micros(uptime_us().saturating_sub(since_us)));
        Waits {
            call: HostCall::ALL.into_iter().find(|call| *call as u64 == word & 0xff),
            in_call,
            in_all: Duration::from_micros(waited_us) + in_call.unwrap_or_default(),
        }
    }

    /// Notes that a host call has to wait; returns since when.
    pub(super) fn wait_begins(&self, call: HostCall) -> u64 {
        let since_us = uptime_us();
        self.waits_in.store(since_us << 8 | call as u64, Ordering::Relaxed);
        since_us
    }

    /// Notes that the call that has waited since then does so no longer.
    pub(super) fn wait_ended(&self, since_us: u64) {
        // One lane at a time is in the guest: nobody else writes these.
        let waited_us = self.waited_us.load(Ordering::Relaxed) + uptime_us().saturating_sub(since_us);
        self.waited_us.store(waited_us, Ordering::Relaxed);
        self.waits_in.store(self.waits_in.load(Ordering::Relaxed) & 0xff, Ordering::Relaxed);
    }

    /// The end of the attempt, from what the guest did, what it was refused, and what the lanes say.
    /// Passes the guest's last report on first.
    pub fn ended(&self, end: End, meter: &Meter) -> Ended {
        let mut notes = std::mem::take(&mut *self.notes());
        if let Some(report) = notes.report.pending.take() {
            self.listener.reported(report);
        }
        let guest_end = match end {
            End::Returned => notes.guest_end.take().unwrap_or_else(|| GuestEnd {
                outcome: Outcome::Trapped,
                reason: "the host lost track of how it ended".to_owned(),
                exit_code: None,
            }),
            End::Killed => {
                let (outcome, reason) = notes
                    .kill_as
                    .take()
                    .unwrap_or((Outcome::Cancelled(crate::core::outcome::CancelReason::Requested), String::new()));
                GuestEnd { outcome, reason, exit_code: None }
            }
            End::OutOfCpu => GuestEnd {
                outcome: Outcome::OutOfCpu,
                reason: format!("limits.cpuSeconds is used up after {:.3} s of CPU time", meter.cpu().as_secs_f64()),
                exit_code: None,
            },
            End::Panicked(text) => GuestEnd {
                outcome: Outcome::Trapped,
                reason: format!("a fault of the host, please report it: {}", shown(&text, 512)),
                exit_code: None,
            },
        };
        let GuestEnd { outcome, reason, exit_code } = notes.weigh(guest_end);
        Ended {
            outcome,
            reason: shown(&reason, MESSAGE_BYTES),
            refusals: notes.refusals,
            exit_code,
            usage: Usage {
                fuel: self.fuel(),
                cpu: meter.cpu(),
                elapsed: meter.elapsed(),
                starved: meter.waited(),
                memory_peak_bytes: self.memory_peak_bytes.load(Ordering::Relaxed),
            },
        }
    }

    /// What its linear memories held at most, in bytes.
    pub fn memory_peak_bytes(&self) -> u64 {
        self.memory_peak_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn is_asked_to_end(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn fuel_given(&self) -> u64 {
        self.fuel_given
    }

    pub(super) fn set_fuel_left(&self, fuel: u64) {
        self.fuel_left.store(fuel, Ordering::Relaxed);
    }

    pub(super) fn memory(&self, bytes: u64) {
        self.memory_bytes.store(bytes, Ordering::Relaxed);
        self.memory_peak_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    pub(super) fn refuse_memory(&self, whose: MemoryLimit, what: String) {
        let mut notes = self.notes();
        notes.refused(format!("memory: {what}"));
        notes.memory_refused.get_or_insert((whose, what));
    }

    /// Notes that a capability was asked for that nothing grants. `grant` is the YAML that would.
    pub(super) fn deny(&self, capability: &str, what: &str, grant: &str) {
        let what = shown(what, 256);
        let text = format!("{capability}: {what}; to grant it: capabilities: {{ {grant} }} (not in this version)");
        let mut notes = self.notes();
        notes.refused(text.clone());
        notes.denied.get_or_insert(text);
    }

    /// Notes that the guest asked which folders it has, and has none: what libraries do before they open a file.
    pub(super) fn looked_for_folders(&self) {
        self.notes().looked_for_folders = true;
    }

    pub(super) fn line(&self, line: &Line<'_>) {
        {
            let mut notes = self.notes();
            let words = line.text.trim();
            // Behind the message of each of its panics Rust says how to see more, which is the same each time and cannot be done here.
            let is_advice = words.starts_with("note: run with `RUST_BACKTRACE");
            if matches!(line.source, LineSource::Stderr) && !words.is_empty() && !is_advice {
                notes.last_words = shown(words, 256);
            }
            let cost =
                line.text.len() as u64 + line.fields.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum::<u64>() + 1;
            if cost > notes.log_bytes_left {
                notes.log_bytes_left = 0;
                if std::mem::replace(&mut notes.log_cut, true) {
                    return;
                }
                notes.refused("logs: limits.logs is used up, the rest of this run's output is dropped".to_owned());
                drop(notes);
                let text = "limits.logs is used up; the rest of this run's output is dropped";
                let source = LineSource::Log(tracing::Level::WARN);
                return self.listener.line(&Line { source, text, fields: &[] });
            }
            notes.log_bytes_left -= cost;
        }
        self.listener.line(line);
    }

    pub(super) fn report(&self, report: Report) {
        let offered = self.notes().report.offer(report, REPORT_EVERY, Instant::now());
        if let Some(report) = offered {
            self.listener.reported(report);
        }
    }

    pub(super) fn progress(&self, progress: Progress) {
        let (mut notes, now) = (self.notes(), Instant::now());
        let offered = notes.progress.offer(progress.clone(), PROGRESS_EVERY, now);
        notes.progress.pending = Some(progress);
        notes.progressed = Some(now);
        drop(notes);
        if let Some(progress) = offered {
            self.listener.progressed(&progress);
        }
    }

    pub(super) fn guest_ended(&self, end: GuestEnd) {
        self.notes().guest_end = Some(end);
    }

    pub(super) fn last_words(&self) -> String {
        self.notes().last_words.clone()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Held for a few lines at a time, by the run's own lane and now and then by the driver.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Microseconds since the process began, never 0.
fn uptime_us() -> u64 {
    (clock::uptime_ns(Instant::now()) / 1_000).max(1)
}

impl Notes {
    fn refused(&mut self, text: String) {
        if self.refusals.len() < REFUSALS && !self.refusals.contains(&text) {
            self.refusals.push(text);
        }
    }

    /// A refused growth or call is how the attempt ended, if it did not succeed in spite of it.
    fn weigh(&mut self, end: GuestEnd) -> GuestEnd {
        let own_failure = match &end.outcome {
            Outcome::Failed(_) | Outcome::Trapped => true,
            Outcome::Succeeded
            | Outcome::OutOfFuel
            | Outcome::OutOfCpu
            | Outcome::DeadlineExceeded { .. }
            | Outcome::OutOfMemory(_)
            | Outcome::Denied
            | Outcome::Cancelled(_)
            | Outcome::Lost => false,
        };
        if !own_failure {
            return end;
        }
        let GuestEnd { outcome, reason, exit_code } = end;
        if let Some((whose, what)) = self.memory_refused.take() {
            return GuestEnd {
                outcome: Outcome::OutOfMemory(whose),
                reason: format!("{what}; then: {reason}"),
                exit_code,
            };
        }
        if let Some(what) = self.denied.take() {
            return GuestEnd { outcome: Outcome::Denied, reason: format!("{what}; then: {reason}"), exit_code };
        }
        let hint = match self.looked_for_folders {
            true => " (it looked for folders and has none: capability dirs, not in this version)",
            false => "",
        };
        GuestEnd { outcome, reason: format!("{reason}{hint}"), exit_code }
    }
}
