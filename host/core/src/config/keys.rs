//! Every key there is: its name, what it takes, its default and its meaning. The reader, the schema, the reference page and
//! `windlass check` are all made from these tables, so that they cannot disagree.

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// `true` and nothing else: a trigger that is there or not.
    True,
    /// A whole number or amount within bounds.
    Whole(u64, u64),
    /// An amount of bytes within bounds.
    Bytes(u64, u64),
    /// A number of seconds within bounds.
    Seconds(f64, f64),
    /// A duration with units, within bounds in seconds.
    Duration(f64, f64),
    /// Text.
    Text,
    /// One of these words; those behind the bar are not in this version.
    OneOf(&'static [&'static str], &'static [&'static str]),
    /// An address and port.
    Address,
    /// A list of texts.
    Texts,
    /// Names and texts.
    TextMap,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Where it stands: `limits.memory`.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default in words, as the reference shows it.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn key(path: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    Key { path, kind, default, meaning }
}

const YEAR_S: f64 = 31_536_000.0;
const GIB: u64 = 1 << 30;

const VERIFY: &str =
    "Public keys of cosign, in files or as PEM; with them, an artifact without a good signature is refused";

/// Keys of a plugin that are the operator's alone: a manifest that says them is refused.
pub const OPERATORS: [&str; 3] = ["source", "refreshSeconds", "verify.keys"];

/// Keys at the top of the file, besides `defaults` and `plugins`.
pub const HOST: &[Key] = &[
    key("health.listen", Kind::Address, "0.0.0.0:8080", "Health port; reachable without authentication"),
    key(
        "health.stuckSeconds",
        Kind::Seconds(1.0, 3_600.0),
        "15",
        "How long a lane may stay in one poll, or the scheduler give no beat, before /health/live turns red",
    ),
    key(
        "health.detail",
        Kind::OneOf(&["full", "names"], &[]),
        "full",
        "`names`: no descriptions or data on the health port",
    ),
    key(
        "admin.listen",
        Kind::Address,
        "127.0.0.1:8081",
        "Admin port; a token is required on any other address than the loopback",
    ),
    key("admin.tokenFile", Kind::Text, "none", "File with the admin port's token"),
    key("pluginsDir", Kind::Text, "/plugins", "Folder that `file:` sources are relative to"),
    key(
        "configDir",
        Kind::Text,
        "none",
        "Folder of further files, each with `plugins:`; a name in two files is an error that names both",
    ),
    key(
        "discover",
        Kind::Bool,
        "false with a config file, true for `windlass run DIR`",
        "Whether a .wasm in pluginsDir without an entry is run; else it is listed as Ignored",
    ),
    key(
        "dataDir",
        Kind::Text,
        "none",
        "Folder for the host's own data: compiled code is kept in `cache/compiled`, at most 2 GiB, private to the host's user; an exclusive lock is held in it",
    ),
    key("verify.keys", Kind::Texts, "none", VERIFY),
    key("drainSeconds", Kind::Seconds(0.0, 3_600.0), "25", "How long runs in flight may go on after SIGTERM"),
    key(
        "readyTimeoutSeconds",
        Kind::Seconds(0.0, 3_600.0),
        "60",
        "When /health/ready stops waiting for plugins that still load",
    ),
    key(
        "limits.memory",
        Kind::Bytes(1 << 20, 1 << 50),
        "75 % of the container's limit, or of the machine's memory",
        "Memory of all guests at any moment",
    ),
    key("limits.maxConcurrentRuns", Kind::Whole(1, 100_000), "4000", "Runs in progress at once; the rest waits"),
    key("limits.lanes", Kind::Whole(1, 256), "CPU limit rounded up, else the cores", "Threads that execute guests"),
];

