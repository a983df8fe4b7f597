//! `cargo xtask bench`: builds the benchmarks like everything else, and runs one.

use std::process::ExitCode;

use crate::steps::{self, Steps, command};
use crate::{Result, build, prepare, test};

/// Every benchmark there is.
pub(crate) const NAMES: [&str; 12] = [
    "dispatch",
    "metering",
    "fairness",
    "health",
    "kill",
    "slice",
    "density",
    "rss",
    "quota",
    "coldstart",
    "storm",
    "swap",
];

pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let (flags, names): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|argument| argument.starts_with("--"));
    let [name] = names.as_slice() else { return Err(format!("bench takes one of {}", NAMES.join(", "))) };
    if !NAMES.contains(&name.as_str()) {
        return Err(format!("there is no benchmark `{name}`; there are {}", NAMES.join(", ")));
    }
    if let Some(flag) = flags.iter().find(|flag| !["--json", "--short"].contains(&flag.as_str())) {
        return Err(format!("bench does not know {flag}; it knows --json and --short"));
    }
    let mut steps = Steps::new(4);
    let target = prepare::run(&mut steps)?;
    build::host(&mut steps, &target)?;
    build::guests(&mut steps)?;
    build_benches(&mut steps, &target)?;
    let flags: Vec<&str> = flags.iter().map(|flag| flag.as_str()).collect();
    let status = one(&target, name, &flags).status().map_err(|error| error.to_string())?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn build_benches(steps: &mut Steps, target: &str) -> Result<()> {
    steps.step("building the benchmarks", "about two minutes the first time", || {
        steps::run(command("cargo", &["build", "--release", "--target", target, "-p", "windlass-bench"]))
    })
}

/// The command that runs one.
pub(crate) fn one(target: &str, name: &str, flags: &[&str]) -> std::process::Command {
    let binary = build::binaries(target).join("windlass-bench").display().to_string();
    let mut bench = command(&binary, &[name]);
    bench.args(flags);
    test::environment(&mut bench);
    bench
}
