//! One plugin's configuration: what each source says of it, and what comes out when they are laid over one another.

use std::collections::BTreeMap;
use std::time::Duration;

use super::keys::{LATER_PLUGIN, OPERATORS, PLUGIN, TRIGGERS};
use super::layer::{self, Value, Values};
use super::yaml::{self, Node};
use crate::name::PluginName;

/// What one source (a manifest, `defaults`, an entry) says of a plugin: everything is optional.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PluginLayer {
    values: Values,
}

/// One plugin's effective configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
    /// Its key in `plugins`.
    pub name: PluginName,
    /// `source`, as written: `file:NAME` or `oci://…`.
    pub source: String,
    /// `refreshSeconds`
    pub refresh: Duration,
    /// `verify.keys`: paths or PEM; empty where those of the host count.
    pub verify_keys: Vec<String>,
    /// `trial`
    pub trial: Trial,
    /// `probation.*`
    pub probation: Probation,
    /// What starts it.
    pub trigger: Trigger,
    /// `concurrencyPolicy` and `maxConcurrent`
    pub concurrency: Concurrency,
    /// `startingDeadlineSeconds`
    pub starting_deadline: Option<Duration>,
    /// `activeDeadlineSeconds`
    pub active_deadline: Option<Duration>,
    /// `attemptDeadlineSeconds`
    pub attempt_deadline: Option<Duration>,
    /// `backoffLimit`
    pub backoff_limit: u32,
    /// `suspend`
    pub suspend: bool,
    /// `limits.*`
    pub limits: PluginLimits,
    /// `args`
    pub args: Vec<String>,
    /// `config`: what the guest reads through wasi:config.
    pub config: BTreeMap<String, String>,
    /// `tags`
    pub tags: Vec<String>,
    /// `labels`
    pub labels: BTreeMap<String, String>,
    /// `health.*`
    pub health: PluginHealth,
}

/// `trial`: what a newer version must do before it takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// Nothing but to load, and to answer its own health check well where it has one.
    None,
    /// Succeed in one run besides.
    OneRun,
}

/// `probation.*`: how long a newer version is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probation {
    /// `probation.runs`
    pub runs: u32,
    /// `probation.seconds`
    pub time: Duration,
}

/// What starts a plugin's runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// `every`: from start to start.
    Every(Duration),
    /// `once: true`
    Once,
    /// `continuous: true`; `restartDelaySeconds`.
    Continuous {
        /// How long to pause after it returned Ok.
        restart_delay: Duration,
    },
    /// None of these.
    Manual,
}

/// `concurrencyPolicy`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// Up to so many runs at once (`maxConcurrent`).
    Allow(u32),
    /// One; a start that comes meanwhile is skipped.
    Forbid,
    /// One; a start that comes meanwhile ends it.
    Replace,
}

/// `limits.*` of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginLimits {
    /// `limits.memory`, bytes, for one instance.
    pub memory_bytes: u64,
    /// `limits.cpuSeconds`, per attempt.
    pub cpu: Option<Duration>,
    /// `limits.fuel`, per attempt.
    pub fuel: Option<u64>,
    /// `limits.weight`
    pub weight: u32,
    /// `limits.logs`, bytes per attempt.
    pub logs_bytes: u64,
}

/// `health.*` of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginHealth {
    /// `failureThreshold`
    pub failure_threshold: u32,
    /// `maxSilenceSeconds`
    pub max_silence: Option<Duration>,
    /// `checkSeconds`
    pub check_every: Duration,
    /// `checkTimeoutSeconds`
    pub check_timeout: Duration,
    /// `escalate: OnUnhealthy`
    pub escalate: bool,
    /// `escalateEverySeconds`
    pub escalate_every: Duration,
    /// `quarantine`
    pub quarantine: bool,
}

/// Where an effective value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The host's own default.
    BuiltIn,
    /// The plugin's manifest.
    Manifest,
    /// `defaults`
    Defaults,
    /// The plugin's entry.
    Entry,
}

impl Origin {
    /// The word that `check` prints.
    pub fn name(self) -> &'static str {
        match self {
            Origin::BuiltIn => "built-in",
            Origin::Manifest => "manifest",
            Origin::Defaults => "defaults",
            Origin::Entry => "entry",
        }
    }
}

impl PluginLayer {
    pub(super) fn from_node(node: &Node) -> Result<PluginLayer, String> {
        Ok(PluginLayer { values: layer::read(node, PLUGIN, LATER_PLUGIN)? })
    }

