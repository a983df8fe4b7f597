//! The windlass host as a library, so that the binary, the integration tests and the benchmarks run the same code.
//!
//! `ARCHITECTURE.md` says which room holds what, and what it must never do.

pub mod admin;
pub mod artifact;
pub mod choices;
pub mod cli;
pub mod compile;
pub mod driver;
pub mod escalations;
pub mod guest;
pub mod health;
pub mod host;
pub mod lanes;
pub mod memory;
pub mod registry;
pub mod source;
pub mod telemetry;
pub mod text;
pub mod verify;
mod wedge;

pub use windlass_core as core;
