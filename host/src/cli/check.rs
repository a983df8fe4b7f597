//! `windlass check`: what the configuration comes to, and where each value is from.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;

use super::{Failure, print, run};
use crate::artifact;
use crate::core::config::amount::{show_bytes, show_duration};
use crate::core::config::{Config, Explained, Origin, Plugin, PluginLayer, Trigger, explain, resolve};
use crate::core::name::PluginName;
use crate::host::Resources;
use crate::source::{self, Discovered, Place};
use crate::verify::Keys;

/// What to check.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder of .wasm files, as for `windlass run`
    dir: Option<PathBuf>,
    /// The configuration; windlass.yaml in the current folder if neither DIR nor this is given
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    groups: super::groups::Groups,
}

/// Prints everything that is effective; fails with 2 if an entry is no good or a file is missing.
pub fn run(args: Args) -> Result<(), Failure> {
    let (config, discover) = run::configuration(args.dir.as_deref(), args.config.as_deref()).map_err(Failure::Usage)?;
    let resources = Resources::settle(&config, &args.groups.roots()).map_err(Failure::Usage)?;
    let mut report = Report::default();
    report.host(&config, resources);
    for (name, entry) in &config.plugins {
        report.plugin(name, entry, &config);
    }
    report.found(&config, discover);
    report.problems.extend(config.misnamed.iter().cloned());
    print(&report.text);
    if report.problems.is_empty() {
        print(format_args!("all good\n"));
        return Ok(());
    }
    for problem in &report.problems {
        print(format_args!("problem: {problem}\n"));
    }
    let count = report.problems.len();
    Err(Failure::Usage(anyhow!("{count} {} found", if count == 1 { "problem" } else { "problems" })))
}

#[derive(Default)]
struct Report {
    text: String,
    problems: Vec<String>,
}

impl Report {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn host(&mut self, config: &Config, resources: Resources) {
        self.line("host");
        for (name, value) in [
            ("health.listen", config.health.listen.to_string()),
            ("pluginsDir", config.plugins_dir.display().to_string()),
            ("dataDir", config.data_dir.as_ref().map_or("none".to_owned(), |dir| dir.display().to_string())),
            ("CPU limit", resources.cpu_limit.map_or("none".to_owned(), |limit| format!("{} CPUs", limit.cpus))),
            ("limits.lanes", resources.lanes.to_string()),
            ("limits.maxConcurrentRuns", resources.max_concurrent_runs.to_string()),
            ("limits.memory", show_bytes(resources.memory_bytes >> 20 << 20)),
            ("drainSeconds", config.drain.as_secs_f64().to_string()),
        ] {
            self.line(&format!("  {name:<28} {value}"));
        }
    }

    fn plugin(&mut self, name: &PluginName, entry: &Result<PluginLayer, String>, config: &Config) {
        self.line(&format!("\n{name}"));
        let (problem, shown) = match entry {
            Err(why) => (Some(why.clone()), None),
            Ok(entry) => {
                let (manifest, problem) = match manifest_of(entry, config) {
                    Ok(manifest) => (manifest, None),
                    Err(why) => (None, Some(why)),
                };
                let explained = explain(manifest.as_ref(), &config.defaults, entry);
                match resolve(name, manifest.as_ref(), &config.defaults, entry) {
                    Ok(plugin) => {
                        let keys = Keys::read(&plugin.verify_keys, &config.folder);
                        (problem.or(keys.err()), Some((explained, plugin)))
                    }
                    Err(why) => (Some(why), None),
                }
            }
        };
        if let Some((explained, plugin)) = shown {
            self.values(&explained);
            self.meaning(&plugin);
        }
        if let Some(why) = problem {
            self.line(&format!("  problem: {why}"));
            self.problems.push(format!("{name}: {why}"));
        }
    }

    fn values(&mut self, explained: &Explained) {
        for (path, (value, origin)) in explained {
            let origin = if *origin == Origin::BuiltIn { String::new() } else { format!("  ({})", origin.name()) };
            self.line(&format!("  {path:<28} {value}{origin}"));
        }
    }

    fn meaning(&mut self, plugin: &Plugin) {
        let threshold = plugin.health.failure_threshold;
        let mut text = String::from("  means: ");
        let _ = match plugin.trigger {
            Trigger::Every(period) => {
                let unhealthy = period.saturating_mul(threshold.saturating_sub(1));
                write!(
                    text,
                    "runs at start and every {} after; Unhealthy {} after the first failed run if {threshold} in a row fail",
                    show_duration(period),
                    show_duration(unhealthy)
                )
            }
            Trigger::Once => write!(text, "runs once at start; Degraded if it fails"),
            Trigger::Continuous { restart_delay } => write!(
                text,
                "runs all the time, started again {} after it returns; Unhealthy if {threshold} runs in a row fail",
                show_duration(restart_delay)
            ),
            Trigger::Manual => write!(text, "runs only when it is started by hand; no trigger is set"),
        };
        if let (Trigger::Every(period), Some(deadline)) = (plugin.trigger, plugin.active_deadline)
            && deadline > period.max(Duration::from_secs(1)) * 20
            && plugin.limits.cpu.is_none()
        {
            let _ = write!(
                text,
                "\n  note: a run may take up to {}, and starts that come meanwhile are skipped",
                show_duration(deadline)
            );
        }
        self.line(&text);
    }

    /// Files that no entry names.
    fn found(&mut self, config: &Config, discover: bool) {
        let found = match source::list(&config.plugins_dir).map(source::name_all) {
            Ok(found) => found,
            Err(error) => {
                self.problems.push(format!("pluginsDir {} cannot be read: {error}", config.plugins_dir.display()));
                return;
            }
        };
        let entries: Vec<_> = config.plugins.values().flatten().filter_map(|entry| path_of(entry, config)).collect();
        for found in found {
            match found {
                Discovered::Unnamed(why) if discover => self.problems.push(why),
                Discovered::Unnamed(_) => {}
                Discovered::Plugin(_, path) if entries.contains(&path) => {}
                Discovered::Plugin(name, path) if discover => {
                    let file = path.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
                    self.plugin(&name, &Ok(PluginLayer::of_file(&file)), config);
                }
                Discovered::Plugin(name, _) => {
                    self.line(&format!("\n{name}\n  ignored: it has no entry in `plugins`, and discover is false"));
                }
            }
        }
    }
}

fn path_of(entry: &PluginLayer, config: &Config) -> Option<PathBuf> {
    let (_, source) = entry.said().find(|(path, _)| *path == "source")?;
    match source::place_of(&config.plugins_dir, &source.to_string()).ok()? {
        Place::File(path) => Some(path),
        Place::Registry(_) => None,
    }
}

/// Reads the manifest of the file that an entry names.
fn manifest_of(entry: &PluginLayer, config: &Config) -> Result<Option<PluginLayer>, String> {
    let Some((_, source)) = entry.said().find(|(path, _)| *path == "source") else { return Ok(None) };
    match source::place_of(&config.plugins_dir, &source.to_string())? {
        Place::File(path) => Ok(artifact::layer(&source::load(&path)?.1).cloned()),
        // Checking asks no network: `windlass inspect` does.
        Place::Registry(_) => Ok(None),
    }
}
