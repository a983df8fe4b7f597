//! `cargo xtask`: everything that sets up, builds, tests and measures the project. Depends on nothing but
//! `serde_json`, so that it builds in seconds.

mod bench;
mod build;
mod chart;
mod ci;
mod counterparts;
mod demo;
mod links;
mod prepare;
mod release;
mod steps;
mod test;
mod testbed;

use std::process::ExitCode;

/// What went wrong, for a person.
type Result<T> = std::result::Result<T, String>;

const HELP: &str = "\
cargo xtask COMMAND

  demo [--seconds N]             build everything, run the host on the example plugins, print the health report's URL
  test [-- FILTER]               build everything and run all tests
  bench NAME [--json] [--short]  run a benchmark of the shipping build: dispatch, metering, fairness, health, kill, slice,
                                 density
  build                          build the host, the example plugins and the tests' guests
  chart-schema [--check]         make the schema of the chart's values from `windlass schema`, or check that it is up to date
  testbed [--update]             prove of chart and image what a machine without a cluster can; --update stores the snapshots anew
  release STAGE [--tag vVERSION] one stage of a release, as the workflow calls it, into target/dist
  release --dry-run              all of them, but for the upload; --target TRIPLE for another architecture
  ci                             what CI runs: format, lints, licences, documentation, tests, short benchmarks, the test bed
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<ExitCode> {
    let rest = arguments.get(1..).unwrap_or_default();
    match arguments.first().map(String::as_str) {
        Some("demo") => demo::run(rest),
        Some("test") => test::run(rest),
        Some("bench") => bench::run(rest),
        Some("build") => {
            let mut steps = steps::Steps::new(3);
            let target = prepare::run(&mut steps)?;
            build::host(&mut steps, &target)?;
            build::guests(&mut steps)?;
            Ok(ExitCode::SUCCESS)
        }
        Some("chart-schema") => chart::run(rest),
        Some("testbed") => testbed::run(rest),
        Some("release") => release::run(rest),
        Some("ci") => ci::run(),
        None | Some("help" | "--help" | "-h") => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        Some(other) => Err(format!("there is no command `{other}`\n\n{HELP}")),
    }
}
