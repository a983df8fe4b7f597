//! The command line: one `match` from subcommand to the function that does it, and errors to exit codes in one place.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod health;

/// Runs jobs compiled to WebAssembly on schedule, and tells the health of each over HTTP.
#[derive(Debug, Parser)]
#[command(name = "windlass", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask a host's health port; the exit code says what it answered
    Health(health::Args),
}

/// Why a command ended otherwise than well: what to tell, and with which exit code.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1: the job, the host, or what was asked about failed.
    Failed(anyhow::Error),
    /// Exit code 2: bad usage, config or input, said before any port is opened.
    Usage(anyhow::Error),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Failed(_) => ExitCode::from(1),
            Failure::Usage(_) => ExitCode::from(2),
        }
    }
}

/// Parses the arguments, does what they say, and returns the exit code: 0 fine, 1 failed, 2 bad usage.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Health(args) => health::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (Failure::Failed(error) | Failure::Usage(error)) = &failure;
            eprintln!("windlass: {error:#}");
            failure.exit_code()
        }
    }
}
