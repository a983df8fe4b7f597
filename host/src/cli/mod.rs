//! The command line: one `match` from subcommand to the function that does it, and errors to exit codes in one place.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

mod advice;
mod by_hand;
mod check;
mod client;
mod compile;
mod groups;
mod health;
mod http;
mod inspect;
mod new;
mod once;
mod probe_advice;
mod pull;
mod push;
mod run;
mod status;

/// Runs jobs compiled to WebAssembly on schedule, and tells the health of each over HTTP.
#[derive(Debug, Parser)]
#[command(name = "windlass", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the host: all plugins, their schedules, and the health port
    Run(run::Args),
    /// Validate the configuration, and print what is effective and where it comes from
    Check(check::Args),
    /// Run any wasm once, here and now, and say what it took
    Once(once::Args),
    /// Say what a wasm file, or an artifact in a registry, is: kind, manifest, imports, digest
    Inspect(inspect::Args),
    /// Compile ahead of time, into the cache of a host's dataDir
    Compile(compile::Args),
    /// Push a wasm file to a container registry, and print the digest
    Push(push::Args),
    /// Pull a wasm file from a container registry
    Pull(pull::Args),
    /// Begin a job of your own in a new folder
    New(new::Args),
    /// Ask a host's health port; the exit code says what it answered
    Health(health::Args),
    /// Show how every plugin of a running host is, the worst first
    Status(status::Args),
    /// Take a plugin's newer version: accept what it asks for, or try it once more
    Swap(by_hand::Args),
    /// Go back to the last good version of a plugin
    Rollback(by_hand::Args),
    /// Measure a host's probes under its present load, and print what to set for them
    ProbeAdvice(probe_advice::Args),
    /// Print the JSON schema of the configuration
    Schema,
    /// Compile one artifact for the host that started this process
    #[command(hide = true)]
    CompileChild(crate::compile::ChildArgs),
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Why a command ended otherwise than well: what to tell, and with which exit code.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1: the job, the host, or what was asked about failed.
    Failed(anyhow::Error),
    /// Exit code 1, and everything has been said already.
    Quiet,
    /// Exit code 2: bad usage, config or input, said before any port is opened.
    Usage(anyhow::Error),
}

/// Parses the arguments, does what they say, and returns the exit code: 0 fine, 1 failed, 2 bad usage.
pub fn main() -> ExitCode {
    crate::host::prefer_small_pages();
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(args),
        Command::Once(args) => once::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Compile(args) => compile::run(args),
        Command::Push(args) => push::run(args),
        Command::Pull(args) => pull::run(args),
        Command::New(args) => new::run(args),
        Command::Health(args) => health::run(args),
        Command::Status(args) => status::run(args),
        Command::Swap(args) => by_hand::run(&args, "swap"),
        Command::Rollback(args) => by_hand::run(&args, "rollback"),
        Command::ProbeAdvice(args) => probe_advice::run(args),
        Command::CompileChild(args) => crate::compile::run_child(&args).map_err(Failure::Failed),
        Command::Schema => {
            print(format_args!("{:#}\n", crate::core::config::json_schema()));
            Ok(())
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "windlass", &mut script);
            print(String::from_utf8_lossy(&script));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Quiet) => ExitCode::from(1),
        Err(Failure::Failed(error)) => say(&error, 1),
        Err(Failure::Usage(error)) => say(&error, 2),
    }
}

/// Prints to stdout. A reader that has gone away (`windlass check | head -1`) has seen what it wanted: the command ends well.
fn print(text: impl std::fmt::Display) {
    if write!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

fn say(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("windlass: {error:#}");
    ExitCode::from(code)
}
