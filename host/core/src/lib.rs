//! The pure core of windlass: whatever decides, as synchronous state machines.
//!
//! Events and the present time go in, actions and the next wake-up come out. Nothing here reads a clock, does I/O, spawns
//! a thread or knows that WebAssembly exists; a seeded simulation can drive years of schedule through it in a second.

pub mod backoff;
pub mod config;
pub mod event;
pub mod health;
pub mod name;
pub mod outcome;
pub mod supervisor;
pub mod time;
pub mod verdict;
