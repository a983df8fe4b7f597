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
mod kill;
mod metering;
mod quota;
mod quota_child;
mod report;
mod rss;
mod slice;
mod stage;
mod storm;
mod swap;

use std::process::ExitCode;

use report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    windlass::host::prefer_small_pages();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // The other processes of a benchmark are this same binary.
    match arguments.first().map(String::as_str) {
        Some("prober") => {
            health::prober(&arguments);
            return ExitCode::SUCCESS;
        }
        Some("rival") => {
            health::rival(&arguments);
            return ExitCode::SUCCESS;
        }
        Some("slice-inside") => {
            slice::inside(arguments.iter().any(|argument| argument == "--short"));
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    if let Some("quota-prober") = arguments.first().map(String::as_str) {
        quota::prober(&arguments);
        return ExitCode::SUCCESS;
    }
    if let Some("quota-child") = arguments.first().map(String::as_str) {
        quota_child::inside(&arguments);
        return ExitCode::SUCCESS;
    }
    let short = arguments.iter().any(|argument| argument == "--short");
    let json = arguments.iter().any(|argument| argument == "--json");
    let report: Report = match arguments.first().map(String::as_str) {
        Some("dispatch") => dispatch::run(short),
        Some("metering") => metering::run(short),
        Some("fairness") => fairness::run(short),
        Some("health") => health::run(short),
        Some("kill") => kill::run(short),
        Some("slice") => slice::run(short),
        Some("quota") => quota::run(short),
        Some("density") => density::run(short),
        Some("rss") => rss::run(short),
        Some("coldstart") => coldstart::run(short),
        Some("storm") => storm::run(short),
        Some("swap") => swap::run(short),
        other => {
            eprintln!("windlass-bench: there is no benchmark {other:?}");
            return ExitCode::from(2);
        }
    };
    report.print(json);
    ExitCode::SUCCESS
}
