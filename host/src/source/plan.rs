//! From a configuration and the files that are there to what each plugin is to be. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::configuration::Configuration;
use super::{Discovered, file_of};
use crate::core::config::{Plugin, PluginLayer, resolve};
use crate::core::event::Entry;
use crate::core::name::PluginName;

/// What a plugin is to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Want {
    /// Loaded from a file.
    File {
        path: PathBuf,
        defaults: Arc<PluginLayer>,
        entry: Arc<PluginLayer>,
        /// Without what its manifest will say.
        config: Arc<Plugin>,
        /// Whether the operator names it; else the file alone brought it.
        named: bool,
    },
    /// Shown as no good, with the reason.
    Refused(String),
    /// Listed and not run.
    Ignored { source: String },
}

impl Want {
    /// As the supervisor takes it, with the source as it is shown.
    pub(super) fn entry(&self) -> (Arc<str>, Entry) {
        match self {
            Want::File { config, .. } => (config.source.as_str().into(), Entry::Wanted(config.clone())),
            Want::Refused(why) => ("".into(), Entry::Refused(why.clone())),
            Want::Ignored { source } => (source.as_str().into(), Entry::Ignored),
        }
    }
}

/// What is to be, by name, and what is wrong with names.
pub(super) struct Plan {
    pub(super) wants: BTreeMap<PluginName, Want>,
    pub(super) misnamed: Vec<String>,
}

/// Makes the plan.
pub(super) fn plan(configuration: &Configuration, found: Vec<Discovered>) -> Plan {
    let config = &configuration.config;
    let defaults = Arc::new(config.defaults.clone());
    let want = |name: &PluginName, entry: &Result<PluginLayer, String>, named: bool| {
        let checked = entry.clone().and_then(|entry| {
            let plugin = resolve(name, None, &defaults, &entry)?;
            Ok((file_of(&config.plugins_dir, &plugin.source)?, plugin, entry))
        });
        match checked {
            Ok((path, plugin, entry)) => {
                Want::File { path, defaults: defaults.clone(), entry: Arc::new(entry), config: Arc::new(plugin), named }
            }
            Err(why) => Want::Refused(why),
        }
    };
    let mut wants: BTreeMap<PluginName, Want> =
        config.plugins.iter().map(|(name, entry)| (name.clone(), want(name, entry, true))).collect();
    let named: BTreeSet<PathBuf> = wants
        .values()
        .filter_map(|want| match want {
            Want::File { path, .. } => Some(path.clone()),
            Want::Refused(_) | Want::Ignored { .. } => None,
        })
        .collect();
    let mut misnamed = config.misnamed.clone();
    for found in found {
        match found {
            Discovered::Unnamed(why) if configuration.discover => misnamed.push(why),
            Discovered::Unnamed(_) => {}
            Discovered::Plugin(_, path) if named.contains(&path) => {}
            Discovered::Plugin(name, _) if config.plugins.contains_key(&name) => {
                if configuration.discover {
                    misnamed.push(format!(
                        "the file {name}.wasm and an entry in `plugins` have one name: rename one of them"
                    ));
                }
            }
            Discovered::Plugin(name, path) => {
                let file = path.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
                let want = match configuration.discover {
                    true => want(&name, &Ok(PluginLayer::of_file(&file)), false),
                    false => Want::Ignored { source: format!("file:{file}") },
                };
                wants.insert(name, want);
            }
        }
    }
    Plan { wants, misnamed }
}
