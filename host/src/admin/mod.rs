//! The admin port: what the commands of the command line ask a running host. Its own thread and runtime at the host's priority, so that
//! neither guests nor a slow client of it come between health and whoever asks for that.
//!
//! Without a token it listens on the loopback only, and answers nobody who came by way of a browser.

mod guard;
mod report;
mod server;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::driver::Inbox;
use crate::health::Board;
use crate::lanes::priority::{Niceness, Role};

/// What the admin port works with.
pub struct Options {
    /// What it tells.
    pub board: Arc<Board>,
    /// Whom it asks.
    pub inbox: Arc<Inbox>,
    /// `admin.tokenFile`: read at each request, so that a new token needs no restart.
    pub token_file: Option<PathBuf>,
    /// How nice threads are.
    pub niceness: Niceness,
}

/// A listener that is bound and not served yet.
pub struct Bound(std::net::TcpListener);

/// Binds the admin port.
///
/// # Errors
/// If the address is taken or may not be used.
pub fn bind(address: SocketAddr) -> io::Result<Bound> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(Bound(listener))
}

/// Serves on a thread of its own until the process ends. A failure is logged, and ends the port and nothing else.
///
/// # Errors
/// If the thread or its runtime cannot be had.
pub fn spawn(bound: Bound, options: Options) -> Result<()> {
    let address = bound.0.local_addr().context("asking for the admin port's address")?;
    options.niceness.verify(Role::Host).context("starting the admin thread")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the admin thread's runtime")?;
    std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            let tasks = tokio::task::LocalSet::new();
            if let Err(error) = tasks.block_on(&runtime, server::serve(bound.0, options)) {
                tracing::error!(%error, "the admin port failed");
            }
        })
        .context("starting the admin thread")?;
    tracing::info!(%address, "admin port listening");
    Ok(())
}
