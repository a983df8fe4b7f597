//! The host put together: from a configuration to lanes, driver and loader that run. What opens ports is not here.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::choices::Choices;
use crate::compile::{self, Compiler};
use crate::core::config::{Config, amount};
use crate::core::health::Snapshot;
use crate::core::supervisor::Supervisor;
use crate::driver::{self, Clock, Inbox, Parts};
use crate::escalations::Escalations;
use crate::guest::{self, Engine, EngineOptions, Ledger, Metering, Toolbox};
use crate::health::Board;
use crate::lanes::governor::{self, Governor, LanePlan};
use crate::lanes::priority::Niceness;
use crate::lanes::{self, Lanes, cgroup};
use crate::registry::{Registry, Store};
use crate::source::{Loader, LoaderOptions, Watcher};

/// What part of the memory there is guests may hold together, unless the configuration says: the host and one compiler live in the rest.
const GUESTS_MEMORY_SHARE: f64 = 0.75;

/// The CPU request of the container as a Kubernetes quantity, where someone passes it in: what there is to share out without a limit.
const CPU_REQUEST: &str = "WINDLASS_CPU_REQUEST";

/// What the machine and the configuration allow: settled before anything is opened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resources {
    /// Threads that execute guests, under the CPU limit of the moment.
    pub lanes: usize,
    /// How their number follows from that limit.
    pub plan: LanePlan,
    /// That limit, if there is one.
    pub cpu_limit: Option<cgroup::CpuLimit>,
    /// The most runs in progress.
    pub max_concurrent_runs: u32,
    /// What all guests may hold together, in bytes.
    pub memory_bytes: u64,
}

impl Resources {
    /// Settles them.
    ///
    /// # Errors
    /// If the configuration asks for more than the machine allows, or the CPU request is no quantity.
    pub fn settle(config: &Config, roots: &cgroup::Roots) -> Result<Resources> {
        let request = std::env::var(CPU_REQUEST).ok();
        let request_milli = request.filter(|text| !text.is_empty()).map(|text| {
            amount::thousandths(&text).map_err(|why| anyhow!("{CPU_REQUEST}: {why}; write it like 250m or 1"))
        });
        let plan = LanePlan {
            configured: config.limits.lanes.map(|lanes| lanes as usize),
            request_milli: request_milli.transpose()?,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        };
        let cpu_limit = cgroup::CpuGroups::find(roots).limit();
        let there_is = cgroup::memory_limit(roots).or_else(cgroup::machine_memory).unwrap_or(1 << 30);
        let share = (there_is as f64 * GUESTS_MEMORY_SHARE) as u64;
        Ok(Resources {
            lanes: plan.lanes(cpu_limit),
            plan,
            cpu_limit,
            max_concurrent_runs: guest::settle_max_concurrent_runs(config.limits.max_concurrent_runs)?,
            memory_bytes: config.limits.memory_bytes.unwrap_or(share),
        })
    }
}

/// An exclusive hold on `dataDir`: two hosts on one folder would each run every schedule. Released when it is dropped, or the process dies.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the lock, making the folder where it is missing.
    ///
    /// # Errors
    /// If the folder cannot be written, or another host holds it.
    pub fn take(folder: &Path) -> Result<DataLock> {
        std::fs::create_dir_all(folder).with_context(|| format!("making dataDir {}", folder.display()))?;
        let path = folder.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(DataLock { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => bail!(
                "dataDir {} is held by another windlass: stop that one first, or give this one a folder of its own",
                folder.display()
            ),
            Err(std::fs::TryLockError::Error(error)) => {
                Err(anyhow!(error)).with_context(|| format!("locking {}", path.display()))
            }
        }
    }
}

/// A running host, without ports.
pub struct Host {
    driver: JoinHandle<Result<()>>,
    /// Kept until everything has ended.
    _governor: Arc<Governor>,
    runtime: tokio::runtime::Runtime,
}