    /// Reads the JSON object of a manifest.
    ///
    /// # Errors
    /// One line with the key and what is wrong with it.
    pub fn from_json(text: &str) -> Result<PluginLayer, String> {
        // JSON is YAML, but for the line numbers, which tell nobody anything here.
        let layer = yaml::parse(text).and_then(|node| PluginLayer::from_node(&node)).map_err(|why| {
            why.split_once(": ")
                .filter(|(line, _)| line.starts_with("line "))
                .map_or(why.clone(), |(_, rest)| rest.to_owned())
        })?;
        match OPERATORS.iter().find(|path| layer.values.contains_key(**path)) {
            Some(path) => Err(format!("`{path}` is not for a manifest to say")),
            None => Ok(layer),
        }
    }

    /// A layer that only says where the artifact is: for files that are found rather than configured.
    pub fn of_file(file_name: &str) -> PluginLayer {
        PluginLayer { values: Values::from([("source", Value::Text(format!("file:{file_name}")))]) }
    }

    /// What it says, key by key.
    pub fn said(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.values.iter().map(|(path, value)| (*path, value))
    }
}

/// Writes a layer down, one `key: value` a line.
pub fn describe_layer(layer: &PluginLayer) -> String {
    layer.said().map(|(path, value)| format!("{path}: {value}\n")).collect()
}

/// A plugin's effective values, each with its origin. `limits.memory` and the like; keys without a value are left out.
pub type Explained = BTreeMap<&'static str, (Value, Origin)>;

/// Lays the sources over one another: manifest, then `defaults`, then the entry. A trigger takes the place of any trigger below.
pub fn explain(manifest: Option<&PluginLayer>, defaults: &PluginLayer, entry: &PluginLayer) -> Explained {
    let mut merged = Explained::new();
    let sources = [(manifest, Origin::Manifest), (Some(defaults), Origin::Defaults), (Some(entry), Origin::Entry)];
    for (layer, origin) in sources {
        let Some(layer) = layer else { continue };
        if layer.values.keys().any(|path| TRIGGERS.contains(path)) {
            merged.retain(|path, _| !TRIGGERS.contains(path));
        }
        for (path, value) in &layer.values {
            merged.insert(path, (value.clone(), origin));
        }
    }
    let continuous = merged.contains_key("continuous");
    let seconds = |number| Value::Seconds(Duration::from_secs(number));
    let mut built_in = vec![
        ("trial", Value::Text("None".to_owned())),
        ("probation.runs", Value::Whole(3)),
        ("concurrencyPolicy", Value::Text("Forbid".to_owned())),
        ("backoffLimit", Value::Whole(3)),
        ("suspend", Value::Bool(false)),
        ("instance", Value::Text("PerRun".to_owned())),
        ("limits.memory", Value::Bytes(256 << 20)),
        ("limits.weight", Value::Whole(100)),
        ("limits.logs", Value::Bytes(1 << 20)),
        ("health.failureThreshold", Value::Whole(3)),
        ("health.checkSeconds", seconds(30)),
        ("health.checkTimeoutSeconds", seconds(5)),
        ("health.escalate", Value::Text("Never".to_owned())),
        ("health.escalateEverySeconds", seconds(600)),
        ("health.quarantine", Value::Bool(true)),
    ];
    match continuous {
        true => built_in.extend([
            ("restartDelaySeconds", seconds(1)),
            ("health.maxSilenceSeconds", seconds(300)),
            ("probation.seconds", seconds(300)),
        ]),
        false => built_in.push(("activeDeadlineSeconds", seconds(600))),
    }
    if matches!(merged.get("source"), Some((Value::Text(source), _)) if source.starts_with("oci://")) {
        built_in.push(("refreshSeconds", seconds(60)));
    }
    for (path, value) in built_in {
        merged.entry(path).or_insert((value, Origin::BuiltIn));
    }
    merged
}

