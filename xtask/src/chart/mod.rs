//! `cargo xtask chart-schema`: the schema of the chart's values is made from the host's own, so that the two cannot drift.

mod schema;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::steps::{self, Steps, root};
use crate::{Result, build, prepare};

pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let is_check = match arguments {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => return Err("chart-schema takes nothing but --check".to_owned()),
    };
    let mut steps = Steps::new(2);
    let target = prepare::run(&mut steps)?;
    build::host(&mut steps, &target)?;
    if is_check {
        check()?
    } else {
        write()?
    }
    Ok(ExitCode::SUCCESS)
}

/// The chart's folder.
pub(crate) fn folder() -> PathBuf {
    root().join("charts/windlass")
}

/// The host's version, which is the chart's and the image's too.
pub(crate) fn version() -> Result<String> {
    let text = fs::read_to_string(root().join("Cargo.toml")).map_err(|error| format!("Cargo.toml: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("version = \""));
    line.and_then(|line| line.strip_suffix('"'))
        .map(str::to_owned)
        .ok_or_else(|| "Cargo.toml has no version".to_owned())
}

fn made() -> Result<String> {
    let host = build::host_binary().display().to_string();
    let schema = steps::output(steps::command(&host, &["schema"]))?;
    let path = folder().join("values.schema.in.json");
    let ours = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    schema::render(&ours, &schema)
}

fn write() -> Result<()> {
    let path = folder().join("values.schema.json");
    fs::write(&path, made()?).map_err(|error| format!("{}: {error}", path.display()))
}

/// Fails if the schema that is there is not the one that would be made.
pub(crate) fn check() -> Result<()> {
    let path = folder().join("values.schema.json");
    let there = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if there == made()? { Ok(()) } else { Err(format!("{} is old: cargo xtask chart-schema", path.display())) }
}
