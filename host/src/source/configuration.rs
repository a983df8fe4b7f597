//! Where the configuration is read from, whole: its file, and the further files of `configDir`. Also which bytes it was, as a hash.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use sha2::{Digest as _, Sha256};

use crate::core::config::{Config, Entries, PluginLayer};
use crate::core::name::PluginName;
use crate::verify::Keys;

/// Where the configuration is looked for if nothing is said.
const CONFIG_FILE: &str = "windlass.yaml";

/// The largest configuration file that is read.
const CONFIG_BYTES: u64 = 16 << 20;

/// Where the configuration comes from.
#[derive(Debug)]
pub struct Origin {
    /// A folder that overrides `pluginsDir`.
    dir: Option<PathBuf>,
    file: Option<PathBuf>,
    /// `configDir` as it was last said.
    config_dir: Option<PathBuf>,
    /// What each further file last said that could be read.
    further: BTreeMap<PathBuf, Entries>,
}

/// A configuration that was read.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// What it says; entries of further files are among `plugins`.
    pub config: Config,
    /// What its `verify.keys` at the top level name.
    pub keys: Arc<Keys>,
    /// Whether files without an entry are run.
    pub discover: bool,
    /// SHA-256 of the files' bytes, one after the other, in hexadecimal digits; empty where there is no file.
    pub hash: String,
    /// What is wrong with further files; they stop nobody.
    pub problems: Vec<String>,
}

impl Origin {
    /// Finds it: a folder of plugins, a file, or the file of the usual name in the current folder.
    ///
    /// # Errors
    /// If there is none of them.
    pub fn find(dir: Option<&Path>, file: Option<&Path>) -> Result<Origin> {
        let file = match (dir, file) {
            (_, Some(file)) => Some(file),
            (Some(_), None) => None,
            (None, None) if Path::new(CONFIG_FILE).is_file() => Some(Path::new(CONFIG_FILE)),
            (None, None) => {
                return Err(anyhow!(
                    "there is no {CONFIG_FILE} here: give a folder of .wasm files (`windlass run DIR`) or `--config FILE`"
                ));
            }
        };
        if let Some(dir) = dir {
            std::fs::read_dir(dir)
                .with_context(|| format!("{}: the folder of plugins cannot be read", dir.display()))?;
        }
        Ok(Origin {
            dir: dir.map(Path::to_owned),
            file: file.map(Path::to_owned),
            config_dir: None,
            further: BTreeMap::new(),
        })
    }

    /// Reads all of it. A further file that is no good leaves its plugins as they were.
    ///
    /// # Errors
    /// One line that names the file, if the main one or a key cannot be read or says what it must not.
    pub fn read(&mut self) -> Result<Configuration> {
        let mut hash = Sha256::new();
        let mut config = match &self.file {
            None => Config::default(),
            Some(file) => {
                let text = read(file).context("the configuration cannot be read")?;
                hash.update(&text);
                Config::from_yaml(&text).map_err(|why| anyhow!("{}: {why}", file.display()))?
            }
        };
        let beside = |path: &Path| self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).join(path);
        match &self.dir {
            Some(dir) => dir.clone_into(&mut config.plugins_dir),
            // Relative to the file that says it, not to wherever the host was started.
            None if config.plugins_dir.is_relative() => config.plugins_dir = beside(&config.plugins_dir),
            None => {}
        }
        config.folder = beside(Path::new(""));
        let keys = Keys::read(&config.verify_keys, &config.folder).map_err(|why| anyhow!(why))?;
        self.config_dir = config.config_dir.as_deref().map(beside);
        let problems = self.read_further(&mut config, &mut hash);
        Ok(Configuration {
            discover: config.discover.unwrap_or(self.file.is_none()),
            config,
            keys: Arc::new(keys),
            hash: if self.file.is_some() { format!("{:x}", hash.finalize()) } else { String::new() },
            problems,
        })
    }

    /// The files to look at for changes, as they are now. What cannot be listed is found out by reading.
    pub fn files(&self) -> Vec<PathBuf> {
        let further = self.config_dir.as_deref().and_then(|folder| list(folder).ok()).unwrap_or_default();
        self.file.iter().cloned().chain(further).collect()
    }

    /// The folders that they are in.
    pub fn folders(&self) -> Vec<PathBuf> {
        let parent = |file: &PathBuf| match file.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            Some(_) | None => PathBuf::from("."),
        };
        self.file.iter().map(parent).chain(self.config_dir.clone()).collect()
    }

    fn read_further(&mut self, config: &mut Config, hash: &mut Sha256) -> Vec<String> {
        let mut problems = Vec::new();
        let files = match self.config_dir.as_deref().map(|folder| (folder, list(folder))) {
            None => Vec::new(),
            Some((_, Ok(files))) => files,
            Some((folder, Err(error))) => {
                problems.push(format!("configDir {} cannot be read ({error})", folder.display()));
                // A folder that is away for a while removes nobody.
                self.further.keys().cloned().collect()
            }
        };
        self.further.retain(|file, _| files.contains(file));
        let main = self.file.clone().unwrap_or_default();
        let mut said_in: BTreeMap<PluginName, PathBuf> =
            config.plugins.keys().map(|name| (name.clone(), main.clone())).collect();
        for file in files {
            let parsed = read(&file).map_err(|error| format!("{error:#}")).and_then(|text| {
                hash.update(&text);
                Entries::from_yaml(&text).map_err(|why| format!("{}: {why}", file.display()))
            });
            match parsed {
                Ok(entries) => {
                    self.further.insert(file.clone(), entries);
                }
                Err(why) => problems.push(format!("{why}; what it said before goes on")),
            }
            let Some(entries) = self.further.get(&file) else { continue };
            config.misnamed.extend(entries.misnamed.iter().map(|bad| format!("{}: {bad}", file.display())));
            for (name, entry) in &entries.plugins {
                add(config, &mut said_in, name, entry, &file);
            }
        }
        problems
    }
}