/// Keys of a plugin, in `defaults`, in an entry of `plugins`, and in a manifest.
pub const PLUGIN: &[Key] = &[
    key(
        "source",
        Kind::Text,
        "none",
        "`file:NAME`, a file in pluginsDir, or `oci://HOST/REPO:TAG` or `@sha256:…` in a registry",
    ),
    key(
        "refreshSeconds",
        Kind::Seconds(1.0, YEAR_S),
        "60",
        "How often a tag in a registry is resolved again; a digest never",
    ),
    key("verify.keys", Kind::Texts, "none; then those of the top level count", VERIFY),
    key(
        "trial",
        Kind::OneOf(&["None", "OneRun"], &[]),
        "None",
        "`OneRun`: a newer version must succeed once, in a run of its own, before it takes over",
    ),
    key("probation.runs", Kind::Whole(1, 1_000), "3", "Finished runs that a newer version is watched for"),
    key(
        "probation.seconds",
        Kind::Seconds(1.0, YEAR_S),
        "300",
        "`continuous`: how long a newer version is watched instead",
    ),
    key("every", Kind::Duration(0.01, YEAR_S), "none", "Runs at this interval, from start to start"),
    key("continuous", Kind::True, "none", "Runs all the time; started again after it returns"),
    key("once", Kind::True, "none", "Runs once per host start"),
    key("restartDelaySeconds", Kind::Seconds(0.0, YEAR_S), "1", "`continuous`: pause after it returned Ok"),
    key(
        "concurrencyPolicy",
        Kind::OneOf(&["Allow", "Forbid", "Replace"], &[]),
        "Forbid",
        "What a start does while a run is in progress",
    ),
    key("maxConcurrent", Kind::Whole(1, 1_000), "10", "`Allow`: runs in progress at once"),
    key("startingDeadlineSeconds", Kind::Seconds(0.1, YEAR_S), "none", "How late a start may still take place"),
    key(
        "activeDeadlineSeconds",
        Kind::Seconds(0.001, YEAR_S),
        "600; none for `continuous`",
        "Time for a run with all its attempts and pauses, from its first slice on",
    ),
    key("attemptDeadlineSeconds", Kind::Seconds(0.001, YEAR_S), "none", "Time for one attempt, likewise"),
    key("backoffLimit", Kind::Whole(0, 1_000), "3", "Attempts after the first"),
    key("suspend", Kind::Bool, "false", "Starts nothing"),
    key("instance", Kind::OneOf(&["PerRun"], &["Resident"]), "PerRun", "A fresh instance for each run"),
    key("limits.memory", Kind::Bytes(64 << 10, 4 * GIB), "256Mi", "Memory of one instance"),
    key("limits.cpuSeconds", Kind::Seconds(0.001, YEAR_S), "none", "CPU time of one attempt"),
    key("limits.fuel", Kind::Whole(1, u64::MAX >> 1), "none", "Fuel of one attempt"),
    key("limits.weight", Kind::Whole(1, 10_000), "100", "Share of the lanes"),
    key("limits.logs", Kind::Bytes(0, GIB), "1Mi", "Log of one attempt; the rest is dropped"),
    key("args", Kind::Texts, "none", "Arguments of the program"),
    key("config", Kind::TextMap, "none", "What the guest reads through wasi:config"),
    key("tags", Kind::Texts, "none", "Shown in its health entry"),
    key("labels", Kind::TextMap, "none", "Labels of windlass_plugin_info"),
    key("health.failureThreshold", Kind::Whole(1, 1_000), "3", "Failed runs in a row that make it Unhealthy"),
    key(
        "health.maxSilenceSeconds",
        Kind::Seconds(0.1, YEAR_S),
        "none; 300 for `continuous`",
        "No sign of life for so long after one was due makes it Unhealthy",
    ),
    key("health.checkSeconds", Kind::Seconds(0.1, YEAR_S), "30", "How often the author's own check is called"),
    key("health.checkTimeoutSeconds", Kind::Seconds(0.001, 600.0), "5", "How long that check may take"),
    key(
        "health.escalate",
        Kind::OneOf(&["Never", "OnUnhealthy"], &[]),
        "Never",
        "`OnUnhealthy`: this plugin may turn /health/live red",
    ),
    key(
        "health.escalateEverySeconds",
        Kind::Seconds(1.0, YEAR_S),
        "600",
        "It does so at most so often for the same digest",
    ),
    key("health.quarantine", Kind::Bool, "true", "Pauses it after too many failed runs"),
];

/// Keys that exist, and that this version refuses.
pub const LATER_HOST: &[&str] = &[];

/// The same for plugins.
pub const LATER_PLUGIN: &[&str] = &["schedule", "timeZone", "queue", "capabilities"];

/// The keys that start runs: an entry has at most one.
pub const TRIGGERS: [&str; 3] = ["every", "continuous", "once"];