/// What a host is started with.
pub struct Setup {
    /// How long runs may go on that are asked to end.
    pub drain: Duration,
    /// `dataDir`
    pub data_dir: Option<PathBuf>,
    /// The watch over configuration and files, which has looked once.
    pub watcher: Watcher,
    /// What there is.
    pub resources: Resources,
    /// The control groups that bound it: their memory bounds what is compiled.
    pub roots: cgroup::Roots,
    /// Whether their CPU limit is followed and kept; else the kernel throttles.
    pub is_governed: bool,
    /// How artifacts are compiled.
    pub compile: compile::Means,
    /// Where health is told; made for as many lanes as `resources.plan` may come to.
    pub board: Arc<Board>,
    /// Where messages come from.
    pub inbox: Arc<Inbox>,
    /// Feeds the jitter of retries.
    pub seed: u64,
    /// How nice threads are.
    pub niceness: Niceness,
}

impl Host {
    /// Starts everything. Plugins are loaded off to the side; the board says how far they are.
    ///
    /// # Errors
    /// If the engine, a thread or a niceness cannot be had. Never for a plugin.
    pub fn start(setup: Setup) -> Result<Host> {
        let Setup {
            drain,
            data_dir,
            mut watcher,
            resources,
            roots,
            is_governed,
            compile: means,
            board,
            inbox,
            seed,
            niceness,
        } = setup;
        raise_descriptor_limit();
        let clock = Clock::start();
        let mut supervisor = Supervisor::new(seed, drain, clock.now());
        let escalations = data_dir.as_deref().map(Escalations::open).transpose()?;
        let store = data_dir.as_deref().and_then(|data_dir| open_store(data_dir, &inbox));
        let choices = data_dir.as_deref().map(|data_dir| Choices::open(data_dir, store.clone())).transpose()?;
        supervisor.remember_choices(choices.iter().flat_map(Choices::before));
        supervisor.remember(escalations.iter().flat_map(Escalations::before));
        for event in watcher.first_events() {
            // Entries and faults are shown and nothing else: no action comes of them.
            supervisor.step(event, clock.now(), &mut Vec::new());
        }
        board.publish(supervisor.snapshot(clock.now()));

        let engine = Engine::new(EngineOptions {
            max_concurrent_runs: resources.max_concurrent_runs,
            metering: Metering::Fuel,
        })?;
        let settings = engine.settings();
        let toolbox = Toolbox::new(engine).context("linking what guests may import")?;
        let memories = guest::memory_slots(resources.max_concurrent_runs);
        let ledger = Ledger::new(resources.memory_bytes, resources.max_concurrent_runs, memories);
        let runtime = lanes::guest_runtime(niceness)?;
        let pacer = governor::Pacer::new();
        let lanes = Lanes::start(
            &lanes::Options {
                lanes: resources.plan.most(),
                runtime: runtime.handle().clone(),
                pacer: pacer.clone(),
                niceness,
            },
            board.clone(),
        )?;
        lanes.count().set(resources.lanes);
        board.gauges().set_lanes(resources.lanes);
        let governor = match is_governed {
            false => Governor::new(),
            true => Governor::start(governor::Options {
                roots: roots.clone(),
                plan: resources.plan,
                lanes: lanes.count(),
                pacer,
                gauges: board.gauges().clone(),
                niceness,
            })?,
        };
        let parts = Parts {
            supervisor,
            lanes,
            toolbox: toolbox.clone(),
            ledger: ledger.clone(),
            board: board.clone(),
            inbox: inbox.clone(),
            clock,
            on_reload: Box::new({
                let handle = watcher.handle();
                move |plugin, recall| match recall {
                    Some(digest) => handle.recall(plugin, digest),
                    None => handle.load(plugin),
                }
            }),
            escalations,
            choices,
            niceness,
        };
        let driver = driver::spawn(parts)?;
        let threads = resources.lanes.min(2);
        let cache = data_dir.as_deref().and_then(|data_dir| open_cache(data_dir, &inbox));
        let compiler = Compiler::new(compile::Options {
            cache,
            room: compile::Room::new(roots, Some(ledger), means.memory_bytes),
            means,
            settings,
            at_once: threads,
            governor: governor.clone(),
            niceness,
        });
        let registry = Registry::new(store, niceness);
        let loader = Loader::start(LoaderOptions {
            threads,
            toolbox,
            compiler,
            registry,
            clock,
            memory_limit_bytes: resources.memory_bytes,
            niceness,
            inbox: inbox.clone(),
        })?;
        watcher.start(loader, inbox, niceness)?;
        board.started_up();
        Ok(Host { driver, _governor: governor, runtime })
    }

