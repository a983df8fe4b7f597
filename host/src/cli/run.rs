//! `windlass run`: the host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};

use super::Failure;
use crate::admin;
use crate::compile;
use crate::core::config::{Admin, Config};
use crate::driver::{Inbox, Message};
use crate::health::{self, Board, Signals};
use crate::host::{self, DataLock, Host, Resources, Setup};
use crate::lanes::priority::Niceness;
use crate::source::{Origin, Settings, Watcher};
use crate::telemetry::{self, Format};

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
    /// How often files are looked at, besides at each event
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, hide = true)]
    poll_seconds: f64,
    /// Look in rounds only, as on a share without change events
    #[arg(long, hide = true)]
    no_events: bool,
    #[command(flatten)]
    groups: super::groups::Groups,
    /// Do not keep to the CPU limit, and let the kernel throttle: for comparison
    #[arg(long, hide = true)]
    no_governor: bool,
    #[command(flatten)]
    compile: CompileArgs,
}

/// Bounds on a compile, for those who test them.
#[derive(Debug, clap::Args)]
struct CompileArgs {
    /// CPU time that one compile may take
    #[arg(long, value_name = "SECONDS", hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    compile_cpu_seconds: Option<u64>,
    /// Time that one compile may take
    #[arg(long, value_name = "SECONDS", hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    compile_seconds: Option<u64>,
    /// Memory that one compile may take
    #[arg(long, value_name = "MIB", hide = true, value_parser = clap::value_parser!(u64).range(1..65536))]
    compile_mib: Option<u64>,
}

impl CompileArgs {
    fn means(&self) -> compile::Means {
        let mut means = compile::Means::default();
        means.limits.cpu_seconds = self.compile_cpu_seconds.unwrap_or(means.limits.cpu_seconds);
        means.limits.time = self.compile_seconds.map_or(means.limits.time, Duration::from_secs);
        means.memory_bytes = self.compile_mib.map(|mib| mib << 20);
        means
    }
}

/// Runs until SIGTERM or SIGINT has been drained.
pub fn run(args: Args) -> Result<(), Failure> {
    // First of all: as PID 1 there is no default for a signal.
    let signals = Signals::install().map_err(Failure::Failed)?;
    telemetry::init(args.log_format).map_err(Failure::Usage)?;
    let mut origin = Origin::find(args.dir.as_deref(), args.config.as_deref()).map_err(Failure::Usage)?;
    let configuration = origin.read().map_err(Failure::Usage)?;
    let config = configuration.config.clone();
    let resources = Resources::settle(&config, &args.groups.roots()).map_err(Failure::Usage)?;
    let _lock = config.data_dir.as_deref().map(DataLock::take).transpose().map_err(Failure::Failed)?;
    let bound = health::bind(config.health.listen)
        .with_context(|| {
            format!("health.listen {}: the port cannot be opened; is another process on it?", config.health.listen)
        })
        .map_err(Failure::Usage)?;
    let admin_port = bind_admin(&config)?;
    let every = Duration::try_from_secs_f64(args.poll_seconds).ok().filter(|every| !every.is_zero());
    let every = every.ok_or_else(|| Failure::Usage(anyhow!("--poll-seconds: it must be more than 0")))?;
    let settings = Settings { every, events: !args.no_events };
    let watcher = Watcher::new(origin, configuration, settings).map_err(Failure::Failed)?;
    let watch = watcher.handle();
    let board = Board::new(resources.plan.most(), host::empty_snapshot());
    let inbox = Inbox::new();
    let told = inbox.clone();
    let niceness = Niceness::by_surroundings(&args.groups.roots()).map_err(Failure::Failed)?;
    let options = health::Options {
        board: board.clone(),
        stuck: config.health.stuck,
        names_only: config.health.names_only,
        ready_timeout: config.ready_timeout,
        drain: config.drain,
        termination_log: args.termination_log,
        niceness,
        on_shutdown: Box::new(move || told.send(Message::Shutdown)),
        on_hangup: Box::new(move || watch.reload()),
    };
    health::spawn(bound, signals, options).map_err(Failure::Failed)?;
    if let Some(port) = admin_port {
        let (board, inbox) = (board.clone(), inbox.clone());
        let options = admin::Options { board, inbox, token_file: config.admin.token_file, niceness };
        admin::spawn(port, options).map_err(Failure::Failed)?;
    }
    let governed_by = (!args.no_governor).then(|| args.groups.roots());
    let setup = Setup {
        drain: config.drain,
        data_dir: config.data_dir,
        watcher,
        resources,
        governed_by,
        compile: args.compile.means(),
        board: board.clone(),
        inbox,
        seed: seed(),
        niceness,
    };
    let ended = serve(setup);
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

/// Binds the admin port. One that nobody asked for by name does without, if another host on the machine has its place.
fn bind_admin(config: &Config) -> Result<Option<admin::Bound>, Failure> {
    let address = config.admin.listen.unwrap_or(Admin::DEFAULT);
    if !address.ip().is_loopback() && config.admin.token_file.is_none() {
        let why = "other machines reach it, so a token is required: set admin.tokenFile";
        return Err(Failure::Usage(anyhow!("admin.listen {address}: {why}")));
    }
    match (admin::bind(address), config.admin.listen) {
        (Ok(bound), _) => Ok(Some(bound)),
        (Err(error), None) => {
            tracing::warn!(%address, %error, "no admin port: set admin.listen to another address to have one");
            Ok(None)
        }
        (Err(error), Some(_)) => {
            let error = anyhow!(error)
                .context(format!("admin.listen {address}: the port cannot be opened; is another process on it?"));
            Err(Failure::Usage(error))
        }
    }
}

fn serve(setup: Setup) -> anyhow::Result<()> {
    let resources = setup.resources;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        lanes = resources.lanes,
        cpu_limit = resources.cpu_limit.map(|limit| limit.cpus),
        max_concurrent_runs = resources.max_concurrent_runs,
        guests_memory_mib = resources.memory_bytes >> 20,
        "windlass starts"
    );
    let host = Host::start(setup)?;
    host.wait()?;
    tracing::info!("everything has ended; good bye");
    Ok(())
}

/// Not a secret, and not to be guessed from outside: two hosts should not retry in step.
fn seed() -> u64 {
    u64::from(std::process::id()) ^ host::empty_snapshot().started.as_nanosecond() as u64
}

/// Finds and reads the configuration. Returns it with whether files without an entry are run.
pub(super) fn configuration(dir: Option<&Path>, file: Option<&Path>) -> anyhow::Result<(Config, bool)> {
    let read = Origin::find(dir, file)?.read()?;
    if !read.problems.is_empty() {
        anyhow::bail!("{}", read.problems.join("; "));
    }
    Ok((read.config, read.discover))
}
