//! The host put together: from a configuration to lanes, driver and loader that run. What opens ports is not here.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};

use crate::core::config::{Config, Plugin, PluginLayer, resolve};
use crate::core::event::Event;
use crate::core::health::Snapshot;
use crate::core::name::PluginName;
use crate::core::supervisor::Supervisor;
use crate::driver::{self, Clock, Inbox, Parts};
use crate::guest::{self, Engine, EngineOptions, Ledger, Metering, Toolbox};
use crate::health::Board;
use crate::lanes::{self, Lanes, cgroup, priority};
use crate::registry::Registry;
use crate::source::{self, Discovered, Job, Loader, Place, Tools};
use crate::verify::Keys;

/// What part of the memory there is guests may hold together, unless the configuration says: the host and one compiler live in the rest.
const GUESTS_MEMORY_SHARE: f64 = 0.75;

/// What the machine and the configuration allow: settled before anything is opened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resources {
    /// Threads that execute guests.
    pub lanes: usize,
    /// The most runs in progress.
    pub max_concurrent_runs: u32,
    /// What all guests may hold together, in bytes.
    pub memory_bytes: u64,
}

impl Resources {
    /// Settles them.
    ///
    /// # Errors
    /// If the configuration asks for more than the machine allows.
    pub fn settle(config: &Config, roots: &cgroup::Roots) -> Result<Resources> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let by_limit = cgroup::cpu_limit(roots).map(|cpus| (cpus.ceil() as usize).max(1));
        let lanes = match config.limits.lanes {
            Some(lanes) => lanes as usize,
            None => by_limit.map_or(cores, |limit| limit.min(cores)),
        };
        let there_is = cgroup::memory_limit(roots).or_else(cgroup::machine_memory).unwrap_or(1 << 30);
        let share = (there_is as f64 * GUESTS_MEMORY_SHARE) as u64;
        Ok(Resources {
            lanes,
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
    loader: Loader,
    runtime: tokio::runtime::Runtime,
}

/// What a host is started with.
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// Those of `verify.keys` at the top level.
    pub keys: Keys,
    /// Whether files without an entry are run.
    pub discover: bool,
    /// What there is.
    pub resources: Resources,
    /// Where health is told; made for as many lanes as `resources` says.
    pub board: Arc<Board>,
    /// Where messages come from.
    pub inbox: Arc<Inbox>,
    /// Feeds the jitter of retries.
    pub seed: u64,
}

impl Host {
    /// Starts everything. Plugins are loaded off to the side; the board says how far they are.
    ///
    /// # Errors
    /// If the engine, a thread or a niceness cannot be had. Never for a plugin.
    pub fn start(setup: Setup) -> Result<Host> {
        let Setup { config, keys, discover, resources, board, inbox, seed } = setup;
        raise_descriptor_limit();
        let process_niceness = priority::niceness()?;
        let clock = Clock::start();
        let mut supervisor = Supervisor::new(seed, config.drain, clock.now());
        let jobs = plan(&config, keys, discover, &mut supervisor, clock);
        let registry = Arc::new(Registry::start(config.data_dir.as_deref(), process_niceness)?);
        board.publish(supervisor.snapshot(clock.now()));

        let engine = Engine::new(EngineOptions {
            max_concurrent_runs: resources.max_concurrent_runs,
            metering: Metering::Fuel,
        })?;
        let toolbox = Toolbox::new(engine).context("linking what guests may import")?;
        let memories = guest::memory_slots(resources.max_concurrent_runs);
        let ledger = Ledger::new(resources.memory_bytes, resources.max_concurrent_runs, memories);
        let runtime = lanes::guest_runtime(process_niceness)?;
        let options = lanes::Options { lanes: resources.lanes, runtime: runtime.handle().clone(), process_niceness };
        let lanes = Lanes::start(&options, board.clone())?;
        let parts = Parts {
            supervisor,
            lanes,
            toolbox: toolbox.clone(),
            ledger,
            board: board.clone(),
            inbox: inbox.clone(),
            clock,
            process_niceness,
        };
        let driver = driver::spawn(parts)?;
        let threads = resources.lanes.min(2);
        let tools = Tools { toolbox, registry, memory_limit_bytes: resources.memory_bytes, clock, inbox };
        let loader = Loader::start(threads, jobs, tools, process_niceness)?;
        board.started_up();
        Ok(Host { driver, loader, runtime })
    }

