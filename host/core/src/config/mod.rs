//! Configuration: from YAML to final types, once. Nothing here touches a file.

pub mod amount;
mod keys;
mod layer;
mod plugin;
mod schema;
mod yaml;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use layer::Value;
pub use plugin::{
    Concurrency, Explained, Origin, Plugin, PluginHealth, PluginLayer, PluginLimits, Trigger, describe_layer, explain,
    resolve,
};
pub use schema::{json_schema, reference_page};

use crate::name::PluginName;
use keys::{HOST, LATER_HOST};
use layer::Values;
use yaml::{Content, Node};

/// The whole effective configuration of a host.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `health.*`
    pub health: HealthServer,
    /// `admin.*`; taken from the first release on, though nothing listens there yet.
    pub admin: Admin,
    /// `pluginsDir`
    pub plugins_dir: PathBuf,
    /// `dataDir`
    pub data_dir: Option<PathBuf>,
    /// Where relative paths of keys begin: the folder of the file, which whoever reads it sets.
    pub folder: PathBuf,
    /// `verify.keys`: paths or PEM, for every plugin that has none of its own.
    pub verify_keys: Vec<String>,
    /// `discover`; none where the file does not say.
    pub discover: Option<bool>,
    /// `drainSeconds`
    pub drain: Duration,
    /// `readyTimeoutSeconds`
    pub ready_timeout: Duration,
    /// `limits.*` of the host.
    pub limits: HostLimits,
    /// What `defaults` says: laid over a plugin's manifest before its own entry.
    pub defaults: PluginLayer,
    /// `plugins`: each entry by itself, so that one bad entry stops nobody else.
    pub plugins: BTreeMap<PluginName, Result<PluginLayer, String>>,
    /// Entries whose very name is no good: shown in the entry `windlass`.
    pub misnamed: Vec<String>,
}

/// `health.*` of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthServer {
    /// `health.listen`
    pub listen: SocketAddr,
    /// `health.stuckSeconds`
    pub stuck: Duration,
    /// `health.detail: names`: no descriptions or data.
    pub names_only: bool,
}

/// `admin.*` of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// `admin.listen`
    pub listen: SocketAddr,
    /// `admin.tokenFile`
    pub token_file: Option<PathBuf>,
}

/// `limits.*` of the host; none means that the host finds out by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostLimits {
    /// `limits.memory`, bytes.
    pub memory_bytes: Option<u64>,
    /// `limits.maxConcurrentRuns`
    pub max_concurrent_runs: Option<u32>,
    /// `limits.lanes`
    pub lanes: Option<u32>,
}

impl Default for Config {
    fn default() -> Config {
        Config::from_values(&Values::new(), PluginLayer::default())
    }
}

impl Config {
    /// Reads a configuration file's text. A bad entry in `plugins` is kept as such; everything else that is wrong is an error.
    ///
    /// # Errors
    /// One line with the line's number, the key, what is wrong and what to do.
    pub fn from_yaml(text: &str) -> Result<Config, String> {
        let root = yaml::parse(text)?;
        let Content::Map(entries) = root.content else {
            return Err(format!("line {}: a configuration is a map of keys, and this is {}", root.line, root.kind()));
        };
        let (mut own, mut defaults, mut plugins) = (Vec::new(), None, None);
        for (key, value) in entries {
            match key.name.as_str() {
                "defaults" => defaults = Some(value),
                "plugins" => plugins = Some(value),
                _ => own.push((key, value)),
            }
        }
        let own = Node { line: root.line, content: Content::Map(own) };
        let values = layer::read(&own, HOST, LATER_HOST)?;
        let defaults = match defaults {
            Some(node) if node.content != Content::Null => {
                let layer = PluginLayer::from_node(&node).map_err(|why| in_group("defaults", &why))?;
                if layer.said().any(|(path, _)| path == "source") {
                    return Err(format!("line {}: defaults: `source` is for a plugin's own entry", node.line));
                }
                layer
            }
            _ => PluginLayer::default(),
        };
        let mut config = Config::from_values(&values, defaults);
        match plugins {
            Some(Node { content: Content::Map(entries), .. }) => {
                for (key, value) in entries {
                    match PluginName::new(&key.name) {
                        Err(bad) => config.misnamed.push(format!("line {}: plugins: {bad}", key.line)),
                        Ok(name) => {
                            let layer = match value.content {
                                Content::Null => Ok(PluginLayer::default()),
                                Content::Plain(_) | Content::Quoted(_) | Content::List(_) | Content::Map(_) => {
                                    PluginLayer::from_node(&value)
                                        .map_err(|why| in_group(&format!("plugins.{name}"), &why))
                                }
                            };
                            config.plugins.insert(name, layer);
                        }
                    }
                }
            }
            None | Some(Node { content: Content::Null, .. }) => {}
            Some(node) => {
                return Err(format!("line {}: plugins must be a map of names, and is {}", node.line, node.kind()));
            }
        }
        Ok(config)
    }

    fn from_values(values: &Values, defaults: PluginLayer) -> Config {
        let time = |path: &str, default: u64| match values.get(path) {
            Some(Value::Seconds(time)) => *time,
            _ => Duration::from_secs(default),
        };
        let text = |path: &str| match values.get(path) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let address = |path: &str, default: SocketAddr| match values.get(path) {
            Some(Value::Address(address)) => *address,
            _ => default,
        };
        let number = |path: &str| match values.get(path) {
            Some(Value::Whole(number) | Value::Bytes(number)) => Some(*number),
            _ => None,
        };
        let small = |path: &str| number(path).and_then(|number| u32::try_from(number).ok());
        Config {
            health: HealthServer {
                listen: address("health.listen", (Ipv4Addr::UNSPECIFIED, 8080).into()),
                stuck: time("health.stuckSeconds", 15),
                names_only: text("health.detail").as_deref() == Some("names"),
            },
            admin: Admin {
                listen: address("admin.listen", (Ipv4Addr::LOCALHOST, 8081).into()),
                token_file: text("admin.tokenFile").map(PathBuf::from),
            },
            plugins_dir: PathBuf::from(text("pluginsDir").unwrap_or_else(|| "/plugins".to_owned())),
            data_dir: text("dataDir").map(PathBuf::from),
            folder: PathBuf::new(),
            verify_keys: match values.get("verify.keys") {
                Some(Value::Texts(keys)) => keys.clone(),
                _ => Vec::new(),
            },
            discover: match values.get("discover") {
                Some(Value::Bool(discover)) => Some(*discover),
                _ => None,
            },
            drain: time("drainSeconds", 25),
            ready_timeout: time("readyTimeoutSeconds", 60),
            limits: HostLimits {
                memory_bytes: number("limits.memory"),
                max_concurrent_runs: small("limits.maxConcurrentRuns"),
                lanes: small("limits.lanes"),
            },
            defaults,
            plugins: BTreeMap::new(),
            misnamed: Vec::new(),
        }
    }
}

/// Puts the name of the group behind the line's number.
fn in_group(group: &str, why: &str) -> String {
    match why.split_once(": ") {
        Some((line, rest)) if line.starts_with("line ") => format!("{line}: {group}: {rest}"),
        _ => format!("{group}: {why}"),
    }
}

#[cfg(test)]
mod tests;
