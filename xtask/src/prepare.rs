//! What has to be there before anything is built or tested: a compiler for C, disk, rustup's targets, a registry. Adds what it can,
//! and says what it cannot.

use std::path::PathBuf;

use crate::steps::{self, Steps};
use crate::{Result, build};

/// Disk that a full build takes, roughly.
const DISK_KIB: u64 = 6 << 20;

/// Checks and installs; returns the target that everything native is built for.
pub(crate) fn run(steps: &mut Steps) -> Result<String> {
    steps.step("checking tools", "", || {
        check_disk()?;
        for target in ["wasm32-wasip1", "wasm32-wasip2"] {
            add_target(target)?;
        }
        for (program, package) in [("docker-registry", "docker-registry"), ("openssl", "openssl")] {
            if !steps::is_there(program) && !install(program, package) {
                eprintln!("!! {program} is missing and could not be installed (Debian: apt-get install {package}).");
                eprintln!("!! The tests that need it will skip or fail.");
            }
        }
        native_target()
    })
}

/// The static target that ships, if this machine can build it; else the machine's own, said loudly.
fn native_target() -> Result<String> {
    let own = build::own_target()?;
    let Some(ships) = own.strip_suffix("-unknown-linux-gnu").map(|arch| format!("{arch}-unknown-linux-musl")) else {
        return Ok(own);
    };
    if !steps::is_there("musl-gcc") && !install("musl-gcc", "musl-tools") {
        eprintln!("!! musl-gcc is missing and could not be installed (Debian: apt-get install musl-tools).");
        eprintln!("!! Building for {own} instead: what is tested now is NOT the binary that ships.");
        if !steps::is_there("cc") {
            return Err("a C compiler is missing too (Debian: apt-get install gcc)".to_owned());
        }
        return Ok(own);
    }
    add_target(&ships)?;
    Ok(ships)
}

/// Installs a package of Debian's, and says whether its program is there now.
fn install(program: &str, package: &str) -> bool {
    let is_root = steps::output(steps::command("id", &["-u"])).is_ok_and(|id| id.trim() == "0");
    if !is_root || !steps::is_there("apt-get") {
        return false;
    }
    eprintln!("installing {package}");
    let install = || {
        let mut install = steps::command("apt-get", &["install", "-y", "--no-install-recommends", package]);
        // The service that comes with docker-registry needs no answers, and is not wanted: tests start their own.
        install.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        steps::output(install)
    };
    // A list that is out of date is the usual reason why the first try fails.
    let installed =
        install().is_ok() || (steps::output(steps::command("apt-get", &["update"])).is_ok() && install().is_ok());
    installed && steps::is_there(program)
}

/// Has a target of rustup's, to build for.
pub(crate) fn add_target(target: &str) -> Result<()> {
    if !steps::is_there("rustup") {
        let folder = steps::output(steps::command("rustc", &["--print", "target-libdir", "--target", target]))?;
        if std::path::Path::new(folder.trim()).is_dir() {
            return Ok(());
        }
        return Err(format!("the target {target} is missing, and so is rustup, which could add it"));
    }
    let installed = steps::output(steps::command("rustup", &["target", "list", "--installed"]))?;
    if installed.lines().any(|line| line == target) {
        return Ok(());
    }
    eprintln!("adding the target {target}");
    steps::output(steps::command("rustup", &["target", "add", target])).map(|_| ())
}

/// A tool of cargo's at one version, installed below the folder that cargo builds in.
pub(crate) fn cargo_tool(steps: &mut Steps, name: &str, version: &str) -> Result<PathBuf> {
    let root = steps::target_folder().join("tools").join(format!("{name}-{version}"));
    let tool = root.join("bin").join(name);
    if !tool.exists() {
        steps.step(&format!("installing {name}"), "some minutes", || {
            let root = root.display().to_string();
            let install = ["install", "--locked", "--quiet", "--version", version, "--root", &root, name];
            steps::run(steps::command("cargo", &install))
        })?;
    }
    Ok(tool)
}

fn check_disk() -> Result<()> {
    let folder = steps::target_folder();
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let listing = steps::output(steps::command("df", &["-Pk", &folder.display().to_string()])).unwrap_or_default();
    let free =
        listing.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)).and_then(|kib| kib.parse::<u64>().ok());
    let is_built = folder.join("xtask-was-here").exists();
    match free {
        Some(free) if free < DISK_KIB && !is_built => Err(format!(
            "{} has {} MiB free, and a full build takes about {} MiB: make room, or set CARGO_TARGET_DIR",
            folder.display(),
            free >> 10,
            DISK_KIB >> 10
        )),
        _ => Ok(()),
    }
}
