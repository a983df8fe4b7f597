//! Builds: the host and whatever links it, once, for one target with one profile; and every guest.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::steps::{self, Steps, command, root, target_folder};

/// The example plugins for WASI 0.2 and for preview 1.
pub(crate) const PLUGINS_P2: [&str; 3] = ["heartbeat", "primes", "flaky"];
pub(crate) const PLUGINS_P1: [&str; 1] = ["plain-wasi"];

/// The machine's own target.
pub(crate) fn own_target() -> Result<String> {
    let version = steps::output(command("rustc", &["-vV"]))?;
    let line = version.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).ok_or_else(|| "rustc does not say what it builds for".to_owned())
}

/// Where the binaries of a target are.
pub(crate) fn binaries(target: &str) -> PathBuf {
    target_folder().join(target).join("release")
}

/// The host's binary: a copy that no later build overwrites.
pub(crate) fn host_binary() -> PathBuf {
    target_folder().join("shipped/windlass")
}

/// The same with the feature `wedge`, for tests of what a stuck thread does. Never shipped.
pub(crate) fn wedge_binary() -> PathBuf {
    target_folder().join("shipped/windlass-wedge")
}

/// Where all guests are gathered, by their names.
pub(crate) fn guests_folder() -> PathBuf {
    target_folder().join("guests")
}

/// Builds the host.
pub(crate) fn host(steps: &mut Steps, target: &str) -> Result<()> {
    steps.step("building the host", "about 5 minutes on two cores the first time", || {
        steps::run(command("cargo", &["build", "--release", "--target", target, "-p", "windlass"]))?;
        ship(target, &host_binary())
    })
}

/// Builds the host that tests can stop. No dependency is built again, since the feature is the package's own. Comes before [`host`],
/// so that what cargo leaves in its place is the one that ships.
pub(crate) fn wedge(steps: &mut Steps, target: &str) -> Result<()> {
    steps.step("building the host that tests can stop", "about a minute", || {
        let arguments = ["build", "--release", "--target", target, "-p", "windlass", "--features", "wedge"];
        steps::run(command("cargo", &arguments))?;
        ship(target, &wedge_binary())
    })
}

/// Copies what cargo built to a place of its own, in one move: what runs from there is not written over.
fn ship(target: &str, to: &Path) -> Result<()> {
    let failed = |error: std::io::Error| format!("{}: {error}", to.display());
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let new = to.with_extension("new");
    fs::copy(binaries(target).join("windlass"), &new).map_err(failed)?;
    fs::rename(&new, to).map_err(failed)
}

/// Builds the example plugins and the tests' guests, and gathers them in one folder.
pub(crate) fn guests(steps: &mut Steps) -> Result<()> {
    steps.step("building the guests", "about a minute the first time", || {
        let mut arguments = vec!["build", "--release", "--target", "wasm32-wasip2"];
        PLUGINS_P2.iter().chain(&PLUGINS_P1).for_each(|name| arguments.extend(["-p", name]));
        steps::run(command("cargo", &arguments))?;
        let mut arguments = vec!["build", "--release", "--target", "wasm32-wasip1"];
        PLUGINS_P1.iter().for_each(|name| arguments.extend(["-p", name]));
        steps::run(command("cargo", &arguments))?;
        let gathered = guests_folder();
        fs::create_dir_all(&gathered).map_err(|error| format!("{}: {error}", gathered.display()))?;
        gather(&target_folder().join("wasm32-wasip2/release"), &gathered)?;
        // The plain program as a WASI 0.2 command, beside its preview 1 self.
        let as_command = gathered.join("plain-wasi-command.wasm");
        fs::rename(gathered.join("plain-wasi.wasm"), &as_command)
            .map_err(|error| format!("{}: {error}", as_command.display()))?;
        gather(&target_folder().join("wasm32-wasip1/release"), &gathered)?;
        // Guests that are no part of the workspace: nobody should build them natively.
        for (folder, target) in [("tests/fixtures/rust", "wasm32-wasip2"), ("tests/bench/guests", "wasm32-wasip1")] {
            let manifest = root().join(folder).join("Cargo.toml").display().to_string();
            let built = target_folder().join(folder.replace('/', "-"));
            let mut build = command("cargo", &["build", "--release", "--target", target, "--manifest-path", &manifest]);
            build.env("CARGO_TARGET_DIR", &built);
            steps::run(build)?;
            gather(&built.join(target).join("release"), &gathered)?;
        }
        Ok(())
    })
}

fn gather(from: &Path, to: &Path) -> Result<()> {
    let failed = |error: std::io::Error| format!("gathering guests from {}: {error}", from.display());
    for entry in fs::read_dir(from).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "wasm")
            && let Some(name) = path.file_name()
        {
            fs::copy(&path, to.join(name)).map_err(failed)?;
        }
    }
    Ok(())
}
