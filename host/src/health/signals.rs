//! Signals, handled on the health thread: a scheduler that hangs cannot delay them.
//!
//! As PID 1 a process has no default for SIGTERM, so the handlers are there before anything else happens.

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The handlers, and the health thread's runtime, which they belong to.
pub struct Signals {
    pub(super) runtime: Runtime,
    pub(super) streams: Streams,
}

/// What arrives, by kind.
pub(super) struct Streams {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// A signal that means something to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    Terminate,
    Interrupt,
    Hangup,
}

impl Signals {
    /// Installs the handlers. What arrives before the health thread runs is kept for it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn install() -> Result<Signals> {
        let runtime =
            Builder::new_current_thread().enable_all().build().context("starting the health thread's runtime")?;
        let streams = {
            let _inside = runtime.enter();
            let on = |kind: SignalKind| signal(kind).context("installing a signal handler");
            Streams {
                terminate: on(SignalKind::terminate())?,
                interrupt: on(SignalKind::interrupt())?,
                hangup: on(SignalKind::hangup())?,
            }
        };
        Ok(Signals { runtime, streams })
    }
}

impl Streams {
    /// The next signal.
    pub(super) async fn next(&mut self) -> Came {
        tokio::select! {
            _ = self.terminate.recv() => Came::Terminate,
            _ = self.interrupt.recv() => Came::Interrupt,
            _ = self.hangup.recv() => Came::Hangup,
        }
    }
}
