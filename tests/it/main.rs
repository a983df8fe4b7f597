//! Integration tests, one binary: each topic is a module.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may stop here")]

mod admin;
mod bad_input;
mod chart;
mod chosen;
mod commands;
mod compile;
mod docs;
mod faults;
mod governor;
mod guides;
mod health;
mod liveness;
mod outcomes;
mod registry;
mod release;
mod shutdown;
mod soak;
mod spine;
mod swap;
mod tidy;
mod verdicts;
