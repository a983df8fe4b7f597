//! Steps, said one by one with how long each took; and commands run as part of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// Counts and times what is done.
pub(crate) struct Steps {
    total: usize,
    done: Vec<(String, Duration)>,
    began: Instant,
}

impl Steps {
    pub(crate) fn new(total: usize) -> Steps {
        Steps { total, done: Vec::new(), began: Instant::now() }
    }

    /// Does one step. `about` says roughly how long it takes, where that is worth saying.
    pub(crate) fn step<T>(&mut self, name: &str, about: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let number = self.done.len() + 1;
        let about = if about.is_empty() { String::new() } else { format!(" ({about})") };
        eprintln!("[{number}/{}] {name}{about}", self.total.max(number));
        let began = Instant::now();
        let outcome = act();
        let took = began.elapsed();
        self.done.push((name.to_owned(), took));
        match &outcome {
            Ok(_) => eprintln!("[{number}/{}] {name}: done in {}", self.total.max(number), minutes(took)),
            Err(_) => eprintln!("[{number}/{}] {name}: FAILED after {}", self.total.max(number), minutes(took)),
        }
        outcome
    }

    /// Prints the minutes of each step.
    pub(crate) fn table(&self) {
        eprintln!("\nminutes per step");
        for (name, took) in &self.done {
            eprintln!("  {:>7}  {name}", minutes(*took));
        }
        eprintln!("  {:>7}  in all", minutes(self.began.elapsed()));
    }
}

/// `3:07`, in minutes and seconds.
pub(crate) fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// The project's root.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Where cargo builds.
pub(crate) fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A command in the project's root. Its standard output goes to standard error, so that ours stays clean.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs a command with its output shown.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let shown = format!("{command:?}");
    command.stdout(std::io::stderr());
    let status = command.status().map_err(|error| format!("{shown}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown}: {status}")) }
}

/// Runs a command and takes its output; the error holds what it said.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(|error| format!("{shown}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{shown}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr)))
}

/// Whether a program can be started.
pub(crate) fn is_there(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}
