//! Configuration: from YAML to final types, once. Nothing here touches a file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::name::PluginName;

/// The whole effective configuration of a host.
#[derive(Debug, Clone)]
pub struct Config {
    /// `health.*`
    pub health: HealthServer,
    /// `admin.*`; taken from the first release on, though nothing listens there yet.
    pub admin: Admin,
    /// `pluginsDir`
    pub plugins_dir: PathBuf,
    /// `dataDir`
    pub data_dir: Option<PathBuf>,
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

/// What one source (a manifest, `defaults`, an entry) says of a plugin: everything is optional.
#[derive(Debug, Clone, Default)]
pub struct PluginLayer {
    _fields: (),
}

/// One plugin's effective configuration.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// Its key in `plugins`.
    pub name: PluginName,
    /// `source`, as written: `file:NAME`.
    pub source: String,
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
    /// `limits.logs`, bytes per run.
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