    /// Waits until a shutdown has been drained, which [`crate::driver::Message::Shutdown`] begins.
    ///
    /// # Errors
    /// If the driver failed or panicked: a fault of the host.
    pub fn wait(self) -> Result<()> {
        let done = self.driver.join().map_err(|_| anyhow!("the scheduler panicked; the log says where"))?;
        // What still compiles or blocks ends with the process.
        drop(self.loader);
        self.runtime.shutdown_background();
        done
    }
}

/// An empty snapshot, for a board before there is a supervisor.
pub fn empty_snapshot() -> Snapshot {
    let now = Clock::start().now();
    Supervisor::new(0, std::time::Duration::ZERO, now).snapshot(now)
}

/// Adds every plugin to the supervisor, and lists what there is to load.
fn plan(config: &Config, keys: Keys, discover: bool, supervisor: &mut Supervisor, clock: Clock) -> VecDeque<Job> {
    let mut planner = Planner {
        config,
        keys: Arc::new(keys),
        supervisor,
        clock,
        defaults: Arc::new(config.defaults.clone()),
        jobs: VecDeque::new(),
        entries: Vec::new(),
        unsigned: Vec::new(),
    };
    for (name, entry) in &config.plugins {
        planner.add_entry(name, entry);
    }
    let mut unnamed = config.misnamed.clone();
    match source::discover(&config.plugins_dir) {
        Ok(found) => planner.add_found(found, discover, &mut unnamed),
        Err(error) => {
            let folder = config.plugins_dir.display();
            let problem = format!("pluginsDir {folder} cannot be read ({error}): check the mount and its permissions");
            planner.fault("plugins-dir", problem);
        }
    }
    if !unnamed.is_empty() {
        planner.fault("names", unnamed.join("; "));
    }
    if !planner.unsigned.is_empty() {
        let plugins = planner.unsigned.join(", ");
        tracing::warn!(
            plugins,
            "no signature is asked for: whoever may push to the registry decides what runs; see verify.keys"
        );
    }
    planner.jobs
}

struct Planner<'a> {
    config: &'a Config,
    /// For plugins without keys of their own.
    keys: Arc<Keys>,
    supervisor: &'a mut Supervisor,
    clock: Clock,
    defaults: Arc<PluginLayer>,
    jobs: VecDeque<Job>,
    /// Files that entries name.
    entries: Vec<PathBuf>,
    /// Plugins from registries for which no signature is asked.
    unsigned: Vec<String>,
}

impl Planner<'_> {
    /// Shows a problem in the host's own entry.
    fn fault(&mut self, key: &'static str, problem: String) {
        tracing::warn!(problem, "the host has a problem");
        let fault = Event::HostFault { key, problem: Some(problem) };
        // A fault is shown and nothing else: no action comes of it.
        self.supervisor.step(fault, self.clock.now(), &mut Vec::new());
    }

    fn add_entry(&mut self, name: &PluginName, entry: &Result<PluginLayer, String>) {
        let now = self.clock.now();
        let checked = entry.clone().and_then(|entry| {
            // Without its manifest for now: that is read with the file, off to the side.
            let plugin = resolve(name, None, &self.config.defaults, &entry)?;
            let place = source::place_of(&self.config.plugins_dir, &plugin.source)?;
            let keys = self.keys_of(&plugin)?;
            Ok((plugin, place, keys, entry))
        });
        match checked {
            Ok((plugin, place, keys, entry)) => {
                if let Place::File(path) = &place {
                    self.entries.push(path.clone());
                } else if keys.is_empty() {
                    self.unsigned.push(name.to_string());
                }
                let id = self.supervisor.add(Arc::new(plugin), now);
                let defaults = self.defaults.clone();
                self.jobs.push_back(Job { plugin: id, name: name.clone(), place, keys, defaults, entry });
            }
            Err(why) => {
                tracing::warn!(plugin = name.as_str(), reason = why, "plugin refused");
                self.supervisor.add_refused(name.clone(), "", &why, now);
            }
        }
    }

    /// A plugin's own keys, else the host's.
    fn keys_of(&self, plugin: &Plugin) -> Result<Arc<Keys>, String> {
        match plugin.verify_keys.as_slice() {
            [] => Ok(self.keys.clone()),
            own => Keys::read(own, &self.config.folder).map(Arc::new),
        }
    }

    fn add_found(&mut self, found: Vec<Discovered>, discover: bool, unnamed: &mut Vec<String>) {
        for found in found {
            match found {
                Discovered::Unnamed(why) if discover => unnamed.push(why),
                Discovered::Unnamed(_) => {}
                Discovered::Plugin(_, path) if self.entries.contains(&path) => {}
                Discovered::Plugin(name, _) if self.config.plugins.contains_key(&name) => {
                    if discover {
                        unnamed.push(format!(
                            "the file {name}.wasm and an entry in `plugins` have one name: rename one of them"
                        ));
                    }
                }
                Discovered::Plugin(name, path) => {
                    let file = path.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
                    let layer = PluginLayer::of_file(&file);
                    match discover {
                        true => self.add_entry(&name, &Ok(layer)),
                        false => {
                            self.supervisor.add_ignored(name, &format!("file:{file}"), self.clock.now());
                        }
                    }
                }
            }
        }
    }
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
        assert_eq!((settled.lanes, settled.memory_bytes), (3, 64 << 20));
    }
}