/// Makes a plugin's effective configuration.
///
/// # Errors
/// One line that names the key, what is wrong and what to do.
pub fn resolve(
    name: &PluginName,
    manifest: Option<&PluginLayer>,
    defaults: &PluginLayer,
    entry: &PluginLayer,
) -> Result<Plugin, String> {
    let got = Got(explain(manifest, defaults, entry));
    let trigger = match (got.time("every"), got.has("once"), got.has("continuous")) {
        (Some(every), ..) => Trigger::Every(every),
        (None, true, _) => Trigger::Once,
        (None, false, true) => {
            Trigger::Continuous { restart_delay: got.time("restartDelaySeconds").unwrap_or(Duration::from_secs(1)) }
        }
        (None, false, false) => Trigger::Manual,
    };
    let concurrency = match (got.text("concurrencyPolicy").as_deref(), got.whole("maxConcurrent")) {
        // Ten at once is more than a job that was meant to run alone needs, and less than an incident.
        (Some("Allow"), most) => Concurrency::Allow(most.unwrap_or(10)),
        (_, Some(_)) => return Err("maxConcurrent goes with concurrencyPolicy: Allow".to_owned()),
        (Some("Replace"), None) => Concurrency::Replace,
        (_, None) => Concurrency::Forbid,
    };
    if matches!(trigger, Trigger::Continuous { .. }) && concurrency != Concurrency::Forbid {
        return Err("a continuous plugin has one run: leave concurrencyPolicy out".to_owned());
    }
    if got.has("restartDelaySeconds") && !matches!(trigger, Trigger::Continuous { .. }) {
        return Err("restartDelaySeconds goes with continuous: true".to_owned());
    }
    let trial = match got.text("trial").as_deref() {
        Some("OneRun") if matches!(trigger, Trigger::Continuous { .. }) => {
            return Err(
                "trial: OneRun needs runs that end, and a continuous plugin's do not: leave trial out".to_owned()
            );
        }
        Some("OneRun") => Trial::OneRun,
        Some(_) | None => Trial::None,
    };
    Ok(Plugin {
        name: name.clone(),
        source: got.text("source").ok_or("`source` is missing: say which file, such as source: file:job.wasm")?,
        refresh: got.time("refreshSeconds").unwrap_or(Duration::from_secs(60)),
        verify_keys: got.texts("verify.keys"),
        trial,
        probation: Probation {
            runs: got.whole("probation.runs").unwrap_or(3),
            time: got.time("probation.seconds").unwrap_or(Duration::from_secs(300)),
        },
        trigger,
        concurrency,
        starting_deadline: got.time("startingDeadlineSeconds"),
        active_deadline: got.time("activeDeadlineSeconds"),
        attempt_deadline: got.time("attemptDeadlineSeconds"),
        backoff_limit: got.whole("backoffLimit").unwrap_or(3),
        suspend: got.truth("suspend"),
        limits: PluginLimits {
            memory_bytes: got.number("limits.memory").unwrap_or(256 << 20),
            cpu: got.time("limits.cpuSeconds"),
            fuel: got.number("limits.fuel"),
            weight: got.whole("limits.weight").unwrap_or(100),
            logs_bytes: got.number("limits.logs").unwrap_or(1 << 20),
        },
        args: got.texts("args"),
        config: got.text_map("config"),
        tags: got.texts("tags"),
        labels: got.text_map("labels"),
        health: PluginHealth {
            failure_threshold: got.whole("health.failureThreshold").unwrap_or(3),
            max_silence: got.time("health.maxSilenceSeconds"),
            check_every: got.time("health.checkSeconds").unwrap_or(Duration::from_secs(30)),
            check_timeout: got.time("health.checkTimeoutSeconds").unwrap_or(Duration::from_secs(5)),
            escalate: got.text("health.escalate").as_deref() == Some("OnUnhealthy"),
            escalate_every: got.time("health.escalateEverySeconds").unwrap_or(Duration::from_secs(600)),
            quarantine: got.truth("health.quarantine"),
        },
    })
}

/// Effective values, taken out by their type.
struct Got(Explained);

impl Got {
    fn value(&self, path: &str) -> Option<&Value> {
        debug_assert!(PLUGIN.iter().any(|key| key.path == path), "{path} is in no table");
        self.0.get(path).map(|(value, _)| value)
    }

    fn has(&self, path: &str) -> bool {
        self.value(path).is_some()
    }

    fn truth(&self, path: &str) -> bool {
        matches!(self.value(path), Some(Value::Bool(true)))
    }

    fn number(&self, path: &str) -> Option<u64> {
        match self.value(path) {
            Some(Value::Whole(number) | Value::Bytes(number)) => Some(*number),
            _ => None,
        }
    }

    fn whole(&self, path: &str) -> Option<u32> {
        self.number(path).and_then(|number| u32::try_from(number).ok())
    }

    fn time(&self, path: &str) -> Option<Duration> {
        match self.value(path) {
            Some(Value::Seconds(time) | Value::Duration(time)) => Some(*time),
            _ => None,
        }
    }

    fn text(&self, path: &str) -> Option<String> {
        match self.value(path) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    fn texts(&self, path: &str) -> Vec<String> {
        match self.value(path) {
            Some(Value::Texts(texts)) => texts.clone(),
            _ => Vec::new(),
        }
    }

    fn text_map(&self, path: &str) -> BTreeMap<String, String> {
        match self.value(path) {
            Some(Value::TextMap(texts)) => texts.clone(),
            _ => BTreeMap::new(),
        }
    }
}