fn add(
    config: &mut Config,
    said_in: &mut BTreeMap<PluginName, PathBuf>,
    name: &PluginName,
    entry: &Result<PluginLayer, String>,
    file: &Path,
) {
    let entry = match said_in.get(name) {
        Some(first) => {
            Err(format!("`{name}` is in both {} and {}: take one of them out", first.display(), file.display()))
        }
        None => {
            said_in.insert(name.clone(), file.to_owned());
            entry.clone()
        }
    };
    config.plugins.insert(name.clone(), entry);
}

/// The `.yaml` and `.yml` files of a folder, sorted; hidden ones are the kubelet's and editors' own.
fn list(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<String> {
    let about = std::fs::metadata(file).with_context(|| file.display().to_string())?;
    anyhow::ensure!(about.is_file(), "{}: it is not a plain file", file.display());
    anyhow::ensure!(about.len() <= CONFIG_BYTES, "{}: it is larger than {} MiB", file.display(), CONFIG_BYTES >> 20);
    std::fs::read_to_string(file).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn further_files_add_plugins_and_a_bad_one_keeps_what_it_said() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("conf.d")).unwrap();
        std::fs::write(at("windlass.yaml"), "configDir: conf.d\nplugins: { a: { source: file:a.wasm } }\n").unwrap();
        std::fs::write(at("conf.d/one.yaml"), "plugins: { b: { source: file:b.wasm } }\n").unwrap();
        std::fs::write(at("conf.d/two.yaml"), "plugins: { a: {}, c: { source: file:c.wasm } }\n").unwrap();
        std::fs::write(at("conf.d/.hidden.yaml"), "nonsense").unwrap();
        let mut origin = Origin::find(None, Some(&at("windlass.yaml"))).unwrap();
        let first = origin.read().unwrap();
        assert_eq!(first.config.plugins.len(), 3);
        assert!(first.problems.is_empty(), "{:?}", first.problems);
        let both = first.config.plugins.get(&PluginName::new("a").unwrap()).unwrap().clone().unwrap_err();
        assert!(both.contains("windlass.yaml") && both.contains("two.yaml"), "{both}");

        std::fs::write(at("conf.d/one.yaml"), "defaults: {}\n").unwrap();
        std::fs::remove_file(at("conf.d/two.yaml")).unwrap();
        let second = origin.read().unwrap();
        let names: Vec<_> = second.config.plugins.keys().map(PluginName::as_str).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(second.problems.join("").contains("one.yaml"), "{:?}", second.problems);
        assert!(second.config.plugins.values().all(Result::is_ok));
        assert_ne!(first.hash, second.hash);
    }
}