    /// Waits until a shutdown has been drained, which [`crate::driver::Message::Shutdown`] begins.
    ///
    /// # Errors
    /// If the driver failed or panicked: a fault of the host.
    pub fn wait(self) -> Result<()> {
        let done = self.driver.join().map_err(|_| anyhow!("the scheduler panicked; the log says where"))?;
        // What still compiles or blocks ends with the process.
        self.runtime.shutdown_background();
        done
    }
}

/// Where artifacts are kept; without it the registries have to answer at each start, and the entry `windlass` says why.
fn open_store(data_dir: &Path, inbox: &Inbox) -> Option<Arc<Store>> {
    match Store::open(data_dir) {
        Ok(store) => Some(Arc::new(store)),
        Err(error) => {
            let problem = format!("{error:#}: no artifact is kept for a restart");
            inbox.host_fault("artifacts", Some(problem));
            None
        }
    }
}

/// The cache of compiled code; without it everything is compiled, and the entry `windlass` says why.
fn open_cache(data_dir: &Path, inbox: &Arc<Inbox>) -> Option<compile::Cache> {
    let inbox = inbox.clone();
    let report = move |problem| inbox.host_fault("compile-cache", problem);
    match compile::Cache::open(data_dir, compile::CACHE_BYTES, Box::new(report.clone())) {
        Ok(cache) => {
            cache.sweep();
            Some(cache)
        }
        Err(why) => {
            report(Some(why));
            None
        }
    }
}

/// An empty snapshot, for a board before there is a supervisor.
pub fn empty_snapshot() -> Snapshot {
    let now = Clock::start().now();
    Supervisor::new(0, Duration::ZERO, now).snapshot(now)
}

/// Keeps the process to small pages, from now on and in its children. The allocator asks for huge ones, of which a host fills little: 27 MiB
/// more in an empty one, and a fifth of the CPU time of an empty run, which goes into zeroing them (decision 3). To be called first.
pub fn prefer_small_pages() {
    // A kernel that does not know of huge pages gives none.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// As many descriptors as the system lets us have: compiled code, connections and files each take some.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "the limit of descriptors stays as it is");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn two_hosts_do_not_hold_one_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataLock::take(&folder.path().join("data")).unwrap();
        let refused = DataLock::take(&folder.path().join("data")).unwrap_err().to_string();
        assert!(refused.contains("held by another windlass"), "{refused}");
        drop(first);
        DataLock::take(&folder.path().join("data")).unwrap();
    }

    #[test]
    fn lanes_and_memory_follow_the_containers_limits() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cpu.max"), "50000 100000\n").unwrap();
        std::fs::write(folder.path().join("memory.max"), "400000000\n").unwrap();
        let roots = cgroup::Roots { groups: folder.path().to_owned(), membership: folder.path().join("none") };
        let settled = Resources::settle(&Config::default(), &roots).unwrap();
        assert_eq!((settled.lanes, settled.memory_bytes), (1, 300_000_000));
        let config = Config::from_yaml("limits: { lanes: 3, memory: 64Mi }").unwrap();
        let settled = Resources::settle(&config, &roots).unwrap();
        assert_eq!((settled.lanes, settled.memory_bytes), (1, 64 << 20), "never more lanes than the limit rounded up");
        assert_eq!(settled.plan.most(), 3);
    }
}
