//! `cargo xtask test`: everything that can pass or fail.

use std::process::{Command, ExitCode, Stdio};

use crate::steps::{self, Steps, command};
use crate::{Result, build, counterparts, prepare};

/// How many tests passed and failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let filter = match arguments {
        [] => &[],
        [dashes, filter @ ..] if dashes == "--" => filter,
        _ => return Err("test takes a filter behind `--`: cargo xtask test -- NAME".to_owned()),
    };
    let mut steps = Steps::new(7);
    let target = prepare::run(&mut steps)?;
    let count = all(&mut steps, &target, filter)?;
    steps.table();
    println!("\n{} passed, {} failed", count.passed, count.failed);
    Ok(if count.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds everything, and runs all tests.
pub(crate) fn all(steps: &mut Steps, target: &str, filter: &[String]) -> Result<Count> {
    build::wedge(steps, target)?;
    build::host(steps, target)?;
    build::guests(steps)?;
    counterparts::install(steps)?;
    steps.step("building and running the tests", "about 5 minutes the first time", || {
        let mut test =
            command("cargo", &["test", "--release", "--target", target, "--workspace", "--no-fail-fast", "--"]);
        test.args(filter);
        environment(&mut test);
        count(test)
    })
}

/// Where the tests find what they drive.
pub(crate) fn environment(command: &mut Command) {
    command
        .env("WINDLASS_BIN", build::host_binary())
        .env("WINDLASS_WEDGE_BIN", build::wedge_binary())
        .env("WINDLASS_GUESTS", build::guests_folder())
        .env("WINDLASS_COUNTERPARTS", counterparts::folder())
        .env("WINDLASS_ROOT", steps::root());
}

/// Runs cargo's tests, shows what they say, and adds their results up.
fn count(mut test: Command) -> Result<Count> {
    let shown = format!("{test:?}");
    let mut child = test.stdout(Stdio::piped()).spawn().map_err(|error| format!("{shown}: {error}"))?;
    let mut count = Count::default();
    if let Some(output) = child.stdout.take() {
        for line in std::io::BufRead::lines(std::io::BufReader::new(output)) {
            let line = line.map_err(|error| format!("{shown}: {error}"))?;
            count = count.with(&line);
            eprintln!("{line}");
        }
    }
    let status = child.wait().map_err(|error| format!("{shown}: {error}"))?;
    if !status.success() && count.failed == 0 {
        return Err(format!("{shown}: {status}"));
    }
    Ok(count)
}

impl Count {
    /// Adds what a line of cargo's says: `test result: ok. 3 passed; 0 failed; …`.
    fn with(self, line: &str) -> Count {
        let Some(result) = line.strip_prefix("test result: ") else { return self };
        let number = |word: &str| {
            let words: Vec<&str> = result.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
            let at = words.iter().position(|found| *found == word);
            at.and_then(|at| words.get(at.checked_sub(1)?)?.parse::<u64>().ok()).unwrap_or(0)
        };
        Count { passed: self.passed + number("passed"), failed: self.failed + number("failed") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let count = Count::default()
            .with("running 3 tests")
            .with("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s")
            .with("test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        assert_eq!(count, Count { passed: 7, failed: 2 });
    }
}
