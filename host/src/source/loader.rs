//! From files to versions that can run: reads, verifies, compiles and links off to the side, a few at a time, at low priority.
//!
//! Plugins with the same bytes share the compiled code. Whatever is wrong with a file is told to the driver as a refusal.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use crate::artifact::{self, Anatomy, Artifact};
use crate::core::config::{Plugin, PluginLayer, resolve};
use crate::core::event::{Event, LoadedVersion};
use crate::core::name::{Digest, PluginId, PluginName};
use crate::driver::{Clock, Inbox, Message};
use crate::guest::{Prepared, Toolbox};
use crate::lanes::priority::{self, Role};
use crate::registry::{Registry, Troubles};
use crate::source::Place;
use crate::verify::Keys;

/// How many plugins are fetched from registries at once. They wait for a network, and files do not wait for them.
const FETCHERS: usize = 4;

/// One plugin to load.
#[derive(Debug, Clone)]
pub struct Job {
    /// Whose.
    pub plugin: PluginId,
    /// Its name.
    pub name: PluginName,
    /// Where its artifact is.
    pub place: Place,
    /// Whose signature it needs.
    pub keys: Arc<Keys>,
    /// `defaults`
    pub defaults: Arc<PluginLayer>,
    /// Its entry.
    pub entry: PluginLayer,
}

/// Compiled code by artifact: each is compiled once, and whoever comes meanwhile waits for it.
type Shelf = Mutex<HashMap<Digest, Arc<Mutex<Option<Result<Arc<Prepared>, String>>>>>>;

/// Loads jobs on threads of its own until there are none left.
pub struct Loader {
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    files: Mutex<VecDeque<Job>>,
    references: Mutex<VecDeque<Job>>,
    registry: Arc<Registry>,
    troubles: Troubles,
    clock: Clock,
    shelf: Shelf,
    toolbox: Arc<Toolbox>,
    memory_limit_bytes: u64,
    inbox: Arc<Inbox>,
}

/// What a loader works with.
pub struct Tools {
    /// Compiles and links.
    pub toolbox: Arc<Toolbox>,
    /// Fetches.
    pub registry: Arc<Registry>,
    /// What all guests may hold together, in bytes: a guest that needs more from its start can never run.
    pub memory_limit_bytes: u64,
    /// Says since when a registry is in trouble.
    pub clock: Clock,
    /// Who is told.
    pub inbox: Arc<Inbox>,
}

impl Loader {
    /// Starts `threads` threads that load `jobs` from files in their order, and a few that load those from registries.
    ///
    /// # Errors
    /// If a thread cannot be spawned.
    pub fn start(threads: usize, jobs: VecDeque<Job>, tools: Tools, process_niceness: i32) -> Result<Loader> {
        let Tools { toolbox, registry, memory_limit_bytes, clock, inbox } = tools;
        let (references, files): (VecDeque<Job>, VecDeque<Job>) =
            jobs.into_iter().partition(|job| matches!(job.place, Place::Registry(_)));
        let fetchers = references.len().min(FETCHERS);
        let shared = Arc::new(Shared {
            files: Mutex::new(files),
            references: Mutex::new(references),
            registry,
            troubles: Troubles::default(),
            clock,
            shelf: Mutex::new(HashMap::new()),
            toolbox,
            memory_limit_bytes,
            inbox,
        });
        let spawn = |name: String, jobs: fn(&Shared) -> &Mutex<VecDeque<Job>>| {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(name)
                // Cranelift recurses deeply into deeply nested code.
                .stack_size(16 << 20)
                .spawn(move || {
                    // The compiler's threads are spawned from here, and inherit this.
                    if let Err(error) = priority::take(Role::Guest, process_niceness) {
                        tracing::warn!(error = format!("{error:#}"), "compiling at normal priority");
                    }
                    shared.work(jobs(&shared));
                })
                .context("starting a loader's thread")
        };
        let loaders = (0..threads.max(1)).map(|number| spawn(format!("loader-{number}"), |shared| &shared.files));
        let fetchers = (0..fetchers).map(|number| spawn(format!("fetcher-{number}"), |shared| &shared.references));
        Ok(Loader { threads: loaders.chain(fetchers).collect::<Result<_>>()? })
    }

