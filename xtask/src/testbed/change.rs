//! A ConfigMap that changes under a running pod: its folder is swapped as the kubelet swaps it, and the host follows without a restart.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::chart;
use super::containers::Pod;
use super::kubelet::Answer;
use super::scenarios::Stage;
use crate::Result;

const FILE: &str = "windlass.yaml";

/// A plugin more, another interval, and one that does not parse, each as the kubelet would bring it.
pub(super) fn of_the_config_map(stage: &Stage<'_>) -> Result<String> {
    let values = |every: &str, more: bool| {
        let mut plugins = json!({ "heartbeat": { "source": "file:heartbeat.wasm", "every": every } });
        if more {
            plugins["primes"] = json!({ "source": "file:primes.wasm", "every": "1h", "suspend": true });
        }
        json!({ "plugins": plugins })
    };
    let pod = stage.pod("changes", "one", values("1s", false))?;
    pod.wait_until_ready(Duration::from_secs(30))?;
    let folder = pod.config_map()?;
    let started = pod.inspect("{{.State.StartedAt}}")?;
    let first = fs::read_to_string(folder.join(FILE)).map_err(|error| format!("{}: {error}", folder.display()))?;
    // podman writes a plain file. The kubelet's is a link into a folder that a link names.
    swap(&folder, 1, &first)?;
    let wanted = chart::configuration(&stage.render("changes", "one", values("2s", true))?)?;
    swap(&folder, 2, &wanted)?;
    until(&pod, "the new plugin", |report| report["entries"].get("primes").is_some())?;
    swap(&folder, 3, "plugins: { heartbeat: { evry: 1s } }\n")?;
    until(&pod, "the key that is misspelt", |report| report["entries"].to_string().contains("evry"))?;
    swap(&folder, 4, &first)?;
    until(&pod, "a plugin less", |report| {
        let entries = report["entries"].to_string();
        report["entries"].get("heartbeat").is_some() && !entries.contains("primes") && !entries.contains("evry")
    })?;
    if pod.inspect("{{.State.StartedAt}}")? != started || pod.stop()? != 0 {
        return Err("a changed ConfigMap restarted the container".to_owned());
    }
    Ok("a ConfigMap swapped as the kubelet does: a plugin added and removed in the running pod, without a restart"
        .to_owned())
}

/// Makes the file anew in a folder of its own, and names that in one move.
fn swap(folder: &Path, number: u32, text: &str) -> Result<()> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let (name, file) = (format!("..2026_{number}"), folder.join(FILE));
    fs::create_dir(folder.join(&name)).map_err(failed)?;
    fs::write(folder.join(&name).join(FILE), text).map_err(failed)?;
    symlink(&name, folder.join("..data_tmp")).map_err(failed)?;
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).map_err(failed)?;
    if !file.is_symlink() {
        let beside = folder.join("..file_tmp");
        symlink(format!("..data/{FILE}"), &beside).map_err(failed)?;
        fs::rename(&beside, &file).map_err(failed)?;
    }
    if number > 1 {
        fs::remove_dir_all(folder.join(format!("..2026_{}", number - 1))).map_err(failed)?;
    }
    Ok(())
}

/// Waits until the plugins that the host lists are as they should be.
fn until(pod: &Pod<'_>, what: &str, is_it: impl Fn(&Json) -> bool) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        let (answer, report) = pod.ask("/health", Duration::from_secs(2));
        let report: Json = serde_json::from_str(&report).unwrap_or_default();
        if matches!(answer, Answer::Status(_)) && is_it(&report) {
            return Ok(());
        }
        if Instant::now() > limit {
            return Err(format!("{what} is not in the report after a minute: {report}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
