//! `windlass run`: the host.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};

use super::Failure;
use crate::core::config::Config;
use crate::driver::{Inbox, Message};
use crate::health::{self, Board, Signals};
use crate::host::{self, DataLock, Host, Resources, Setup};
use crate::lanes::{cgroup, priority};
use crate::telemetry::{self, Format};
use crate::verify::Keys;

/// Where the configuration is looked for if nothing is said.
const CONFIG_FILE: &str = "windlass.yaml";

/// What to run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder of .wasm files; runs each by its own manifest, with no configuration at all
    dir: Option<PathBuf>,
    /// The configuration; windlass.yaml in the current folder if neither DIR nor this is given
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = Format::Auto)]
    log_format: Format,
    /// Where the reason is written when /health/live turns red
    #[arg(long, value_name = "FILE", default_value = "/dev/termination-log", hide = true)]
    termination_log: PathBuf,
}

/// Runs until SIGTERM or SIGINT has been drained.
pub fn run(args: Args) -> Result<(), Failure> {
    // First of all: as PID 1 there is no default for a signal.
    let signals = Signals::install().map_err(Failure::Failed)?;
    telemetry::init(args.log_format).map_err(Failure::Usage)?;
    let (config, discover) = configuration(args.dir.as_deref(), args.config.as_deref()).map_err(Failure::Usage)?;
    let keys = Keys::read(&config.verify_keys, &config.folder).map_err(|why| Failure::Usage(anyhow!(why)))?;
    let resources = Resources::settle(&config, &cgroup::Roots::default()).map_err(Failure::Usage)?;
    let _lock = config.data_dir.as_deref().map(DataLock::take).transpose().map_err(Failure::Failed)?;
    let bound = health::bind(config.health.listen)
        .with_context(|| {
            format!("health.listen {}: the port cannot be opened; is another process on it?", config.health.listen)
        })
        .map_err(Failure::Usage)?;
    let board = Board::new(resources.lanes, host::empty_snapshot());
    let inbox = Inbox::new();
    let told = inbox.clone();
    let options = health::Options {
        board: board.clone(),
        stuck: config.health.stuck,
        names_only: config.health.names_only,
        ready_timeout: config.ready_timeout,
        drain: config.drain,
        termination_log: args.termination_log,
        process_niceness: priority::niceness().map_err(Failure::Failed)?,
        on_shutdown: Box::new(move || told.send(Message::Shutdown)),
    };
    health::spawn(bound, signals, options).map_err(Failure::Failed)?;
    let ended = serve(config, keys, discover, resources, &board, inbox);
    if let Err(error) = &ended {
        tracing::error!(error = format!("{error:#}"), "the host failed");
    }
    telemetry::flush();
    match ended {
        // The reason was written when it turned red; the exit code makes `kubectl describe pod` show it.
        Ok(()) if board.was_red() => Err(Failure::Quiet),
        Ok(()) => Ok(()),
        Err(error) => Err(Failure::Failed(error)),
    }
}

fn serve(
    config: Config,
    keys: Keys,
    discover: bool,
    resources: Resources,
    board: &Arc<Board>,
    inbox: Arc<Inbox>,
) -> anyhow::Result<()> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        lanes = resources.lanes,
        max_concurrent_runs = resources.max_concurrent_runs,
        guests_memory_mib = resources.memory_bytes >> 20,
        "windlass starts"
    );
    // Not a secret, and not to be guessed from outside: two hosts should not retry in step.
    let seed = u64::from(std::process::id()) ^ host::empty_snapshot().started.as_nanosecond() as u64;
    let host = Host::start(Setup { config, keys, discover, resources, board: board.clone(), inbox, seed })?;
    host.wait()?;
    tracing::info!("everything has ended; good bye");
    Ok(())
}

/// Finds and reads the configuration. Returns it with whether files without an entry are run.
pub(super) fn configuration(dir: Option<&Path>, file: Option<&Path>) -> anyhow::Result<(Config, bool)> {
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
    let mut config = match file {
        None => Config::default(),
        Some(file) => read(file)?,
    };
    if let Some(folder) = file.and_then(Path::parent) {
        config.folder = folder.to_owned();
    }
    if let Some(dir) = dir {
        config.plugins_dir = dir.to_owned();
        std::fs::read_dir(dir).with_context(|| format!("{}: the folder of plugins cannot be read", dir.display()))?;
    } else if let (Some(file), true) = (file, config.plugins_dir.is_relative()) {
        // Relative to the file that says it, not to wherever the host was started.
        config.plugins_dir = file.parent().unwrap_or(Path::new("")).join(&config.plugins_dir);
    }
    let discover = config.discover.unwrap_or(file.is_none());
    Ok((config, discover))
}

fn read(file: &Path) -> anyhow::Result<Config> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{}: the configuration cannot be read", file.display()))?;
    Config::from_yaml(&text).map_err(|why| anyhow!("{}: {why}", file.display()))
}
