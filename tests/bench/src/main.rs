//! `windlass-bench NAME [--json] [--short]`: measures the shipping build. `cargo xtask bench` builds it and calls it.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark may stop where something is missing"
)]

mod coldstart;
mod density;
mod dispatch;
mod fairness;
mod health;
mod metering;
mod report;
mod storm;

use std::process::ExitCode;

use report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some("prober") = arguments.first().map(String::as_str) {
        health::prober(&arguments);
        return ExitCode::SUCCESS;
    }
    let short = arguments.iter().any(|argument| argument == "--short");
    let json = arguments.iter().any(|argument| argument == "--json");
    let report: Report = match arguments.first().map(String::as_str) {
        Some("dispatch") => dispatch::run(short),
        Some("metering") => metering::run(short),
        Some("fairness") => fairness::run(short),
        Some("health") => health::run(short),
        Some("density") => density::run(short),
        Some("coldstart") => coldstart::run(short),
        Some("storm") => storm::run(short),
        other => {
            eprintln!("windlass-bench: there is no benchmark {other:?}");
            return ExitCode::from(2);
        }
    };
    report.print(json);
    ExitCode::SUCCESS
}