    /// Waits until everything is loaded or refused.
    pub fn join(self) {
        for thread in self.threads {
            // A loader that panicked has said so in the log; the plugin it was at stays `Loading`.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self, jobs: &Mutex<VecDeque<Job>>) {
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(job) = job else { return };
            let plugin = job.plugin;
            self.inbox.send(Message::Event(Event::Loading { plugin }));
            // A fault of the compiler is held to the one plugin that met it.
            let loaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.load(&job)));
            let message = match loaded {
                Ok(Ok((config, version, prepared))) => {
                    Message::Prepared { plugin, config: Arc::new(config), version: Arc::new(version), prepared }
                }
                Ok(Err(reason)) => Message::Event(Event::Refused { plugin, reason }),
                Err(_) => {
                    let reason = format!("{}: the compiler failed on it; please report this", job.place);
                    Message::Event(Event::Refused { plugin, reason })
                }
            };
            self.inbox.send(message);
        }
    }

    fn load(&self, job: &Job) -> Result<(Plugin, LoadedVersion, Arc<Prepared>), String> {
        let at = |why: String| format!("{}: {why}", job.place);
        let artifact = self.artifact(job)?;
        let anatomy = artifact.anatomy().map_err(at)?;
        let config = resolve(&job.name, artifact::layer(&anatomy), &job.defaults, &job.entry).map_err(at)?;
        let prepared = self.prepared(&artifact, &anatomy).map_err(at)?;
        check_memory(&prepared, &config, self.memory_limit_bytes).map_err(at)?;
        let version = LoadedVersion {
            digest: artifact.digest,
            author_version: anatomy.manifest.and_then(|manifest| manifest.version),
            has_check: prepared.has_check(),
        };
        Ok((config, version, prepared))
    }

    /// Gets the bytes, signed where that is asked for. Nothing has looked into them yet.
    fn artifact(&self, job: &Job) -> Result<Artifact, String> {
        match &job.place {
            Place::File(path) => {
                let at = |why: String| format!("{}: {why}", job.place);
                let artifact = Artifact::read(path).map_err(at)?;
                job.keys.check_file(path, &artifact.bytes).map_err(at)?;
                Ok(artifact)
            }
            Place::Registry(reference) => {
                let fetched = self.registry.load(reference, &job.keys);
                let problem = match &fetched {
                    Ok(fetched) => fetched.problem.clone(),
                    Err(fault) => fault.is_outage().then(|| fault.to_string()),
                };
                if let Some(problem) = &problem {
                    tracing::warn!(plugin = job.name.as_str(), problem, "a registry is in trouble");
                }
                let now = self.clock.now().wall;
                self.troubles.note(reference, problem, now, |problem| {
                    self.inbox.send(Message::Event(Event::HostFault { key: "registry", problem }));
                });
                let fetched = fetched.map_err(|fault| fault.to_string())?;
                tracing::info!(
                    plugin = job.name.as_str(),
                    manifest = %fetched.manifest,
                    digest = %fetched.artifact.digest,
                    "fetched from a registry"
                );
                Ok(fetched.artifact)
            }
        }
    }

    fn prepared(&self, artifact: &Artifact, anatomy: &Anatomy) -> Result<Arc<Prepared>, String> {
        let place =
            self.shelf.lock().unwrap_or_else(PoisonError::into_inner).entry(artifact.digest).or_default().clone();
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        place.get_or_insert_with(|| self.toolbox.prepare(anatomy.kind, &artifact.bytes).map(Arc::new)).clone()
    }
}

/// Reads a file and finds out what it is.
///
/// # Errors
/// One line that names the file, the cause and the remedy.
pub fn load(path: &Path) -> Result<(Artifact, Anatomy), String> {
    let at = |why: String| format!("{}: {why}", path.display());
    let artifact = Artifact::read(path).map_err(at)?;
    let anatomy = artifact.anatomy().map_err(at)?;
    Ok((artifact, anatomy))
}

/// A guest that cannot begin within its limits is refused when it is loaded, not at each run.
fn check_memory(prepared: &Prepared, config: &Plugin, host_limit_bytes: u64) -> Result<(), String> {
    let needs = prepared.min_memory_bytes;
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    if needs > config.limits.memory_bytes {
        return Err(format!(
            "it needs {} MiB of memory from its start, and limits.memory allows {} MiB: raise limits.memory to at least {}Mi",
            mebibytes(needs),
            config.limits.memory_bytes >> 20,
            mebibytes(needs)
        ));
    }
    if needs > host_limit_bytes {
        return Err(format!(
            "it needs {} MiB of memory from its start, and the host's limits.memory allows {} MiB for all guests: raise it, or \
             the container's memory limit",
            mebibytes(needs),
            host_limit_bytes >> 20
        ));
    }
    Ok(())
}
