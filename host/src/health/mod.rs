//! The health port, beats and signals, on one thread that waits for nobody.
//!
//! The rest of the process publishes on a [`Board`] of atomics; the health thread reads it, renders it, and judges whether the others
//! still move. It takes no lock that anyone else holds.

mod beat;
mod board;
mod connections;
mod judge;
mod liveness;
mod metrics;
mod render;
mod server;
mod signals;
#[cfg(test)]
mod tests;
mod timespan;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;

use crate::lanes::priority::{Niceness, Role};
pub use beat::Beat;
pub use board::{Board, Histogram};
pub use server::{Bound, bind};
pub use signals::Signals;
use signals::{Came, Streams};
pub use timespan::timespan;

/// How long what is left over after a drain may take, before the host exits all the same.
const CLEANUP: Duration = Duration::from_secs(5);

/// What the health thread is told at its start.
pub struct Options {
    /// What it reads.
    pub board: Arc<Board>,
    /// `health.stuckSeconds`
    pub stuck: Duration,
    /// `health.detail: names`
    pub names_only: bool,
    /// `readyTimeoutSeconds`
    pub ready_timeout: Duration,
    /// `drainSeconds`
    pub drain: Duration,
    /// Where the reason is written when liveness turns red, if the file is there.
    pub termination_log: PathBuf,
    /// How nice threads are, which the health thread must have.
    pub niceness: Niceness,
    /// Called once when SIGTERM or SIGINT comes. Must not block.
    pub on_shutdown: Box<dyn Fn() + Send>,
    /// Called at each SIGHUP. Must not block.
    pub on_hangup: Box<dyn Fn() + Send>,
}

/// Starts the health thread. It serves and handles signals until the process ends.
///
/// # Errors
/// If the thread cannot be spawned, or has not the niceness of its role.
pub fn spawn(bound: Bound, signals: Signals, options: Options) -> Result<()> {
    let address = bound.address().context("asking for the health port's address")?;
    // A thread inherits the niceness of the one that spawns it.
    options.niceness.verify(Role::Host).context("starting the health thread")?;
    std::thread::Builder::new()
        .name("health".to_owned())
        .spawn(move || {
            let Signals { runtime, streams } = signals;
            let tasks = LocalSet::new();
            tasks.block_on(&runtime, run(bound, streams, options));
        })
        .context("starting the health thread")?;
    tracing::info!(%address, "health port listening");
    Ok(())
}

async fn run(bound: Bound, streams: Streams, options: Options) {
    options.board.gauges().this_is_health();
    let state = server::State::new(options);
    tokio::task::spawn_local(judge(state.clone()));
    tokio::task::spawn_local(handle_signals(streams, state.clone()));
    if let Err(error) = server::serve(bound, state).await {
        // Without its port the host is of no use to anyone who asks for its health.
        tracing::error!(%error, "the health port failed");
        crate::telemetry::flush();
        std::process::exit(1);
    }
}

async fn judge(state: Rc<server::State>) {
    let mut ticks = tokio::time::interval(judge::TICK);
    // After a stop there is one look, not one for each second that was missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = ticks.tick().await;
        state.options.board.gauges().timer_fired(due.elapsed());
        state.liveness.borrow_mut().tick();
    }
}

async fn handle_signals(mut streams: Streams, state: Rc<server::State>) {
    let (mut draining, mut interrupted) = (false, false);
    loop {
        let came = streams.next().await;
        match came {
            Came::Hangup => {
                tracing::info!("SIGHUP: the configuration is read again");
                (state.options.on_hangup)();
                continue;
            }
            Came::Interrupt if interrupted => {
                tracing::warn!("a second SIGINT: exiting at once");
                crate::telemetry::flush();
                std::process::exit(130);
            }
            Came::Interrupt => interrupted = true,
            Came::Terminate => {}
        }
        if !draining {
            draining = true;
            let seconds = state.options.drain.as_secs_f64();
            tracing::info!(signal = ?came, drain_seconds = seconds, "shutting down: runs in flight are asked to end");
            state.options.board.drain();
            (state.options.on_shutdown)();
            tokio::task::spawn_local(exit_at_last(state.clone()));
        }
    }
}

/// The last resort: a driver or a lane that hangs must not keep the process.
async fn exit_at_last(state: Rc<server::State>) {
    tokio::time::sleep(state.options.drain + CLEANUP).await;
    let snapshot = state.options.board.snapshot();
    let left: Vec<_> = snapshot
        .plugins
        .iter()
        .filter(|view| !view.running.is_empty())
        .map(|view| view.name.as_str())
        .take(20)
        .collect();
    tracing::error!(left = left.join(", "), "the drain did not end in time; exiting with runs left over");
    crate::telemetry::flush();
    std::process::exit(i32::from(state.options.board.was_red()));
}
