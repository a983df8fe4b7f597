//! Integration tests, one binary: each topic is a module.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may stop here")]

mod bad_input;
mod commands;
mod docs;
mod health;
mod outcomes;
mod registry;
mod shutdown;
mod spine;
mod tidy;
