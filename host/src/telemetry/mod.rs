//! Logs: JSON lines off a terminal, readable ones on it; one event per attempt, and the lines that guests write.
//!
//! A log line never blocks and never kills: it goes through a bounded channel to a thread that writes, and what does not fit is counted.

mod writer;

use std::io::IsTerminal as _;

use anyhow::{Context, Result};
use tracing::Level;
use tracing_subscriber::EnvFilter;

use crate::core::event::Note;
use crate::core::health::{Stage, Status};
use crate::core::outcome::{Outcome, SkipReason};
use crate::core::verdict::Verdict;
use crate::text::shown;

pub use writer::flush;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `text` on a terminal, `json` elsewhere
    Auto,
    /// One JSON object a line
    Json,
    /// For people
    Text,
}

/// Sets logging up for the process, to stderr. `filter` is in the form of `RUST_LOG`; `WINDLASS_LOG` and then `info` where there is none.
///
/// # Errors
/// If the filter cannot be read.
pub fn init(format: Format) -> Result<()> {
    let wanted =
        std::env::var("WINDLASS_LOG").or_else(|_| std::env::var("RUST_LOG")).unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&wanted)
        .with_context(|| format!("WINDLASS_LOG: `{wanted}` is no filter; write it like info or windlass=debug"))?;
    let writer = writer::start()?;
    let is_json = match format {
        Format::Json => true,
        Format::Text => false,
        Format::Auto => !std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // A second set-up in one process can only come from a test: the first one stands.
    let _ = match is_json {
        true => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        false => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
    };
    Ok(())
}

/// Logs what the supervisor has to say.
pub fn note(note: &Note) {
    match note {
        Note::AttemptEnded { plugin, version, run, attempt, attempts, ended, retry_at } => {
            let retry_at = retry_at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string());
            let attempts = attempts.map(|attempts| attempts.max(*attempt));
            macro_rules! ended {
                ($level:expr) => {
                    tracing::event!(
                        target: "windlass::run",
                        $level,
                        plugin = plugin.as_str(),
                        version = version.0,
                        run = run.0,
                        attempt,
                        outcome = ended.outcome.label(),
                        fuel = ended.usage.fuel,
                        cpu_us = ended.usage.cpu.as_micros() as u64,
                        elapsed_ms = ended.usage.elapsed.as_millis() as u64,
                        attempts,
                        reason = (!ended.reason.is_empty()).then_some(ended.reason.as_str()),
                        exit_code = ended.exit_code,
                        retry_at,
                        "run ended"
                    )
                };
            }
            if matches!(ended.outcome, Outcome::Succeeded | Outcome::Cancelled(_)) {
                ended!(Level::INFO);
            } else {
                ended!(Level::WARN);
            }
        }
        Note::Skipped { plugin, due, times, reason } => {
            let due = due.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            // A suspended plugin skips every start, as it was told to.
            match reason {
                SkipReason::Suspended | SkipReason::Quarantined => {
                    tracing::debug!(plugin = plugin.as_str(), due, times, reason = reason.name(), "start skipped");
                }
                SkipReason::StillRunning | SkipReason::DeadlineMissed | SkipReason::HostDown => {
                    tracing::info!(plugin = plugin.as_str(), due, times, reason = reason.name(), "start skipped");
                }
            }
        }
        Note::Changed { plugin, from, to, description } => {
            macro_rules! changed {
                ($level:expr) => {
                    tracing::event!(
                        $level,
                        plugin = plugin.as_str(),
                        state = ?to.0,
                        status = ?to.1,
                        was_state = ?from.0,
                        was_status = ?from.1,
                        description,
                        "plugin changed"
                    )
                };
            }
            match to.1 {
                Status::Healthy => changed!(Level::INFO),
                Status::Degraded | Status::Unhealthy => changed!(Level::WARN),
            }
        }
        Note::Version { plugin, digest, version, stage, why } => {
            let version = version.map(|number| number.0);
            let why = (!why.is_empty()).then_some(why.as_str());
            match stage {
                Stage::AwaitingGrant | Stage::RolledBack | Stage::Refused => {
                    tracing::warn!(plugin = plugin.as_str(), version, digest = %digest, stage = ?stage, why, "version");
                }
                Stage::Seen | Stage::Verified | Stage::Compiled | Stage::Checking | Stage::Replaced | Stage::Freed => {
                    tracing::debug!(plugin = plugin.as_str(), version, digest = %digest, stage = ?stage, why, "version");
                }
                Stage::Trying | Stage::Live | Stage::Proven => {
                    tracing::info!(plugin = plugin.as_str(), version, digest = %digest, stage = ?stage, why, "version");
                }
            }
        }
        Note::Verdict { plugin, run, from, to, description } => {
            macro_rules! verdict {
                ($level:expr) => {
                    tracing::event!(
                        $level,
                        plugin = plugin.as_str(),
                        run = run.0,
                        verdict = %to,
                        was_verdict = from.map(|from| from.to_string()),
                        description,
                        "verdict changed"
                    )
                };
            }
            match (to, from) {
                (Verdict::Silent | Verdict::NearDeadline | Verdict::NearBudget(_), _) => verdict!(Level::WARN),
                // The first word on a run that gets on is no news.
                (Verdict::Computing | Verdict::Waiting(_), None) => verdict!(Level::DEBUG),
                (Verdict::Computing | Verdict::Waiting(_) | Verdict::Starved(_), _) => verdict!(Level::INFO),
            }
        }
        Note::TriggerRefused { plugin, waiting } => {
            tracing::warn!(plugin = plugin.as_str(), waiting, "a start by hand was refused: too many wait");
        }
        Note::Cancelling { plugin, run, reason } => {
            tracing::info!(plugin = plugin.as_str(), run = run.0, reason = ?reason, "a run is asked to end");
        }
    }
}

/// Logs a line of a guest, escaped.
pub fn guest_line(
    plugin: &str,
    run: u64,
    attempt: u32,
    level: Level,
    stream: &str,
    text: &str,
    fields: &[(String, String)],
) {
    let text = shown(text, 8 << 10);
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| format!("{}={}", shown(name, 64), shown(value, 1024))).collect();
    let fields = (!fields.is_empty()).then(|| fields.join(" "));
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(target: "guest", $level, plugin, run, attempt, stream, fields, "{text}")
        };
    }
    match level {
        Level::ERROR => line!(Level::ERROR),
        Level::WARN => line!(Level::WARN),
        Level::INFO => line!(Level::INFO),
        Level::DEBUG => line!(Level::DEBUG),
        Level::TRACE => line!(Level::TRACE),
    }
}
