//! `cargo xtask ci`: what CI runs, the cheap things first.

use std::process::ExitCode;

use crate::steps::{self, Steps, command};
use crate::{Result, bench, demo, links, prepare, test, testbed};

/// The cargo-deny that licences and sources are checked with.
const DENY: &str = "0.20.2";

pub(crate) fn run() -> Result<ExitCode> {
    let mut steps = Steps::new(21);
    let outcome = all(&mut steps);
    steps.table();
    match outcome {
        Ok(count) => {
            println!("\n{} passed, {} failed", count.passed, count.failed);
            Ok(if count.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(why) => {
            eprintln!("\n{why}");
            println!("\n0 passed, 1 failed");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn all(steps: &mut Steps) -> Result<test::Count> {
    let target = prepare::run(steps)?;
    steps.step("format", "", || steps::run(command("cargo", &["fmt", "--all", "--check"])))?;
    steps.step("links in the documentation", "", links::check)?;
    steps.step("lints", "about 3 minutes the first time", || {
        let lints =
            ["clippy", "--release", "--target", &target, "--workspace", "--all-targets", "--", "-D", "warnings"];
        steps::run(command("cargo", &lints))?;
        let wedge = [
            "clippy",
            "--release",
            "--target",
            &target,
            "-p",
            "windlass",
            "--features",
            "wedge",
            "--",
            "-D",
            "warnings",
        ];
        steps::run(command("cargo", &wedge))
    })?;
    steps.step("documentation", "", || {
        let mut doc = command(
            "cargo",
            &["doc", "--release", "--target", &target, "--no-deps", "-p", "windlass-core", "-p", "windlass-sdk"],
        );
        doc.env("RUSTDOCFLAGS", "-D warnings");
        steps::run(doc)
    })?;
    let count = test::all(steps, &target, &[])?;
    if count.failed > 0 {
        return Ok(count);
    }
    steps.step("the demo", "", || demo::check(5))?;
    bench::build_benches(steps, &target)?;
    steps.step("short benchmarks", "about 2 minutes", || {
        for name in bench::NAMES {
            let figures = steps::output(bench::one(&target, name, &["--short", "--json"]))?;
            eprintln!("{}", figures.trim_end());
            if !figures.contains("\"figures\"") {
                return Err(format!("the benchmark {name} printed no figures"));
            }
        }
        Ok(())
    })?;
    licences(steps)?;
    testbed::all(steps, &target, false)?;
    Ok(count)
}

/// Licences, sources and advisories, by cargo-deny.
fn licences(steps: &mut Steps) -> Result<()> {
    let deny = prepare::cargo_tool(steps, "cargo-deny", DENY)?;
    let deny = deny.display().to_string();
    steps.step("licences and sources", "", || {
        steps::run(command(&deny, &["--all-features", "check", "bans", "licenses", "sources"]))
    })?;
    steps.step("advisories", "", || {
        let checked = steps::output(command(&deny, &["--all-features", "check", "advisories"]));
        match checked {
            Ok(_) => Ok(()),
            // The list of advisories is fetched from the net; where that cannot be reached, nothing is known.
            Err(why) if why.contains("failed to fetch") || why.contains("advisory database") => {
                eprintln!("!! the list of advisories cannot be reached: dependencies were NOT checked against it");
                Ok(())
            }
            Err(why) => Err(why),
        }
    })
}
