//! Inside a guest: the bindings that the WIT contract gives, and the two functions that the host calls.

use std::sync::Once;

use crate::context::Invocation;
use crate::{Context, Error, Health, Level, Status, Trigger};

/// The bindings of the world `plugin`.
#[allow(
    missing_docs,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the WIT is where it is documented"
)]
pub mod job_bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "windlass:job/plugin",
        pub_export_macro: true,
        export_macro_name: "export_job",
        default_bindings_module: "::windlass_sdk::__private::job_bindings",
        generate_all,
    });
}

/// The bindings of the world `checker`.
#[allow(
    missing_docs,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the WIT is where it is documented"
)]
pub mod check_bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "windlass:job/checker",
        pub_export_macro: true,
        export_macro_name: "export_check",
        default_bindings_module: "::windlass_sdk::__private::check_bindings",
        generate_all,
    });
}

use job_bindings::exports::windlass::job::job as job_export;
use job_bindings::wasi::config::store;
use job_bindings::windlass::job::{host as host_import, types};

pub use check_bindings::export_check;
pub use check_bindings::exports::windlass::job::check::Guest as CheckGuest;
pub use job_bindings::export_job;
pub use job_export::{Failure, Guest as JobGuest, Invocation as WitInvocation};

/// A report as the check's bindings have it.
pub type CheckReport = check_bindings::windlass::job::types::HealthReport;

/// Runs the author's function for one invocation.
///
/// # Errors
/// If the job failed.
pub fn execute(invocation: WitInvocation, job: impl FnOnce(&Context) -> Result<(), Error>) -> Result<(), Failure> {
    prepare();
    let context = Context {
        invocation: Invocation {
            run_id: invocation.run_id,
            plugin: invocation.plugin,
            version: invocation.version,
            attempt: invocation.attempt,
            trigger: match invocation.trigger {
                types::TriggerKind::Every => Trigger::Every,
                types::TriggerKind::Schedule => Trigger::Schedule,
                types::TriggerKind::Once => Trigger::Once,
                types::TriggerKind::Continuous => Trigger::Continuous,
                types::TriggerKind::Queue => Trigger::Queue,
                types::TriggerKind::Manual => Trigger::Manual,
            },
            due_ms: invocation.due_ms,
            made_up: invocation.made_up,
            deadline_ms: invocation.deadline_ms,
            payload: invocation.payload,
            content_type: invocation.content_type,
        },
    };
    job(&context).map_err(|error| Failure {
        kind: match (error.is_permanent(), error.pause()) {
            (true, _) => types::FailureKind::Permanent,
            (false, pause) => {
                types::FailureKind::Transient(pause.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)))
            }
        },
        message: error.message().to_owned(),
    })
}

/// Runs the author's health check.
pub fn execute_check(check: impl FnOnce() -> Health) -> CheckReport {
    use check_bindings::windlass::job::types::HealthStatus;
    prepare();
    let health = check();
    CheckReport {
        status: match health.status {
            Status::Healthy => HealthStatus::Healthy,
            Status::Degraded => HealthStatus::Degraded,
            Status::Unhealthy => HealthStatus::Unhealthy,
        },
        description: health.description,
        data: health.data,
    }
}

fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(crate::logging::install);
}

pub(crate) fn config(key: &str) -> Option<String> {
    store::get(key).ok().flatten()
}

pub(crate) fn is_cancelled() -> bool {
    host_import::is_cancelled()
}

pub(crate) fn report_progress(done: u64, total: u64, message: &str) {
    host_import::report_progress(done, total, message);
}

pub(crate) fn report_health(health: Health) {
    host_import::report_health(&types::HealthReport {
        status: match health.status {
            Status::Healthy => types::HealthStatus::Healthy,
            Status::Degraded => types::HealthStatus::Degraded,
            Status::Unhealthy => types::HealthStatus::Unhealthy,
        },
        description: health.description,
        data: health.data,
    });
}

pub(crate) fn log(level: Level, message: &str, fields: &[(String, String)]) {
    let level = match level {
        Level::Trace => types::LogLevel::Trace,
        Level::Debug => types::LogLevel::Debug,
        Level::Info => types::LogLevel::Info,
        Level::Warn => types::LogLevel::Warn,
        Level::Error => types::LogLevel::Error,
    };
    host_import::log(level, message, fields);
}
