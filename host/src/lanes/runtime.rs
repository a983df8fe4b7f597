//! The guests' own tokio runtime: timers, sockets and blocking calls of host functions, on threads as low as the lanes.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};

use super::priority::{Niceness, Role};
use crate::wedge::{self, Point};

/// How many host calls may block a thread at once; more wait.
const BLOCKING_THREADS: usize = 16;

/// Makes the runtime. Keep it for as long as there are lanes; dropping it waits for no one.
///
/// # Errors
/// If its threads cannot be spawned.
pub fn guest_runtime(niceness: Niceness) -> Result<Runtime> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(Duration::from_secs(10))
        .thread_name("guest-io")
        .on_thread_start(move || {
            if let Err(error) = niceness.take(Role::Guest) {
                // Said loudly, and gone on with: the lanes refuse to start on the same error.
                tracing::error!(error = format!("{error:#}"), "a guests' thread has not the niceness of its role");
            }
        })
        .enable_all()
        .build()
        .context("starting the guests' runtime")?;
    if cfg!(feature = "wedge") {
        runtime.spawn(async {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                wedge::pass(Point::GuestIo);
            }
        });
    }
    Ok(runtime)
}
