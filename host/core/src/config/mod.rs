//! Configuration: from YAML to final types, once. Nothing here touches a file.

pub mod amount;
mod keys;
mod layer;
mod plugin;
mod schema;
mod yaml;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use layer::Value;
pub use plugin::{
    Concurrency, Explained, Origin, Plugin, PluginHealth, PluginLayer, PluginLimits, Probation, Trial, Trigger,
    describe_layer, explain, resolve,
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
    /// `admin.*`
    pub admin: Admin,
    /// `pluginsDir`
    pub plugins_dir: PathBuf,
    /// `configDir`
    pub config_dir: Option<PathBuf>,
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
    /// `admin.listen`; none where nobody says: [`Admin::DEFAULT`].
    pub listen: Option<SocketAddr>,
    /// `admin.tokenFile`
    pub token_file: Option<PathBuf>,
}

impl Admin {
    /// Where the admin port listens if nothing is said.
    pub const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);
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
        let Entries { plugins, misnamed } = Entries::of(plugins)?;
        (config.plugins, config.misnamed) = (plugins, misnamed);
        Ok(config)
    }

    /// The keys in which `newer` differs and that a running host does not take over.
    pub fn needs_restart(&self, newer: &Config) -> Vec<&'static str> {
        // Taken apart, so that a key to come has to be thought of here.
        let Config {
            health,
            admin,
            plugins_dir,
            config_dir,
            data_dir,
            folder: _,
            verify_keys: _,
            discover: _,
            drain,
            ready_timeout,
            limits,
            defaults: _,
            plugins: _,
            misnamed: _,
        } = self;
        [
            ("health", *health != newer.health),
            ("admin", *admin != newer.admin),
            ("pluginsDir", *plugins_dir != newer.plugins_dir),
            ("configDir", *config_dir != newer.config_dir),
            ("dataDir", *data_dir != newer.data_dir),
            ("drainSeconds", *drain != newer.drain),
            ("readyTimeoutSeconds", *ready_timeout != newer.ready_timeout),
            ("limits", *limits != newer.limits),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
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
                listen: match values.get("admin.listen") {
                    Some(Value::Address(address)) => Some(*address),
                    _ => None,
                },
                token_file: text("admin.tokenFile").map(PathBuf::from),
            },
            plugins_dir: PathBuf::from(text("pluginsDir").unwrap_or_else(|| "/plugins".to_owned())),
            config_dir: text("configDir").map(PathBuf::from),
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

/// What a `plugins:` says: entry by entry, so that one bad entry stops nobody else.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entries {
    /// The entries by name.
    pub plugins: BTreeMap<PluginName, Result<PluginLayer, String>>,
    /// Entries whose very name is no good.
    pub misnamed: Vec<String>,
}

impl Entries {
    /// Reads a further file, of `configDir`: `plugins:` and nothing else.
    ///
    /// # Errors
    /// One line with the line's number, the key, what is wrong and what to do.
    pub fn from_yaml(text: &str) -> Result<Entries, String> {
        let root = yaml::parse(text)?;
        let Content::Map(entries) = root.content else {
            return Err(format!("line {}: a configuration is a map of keys, and this is {}", root.line, root.kind()));
        };
        let mut plugins = None;
        for (key, value) in entries {
            match key.name.as_str() {
                "plugins" => plugins = Some(value),
                other => {
                    let other: String = other.chars().take(80).collect();
                    return Err(format!("line {}: `{other}`: a file of configDir has `plugins:` only", key.line));
                }
            }
        }
        Entries::of(plugins)
    }

    fn of(node: Option<Node>) -> Result<Entries, String> {
        let mut read = Entries::default();
        match node {
            Some(Node { content: Content::Map(entries), .. }) => {
                for (key, value) in entries {
                    match PluginName::new(&key.name) {
                        Err(bad) => read.misnamed.push(format!("line {}: plugins: {bad}", key.line)),
                        Ok(name) => {
                            let layer = match value.content {
                                Content::Null => Ok(PluginLayer::default()),
                                Content::Plain(_) | Content::Quoted(_) | Content::List(_) | Content::Map(_) => {
                                    PluginLayer::from_node(&value)
                                        .map_err(|why| in_group(&format!("plugins.{name}"), &why))
                                }
                            };
                            read.plugins.insert(name, layer);
                        }
                    }
                }
                Ok(read)
            }
            None | Some(Node { content: Content::Null, .. }) => Ok(read),
            Some(node) => Err(format!("line {}: plugins must be a map of names, and is {}", node.line, node.kind())),
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
