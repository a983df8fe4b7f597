//! One attempt: a fresh store, an instance, one call, and what came of it as a value.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::attempt::{GuestEnd, Probe};
use super::bindings::job::exports::windlass::job::job::{Failure as WitFailure, Invocation as WitInvocation};
use super::bindings::job::windlass::job::types::{FailureKind, TriggerKind as WitTrigger};
use super::imports;
use super::memory::Reservation;
use super::prepare::{Callable, Prepared, Toolbox};
use super::store::{Grants, new_store};
use crate::core::event::TriggerKind;
use crate::core::health::Report;
use crate::core::outcome::{Failure, Outcome};
use crate::lanes::{Remains, Work};

/// A store that touched more than this is dropped on the reaper: giving its pages back takes longer than a slice.
const DROP_AWAY_BYTES: u64 = 8 << 20;

/// What the guest is told of its run.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Identifies the run.
    pub run: String,
    /// The plugin's name.
    pub plugin: String,
    /// Its version's number.
    pub version: u32,
    /// From 1.
    pub attempt: u32,
    /// What caused the run.
    pub trigger: TriggerKind,
    /// When it was due, in milliseconds since 1970.
    pub due_ms: u64,
    /// Whether it makes up for a missed start.
    pub made_up: bool,
    /// How long it may take from its first slice on.
    pub time_left: Option<Duration>,
    /// What the trigger carried.
    pub payload: Arc<[u8]>,
    /// Its media type.
    pub content_type: Option<Arc<str>>,
}

/// What all attempts of a version need.
pub struct Executable {
    /// Engine and linkers.
    pub toolbox: Arc<Toolbox>,
    /// The code.
    pub prepared: Arc<Prepared>,
    /// What the plugin's entry gives it.
    pub grants: Grants,
}

