//! From a configuration and the files that are there to what each plugin is to be. Reads nothing but the keys that an entry names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::configuration::Configuration;
use super::{Discovered, Place, place_of};
use crate::core::config::{Plugin, PluginLayer, resolve};
use crate::core::event::Entry;
use crate::core::name::PluginName;
use crate::registry::Reference;
use crate::verify::{self, Keys};

/// What a plugin is to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Want {
    /// Loaded from a file.
    File {
        path: PathBuf,
        keys: Arc<Keys>,
        defaults: Arc<PluginLayer>,
        entry: Arc<PluginLayer>,
        /// Without what its manifest will say.
        config: Arc<Plugin>,
        /// Whether the operator names it; else the file alone brought it.
        named: bool,
    },
    /// Loaded from a registry.
    Registry {
        reference: Reference,
        keys: Arc<Keys>,
        defaults: Arc<PluginLayer>,
        entry: Arc<PluginLayer>,
        /// Without what its manifest will say.
        config: Arc<Plugin>,
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
            Want::File { config, .. } | Want::Registry { config, .. } => {
                (config.source.as_str().into(), Entry::Wanted(config.clone()))
            }
            Want::Refused(why) => ("".into(), Entry::Refused(why.clone())),
            Want::Ignored { source } => (source.as_str().into(), Entry::Ignored),
        }
    }
}

impl Want {
    /// After what time its registry is asked again, given a number between 0 and 1.
    pub(super) fn refresh(&self, drawn: f64) -> Option<Duration> {
        match self {
            Want::Registry { config, .. } => Some(spread(config.refresh, drawn)),
            Want::File { .. } | Want::Refused(_) | Want::Ignored { .. } => None,
        }
    }

    /// The file beside the plugin's own that has to sign it.
    pub(super) fn signature(&self) -> Option<PathBuf> {
        match self {
            Want::File { path, keys, .. } if !keys.is_empty() => Some(verify::signature_beside(path)),
            Want::File { .. } | Want::Registry { .. } | Want::Refused(_) | Want::Ignored { .. } => None,
        }
    }
}

/// A tenth less to a tenth more, so that a thousand pods that were started together do not ask together for ever.
fn spread(every: Duration, drawn: f64) -> Duration {
    let seconds = every.as_secs_f64() * (0.9 + 0.2 * drawn.clamp(0.0, 1.0));
    Duration::try_from_secs_f64(seconds).unwrap_or(every)
}

/// What is to be, by name, and what is wrong with names.
pub(super) struct Plan {
    pub(super) wants: BTreeMap<PluginName, Want>,
    pub(super) misnamed: Vec<String>,
    /// Plugins from registries for which no signature is asked.
    pub(super) unsigned: Vec<String>,
}

/// Makes the plan.
pub(super) fn plan(configuration: &Configuration, found: Vec<Discovered>) -> Plan {
    let config = &configuration.config;
    let defaults = Arc::new(config.defaults.clone());
    let keys_of = |plugin: &Plugin| match plugin.verify_keys.as_slice() {
        [] => Ok(configuration.keys.clone()),
        own => Keys::read(own, &config.folder).map(Arc::new),
    };
    let want = |name: &PluginName, entry: &Result<PluginLayer, String>, named: bool| {
        let checked = entry.clone().and_then(|entry| {
            let plugin = resolve(name, None, &defaults, &entry)?;
            Ok((place_of(&config.plugins_dir, &plugin.source)?, keys_of(&plugin)?, plugin, entry))
        });
        match checked {
            Ok((place, keys, plugin, entry)) => {
                let (defaults, entry, config) = (defaults.clone(), Arc::new(entry), Arc::new(plugin));
                match place {
                    Place::File(path) => Want::File { path, keys, defaults, entry, config, named },
                    Place::Registry(reference) => Want::Registry { reference, keys, defaults, entry, config },
                }
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
            Want::Registry { .. } | Want::Refused(_) | Want::Ignored { .. } => None,
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
    let is_unsigned = |want: &Want| matches!(want, Want::Registry { keys, .. } if keys.is_empty());
    let unsigned = wants.iter().filter(|(_, want)| is_unsigned(want)).map(|(name, _)| name.to_string()).collect();
    Plan { wants, misnamed, unsigned }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_comes_within_a_tenth_of_its_time_wherever_the_draw_falls() {
        let minute = Duration::from_secs(60);
        let spread_ms = |drawn: f64| spread(minute, drawn).as_millis();
        assert_eq!([0.0, 0.5, 1.0, -7.0, 7.0].map(spread_ms), [54_000, 60_000, 66_000, 54_000, 66_000]);
        assert_eq!(spread(Duration::MAX, 1.0), Duration::MAX);
        // A thousand hosts are told apart: no second of the twelve in which they ask has more than a few times its share.
        let mut by_second = [0; 12];
        for host in 0..1_000_u32 {
            let at = spread(minute, f64::from(host) / 1_000.0).as_secs().saturating_sub(54);
            if let Some(second) = usize::try_from(at).ok().and_then(|at| by_second.get_mut(at)) {
                *second += 1;
            }
        }
        assert!(by_second.iter().all(|asked| (60..120).contains(asked)), "{by_second:?}");
    }
}
