//! Manifests against Kubernetes' own schemas, strictly, for several versions; and the proof that the validator does catch what is wrong.

use std::fs;
use std::path::Path;

use super::tools::Tools;
use crate::Result;
use crate::steps::{self, command, root};

/// From the oldest that the chart takes to the newest that there is.
pub(super) const VERSIONS: [&str; 5] = ["1.25", "1.29", "1.33", "1.35", "1.37"];

/// Since when a volume can be an image.
const IMAGE_VOLUMES: &str = "1.31";

fn validate(python: &Path, files: &[String], versions: &[&str]) -> Result<String> {
    let mut validate = command("python3", &["-m", "kubernetes_validate", "--strict", "--quiet"]);
    for version in versions {
        validate.args(["-k", version]);
    }
    validate.args(files).env("PYTHONPATH", python);
    steps::output(validate)
}

/// Validates all snapshots. Returns how many objects there were.
pub(super) fn check(tools: &Tools, python: &Path) -> Result<usize> {
    let stored = root().join("tests/chart/snapshots");
    let (mut objects, mut for_all, mut for_new) = (0, Vec::new(), Vec::new());
    for entry in fs::read_dir(&stored).map_err(|error| format!("{}: {error}", stored.display()))?.flatten() {
        let text = fs::read_to_string(entry.path()).map_err(|error| error.to_string())?;
        // Objects of other groups have no schema there.
        let known: Vec<&str> = text.split("\n---\n").filter(|one| !one.contains("kind: PodMonitor")).collect();
        objects += known.len();
        let file = tools.folder.join(format!("validated-{}", entry.file_name().to_string_lossy()));
        fs::write(&file, known.join("\n---\n")).map_err(|error| error.to_string())?;
        let is_new = known.iter().any(|one| one.contains("image: { reference:"));
        if is_new { &mut for_new } else { &mut for_all }.push(file.display().to_string());
    }
    validate(python, &for_all, &VERSIONS)?;
    let new: Vec<_> = VERSIONS.into_iter().filter(|version| *version >= IMAGE_VOLUMES).collect();
    validate(python, &for_new, &new)?;
    catches(tools, python)?;
    Ok(objects)
}

/// A field that is misspelt, by itself, and a value of the wrong type: both must be refused.
fn catches(tools: &Tools, python: &Path) -> Result<()> {
    let sound =
        fs::read_to_string(root().join("tests/chart/snapshots/default.yaml")).map_err(|error| error.to_string())?;
    let (was, misspelt) = ("terminationGracePeriodSeconds: 35", "terminationGracePeriodSecond: 35");
    let wrong = [(was, misspelt), ("replicas: 1", "replicas: one")];
    for (was, is) in wrong {
        let file = tools.folder.join("wrong.yaml");
        let text = sound.replace(was, is);
        if text == sound {
            return Err(format!("the default manifest has no `{was}`"));
        }
        fs::write(&file, text).map_err(|error| error.to_string())?;
        for version in VERSIONS {
            if validate(python, &[file.display().to_string()], &[version]).is_ok() {
                return Err(format!("the validator takes `{is}` for Kubernetes {version}"));
            }
        }
    }
    Ok(())
}