/// The work of one attempt. Nothing happens before its first poll; dropping it ends the guest. How it ended is left in `probe`.
pub fn attempt(
    executable: Arc<Executable>,
    reservation: Reservation,
    invocation: Invocation,
    probe: Arc<Probe>,
) -> Work {
    Box::pin(async move {
        let (mut store, outputs) = match new_store(&executable.toolbox.engine, &executable.grants, reservation, &probe)
        {
            Ok(made) => made,
            Err(error) => {
                probe.guest_ended(judge(Err(error), &probe));
                return None;
            }
        };
        let called = match &executable.prepared.guest {
            Callable::Job(job) | Callable::JobWithCheck(job, _) => match job.instantiate_async(&mut store).await {
                Ok(instance) => instance
                    .windlass_job_job()
                    .call_run(&mut store, &wit_invocation(invocation))
                    .await
                    .map(|done| done.map_or_else(failed, |()| succeeded())),
                Err(error) => Err(error),
            },
            Callable::Command(command) => match command.instantiate_async(&mut store).await {
                Ok(instance) => instance.wasi_cli_run().call_run(&mut store).await.map(|done| match done {
                    Ok(()) => exited(0),
                    Err(()) => exited(1),
                }),
                Err(error) => Err(error),
            },
            Callable::Preview1(module) => match module.instantiate_async(&mut store).await {
                Ok(instance) => match instance.get_typed_func::<(), ()>(&mut store, "_start") {
                    Ok(start) => start.call_async(&mut store, ()).await.map(|()| exited(0)),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            },
        };
        outputs.iter().for_each(super::output::Output::finish);
        // An instance that never ran, or trapped while it was made, did not pass the boundary on its way out.
        if let Ok(left) = store.get_fuel() {
            probe.set_fuel_left(left);
        }
        probe.guest_ended(judge(called, &probe));
        remains(store, &probe)
    })
}

/// Where the answer of a health check is left.
pub type CheckAnswer = Arc<Mutex<Option<Result<Report, String>>>>;

/// The work of one call of the author's health check, on a fresh instance.
pub fn check(executable: Arc<Executable>, reservation: Reservation, probe: Arc<Probe>, answer: CheckAnswer) -> Work {
    Box::pin(async move {
        let Callable::JobWithCheck(_, check) = &executable.prepared.guest else { return None };
        let (mut store, outputs) = match new_store(&executable.toolbox.engine, &executable.grants, reservation, &probe)
        {
            Ok(made) => made,
            Err(error) => {
                leave(&answer, Err(format!("{error:#}")));
                return None;
            }
        };
        let called = match check.instantiate_async(&mut store).await {
            Ok(instance) => instance.windlass_job_check().call_check(&mut store).await,
            Err(error) => Err(error),
        };
        outputs.iter().for_each(super::output::Output::finish);
        leave(
            &answer,
            match called {
                Ok(report) => Ok(imports::bounded(report)),
                Err(error) => {
                    let end = judge(Err(error), &probe);
                    Err(format!("{}: {}", end.outcome.label(), end.reason))
                }
            },
        );
        remains(store, &probe)
    })
}

fn leave(answer: &CheckAnswer, result: Result<Report, String>) {
    *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
}

fn remains(store: wasmtime::Store<super::store::Guest>, probe: &Probe) -> Remains {
    (probe.memory_peak_bytes() > DROP_AWAY_BYTES).then(|| Box::new(store) as Box<dyn Send>)
}

fn succeeded() -> GuestEnd {
    GuestEnd { outcome: Outcome::Succeeded, reason: String::new(), exit_code: None }
}

fn failed(failure: WitFailure) -> GuestEnd {
    let failure_kind = match failure.kind {
        FailureKind::Transient(after_ms) => Failure::Transient { retry_after: after_ms.map(Duration::from_millis) },
        FailureKind::Permanent => Failure::Permanent,
    };
    GuestEnd { outcome: Outcome::Failed(failure_kind), reason: failure.message, exit_code: None }
}

fn exited(code: i32) -> GuestEnd {
    match code {
        0 => GuestEnd { exit_code: Some(0), ..succeeded() },
        code => GuestEnd {
            outcome: Outcome::Failed(Failure::Transient { retry_after: None }),
            reason: format!("exit code {code}"),
            exit_code: Some(code),
        },
    }
}

/// Makes a value of whatever came out of the guest.
fn judge(called: wasmtime::Result<GuestEnd>, probe: &Probe) -> GuestEnd {
    let error = match called {
        Ok(mut end) => {
            if end.exit_code.is_some_and(|code| code != 0) {
                add_last_words(&mut end.reason, probe);
            }
            return end;
        }
        Err(error) => error,
    };
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        let mut end = exited(*code);
        if *code != 0 {
            add_last_words(&mut end.reason, probe);
        }
        return end;
    }
    if matches!(error.downcast_ref::<Trap>(), Some(Trap::OutOfFuel)) {
        let reason = format!("limits.fuel of {} is used up", probe.fuel_given());
        return GuestEnd { outcome: Outcome::OutOfFuel, reason, exit_code: None };
    }
    let mut reason = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        let names: Vec<_> = backtrace.frames().iter().take(4).map(frame_name).collect();
        if !names.is_empty() {
            let _ = write!(reason, " in {}", names.join(" < "));
        }
    }
    add_last_words(&mut reason, probe);
    GuestEnd { outcome: Outcome::Trapped, reason, exit_code: None }
}

fn frame_name(frame: &wasmtime::FrameInfo) -> String {
    match frame.func_name() {
        Some(name) => {
            // Hashes at the end of Rust's names tell nobody anything.
            let name = rustc_demangle_hash(name);
            name.chars().take(80).collect()
        }
        None => format!("function {}", frame.func_index()),
    }
}

fn rustc_demangle_hash(name: &str) -> &str {
    match name.rfind("::h") {
        Some(at) if name.len() - at == 19 => name.get(..at).unwrap_or(name),
        _ => name,
    }
}

fn add_last_words(reason: &mut String, probe: &Probe) {
    let words = probe.last_words();
    if !words.is_empty() {
        let _ = write!(reason, "; its last words: {words}");
    }
}

fn wit_invocation(invocation: Invocation) -> WitInvocation {
    let deadline_ms = invocation.time_left.and_then(|left| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
        u64::try_from((now + left).as_millis()).ok()
    });
    WitInvocation {
        run_id: invocation.run,
        plugin: invocation.plugin,
        version: invocation.version,
        attempt: invocation.attempt,
        trigger: match invocation.trigger {
            TriggerKind::Every => WitTrigger::Every,
            TriggerKind::Once => WitTrigger::Once,
            TriggerKind::Continuous => WitTrigger::Continuous,
            TriggerKind::Manual => WitTrigger::Manual,
        },
        due_ms: invocation.due_ms,
        made_up: invocation.made_up,
        deadline_ms,
        payload: invocation.payload.to_vec(),
        content_type: invocation.content_type.map(|kind| kind.to_string()),
    }
}
