//! Write windlass jobs in Rust.
//!
//! A job is a function and an attribute:
//!
//! ```
//! use windlass_sdk::{Context, job};
//!
//! #[job(every = "30s")]
//! fn run(ctx: &Context) -> Result<(), std::io::Error> {
//!     println!("run {} of {}", ctx.run_id(), ctx.plugin());
//!     Ok(())
//! }
//! # fn main() {}
//! ```
//!
//! Built with `cargo build --release --target wasm32-wasip2` (crate type `cdylib`), it is a complete plugin. Built natively it is an
//! ordinary function that [`testing::TestContext`] can call.
//!
//! - What the function returns is how the run ended. Any error is transient, and the host tries again; [`Error::permanent`] and
//!   [`Permanent`] say that it need not.
//! - A panic ends the run as a trap, with the panic's message in the reason.
//! - `log` and `tracing` write to the run's log; so do stdout and stderr.

mod check;
mod context;
mod error;
#[cfg(target_arch = "wasm32")]
mod guest;
mod logging;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use check::{Health, IntoHealth, Status};
pub use context::{Context, Trigger};
pub use error::{Error, IntoOutcome, Permanent, RetryAfter};
#[cfg(feature = "log")]
pub use log;
pub use logging::Level;
#[cfg(feature = "tracing")]
pub use tracing;
pub use windlass_sdk_macros::{check, job};

/// What the macros use; no part of the interface.
#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub mod __private {
    pub use crate::guest::*;
}
