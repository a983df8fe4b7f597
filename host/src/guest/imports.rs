//! Our own imports: health, progress, cancellation and the log.

use wasmtime::component::{HasData, Linker};

use super::attempt::{Line, LineSource, Progress};
use super::bindings::job::windlass::job::{host, types};
use super::bindings::{logging_draft, logging_unversioned};
use super::store::Guest;
use crate::core::health::{Report, Status};
use crate::text::{MESSAGE_BYTES, shown};

/// How many names and values of a report or a log line are kept.
const PAIRS: usize = 32;

struct Imports;

impl HasData for Imports {
    type Data<'a> = &'a mut Guest;
}

impl types::Host for &mut Guest {}

impl host::Host for &mut Guest {
    fn report_health(&mut self, report: types::HealthReport) -> wasmtime::Result<()> {
        self.probe.report(bounded(report));
        Ok(())
    }

    fn report_progress(&mut self, done: u64, total: u64, message: String) -> wasmtime::Result<()> {
        self.probe.progress(Progress { done, total, message: shown(&message, MESSAGE_BYTES) });
        Ok(())
    }

    fn is_cancelled(&mut self) -> wasmtime::Result<bool> {
        Ok(self.probe.is_asked_to_end())
    }

    fn log(
        &mut self,
        level: types::LogLevel,
        message: String,
        mut fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let level = match level {
            types::LogLevel::Trace => tracing::Level::TRACE,
            types::LogLevel::Debug => tracing::Level::DEBUG,
            types::LogLevel::Info => tracing::Level::INFO,
            types::LogLevel::Warn => tracing::Level::WARN,
            types::LogLevel::Error => tracing::Level::ERROR,
        };
        fields.truncate(PAIRS);
        self.probe.line(&Line { source: LineSource::Log(level), text: &message, fields: &fields });
        Ok(())
    }
}

macro_rules! implement_logging {
    ($module:ident) => {
        impl $module::wasi::logging::logging::Host for &mut Guest {
            fn log(
                &mut self,
                level: $module::wasi::logging::logging::Level,
                context: String,
                message: String,
            ) -> wasmtime::Result<()> {
                use $module::wasi::logging::logging::Level;
                let level = match level {
                    Level::Trace => tracing::Level::TRACE,
                    Level::Debug => tracing::Level::DEBUG,
                    Level::Info => tracing::Level::INFO,
                    Level::Warn => tracing::Level::WARN,
                    Level::Error | Level::Critical => tracing::Level::ERROR,
                };
                let fields = [("context".to_owned(), context)];
                let fields = if fields[0].1.is_empty() { &[][..] } else { &fields[..] };
                self.probe.line(&Line { source: LineSource::Log(level), text: &message, fields });
                Ok(())
            }
        }
    };
}

implement_logging!(logging_draft);
implement_logging!(logging_unversioned);

/// Adds our imports to a linker for components.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    types::add_to_linker::<Guest, Imports>(linker, |guest| guest)?;
    host::add_to_linker::<Guest, Imports>(linker, |guest| guest)?;
    logging_draft::wasi::logging::logging::add_to_linker::<Guest, Imports>(linker, |guest| guest)?;
    logging_unversioned::wasi::logging::logging::add_to_linker::<Guest, Imports>(linker, |guest| guest)?;
    wasmtime_wasi_config::add_to_linker(linker, |guest| wasmtime_wasi_config::WasiConfig::from(&guest.config))
}

/// A guest's report within bounds, in the host's own words.
pub(super) fn bounded(report: types::HealthReport) -> Report {
    Report {
        status: match report.status {
            types::HealthStatus::Healthy => Status::Healthy,
            types::HealthStatus::Degraded => Status::Degraded,
            types::HealthStatus::Unhealthy => Status::Unhealthy,
        },
        description: shown(&report.description, MESSAGE_BYTES),
        data: report
            .data
            .iter()
            .take(PAIRS)
            .map(|(name, value)| (shown(name, 128), shown(value, MESSAGE_BYTES)))
            .collect(),
    }
}
