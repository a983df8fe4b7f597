//! Clients and libraries of other authors that tests hold the host against: the ORAS project's client, and what Sigstore signs with.
//! Installs them beside what is built; a test whose counterpart is missing says so and skips.

use std::path::PathBuf;

use crate::Result;
use crate::steps::{self, Steps, command};

/// By pip.
const ORAS: &str = "oras==0.2.43";
/// By npm. The last is what the one before it needs and does not name.
const SIGSTORE: [&str; 4] =
    ["@sigstore/bundle@4.0.0", "@sigstore/sign@4.1.1", "@sigstore/oci@0.6.0", "promise-retry@2.0.1"];

/// Where they are.
pub(crate) fn folder() -> PathBuf {
    steps::target_folder().join("counterparts")
}

/// Installs what is missing and can be had. Without any of it the project is tested all the same, only not against these.
pub(crate) fn install(steps: &mut Steps) -> Result<()> {
    steps.step("counterparts of other authors", "about 20 seconds the first time", || {
        std::fs::create_dir_all(folder()).map_err(|error| format!("{}: {error}", folder().display()))?;
        for (name, installed) in [("the ORAS client", oras()), ("Sigstore's libraries", sigstore())] {
            if let Err(why) = installed {
                let first = why.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
                eprintln!("!! MISSING {name}: the tests against it will skip\n!!   {first}");
            }
        }
        Ok(())
    })
}

fn oras() -> Result<()> {
    let at = folder().join("python");
    if at.join("oras").is_dir() {
        return Ok(());
    }
    let into = at.display().to_string();
    let install = ["-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--target", &into, ORAS];
    steps::output(command("python3", &install)).map(drop)
}

fn sigstore() -> Result<()> {
    let at = folder().join("npm");
    if at.join("node_modules/@sigstore/oci").is_dir() {
        return Ok(());
    }
    let into = at.display().to_string();
    let install = ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", &into];
    steps::output(command("npm", &[&install[..], &SIGSTORE].concat())).map(drop)
}
