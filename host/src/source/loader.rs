//! From files to versions that can run: reads, verifies, compiles and links off to the side, a few at a time, at low priority.
//!
//! Plugins with the same bytes share the compiled code. Whatever is wrong with a file is told to the driver as a refusal.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use crate::artifact::{self, Anatomy, Artifact};
use crate::compile::{Compiler, Refused};
use crate::core::config::{Plugin, PluginLayer, resolve};
use crate::core::event::{Event, LoadedVersion};
use crate::core::name::{Digest, PluginId, PluginName};
use crate::driver::{Inbox, Message};
use crate::guest::{Prepared, Toolbox};
use crate::lanes::priority::{self, Role};
use crate::wedge::{self, Point};

/// One plugin to load.
#[derive(Debug, Clone)]
pub struct Job {
    /// Whose.
    pub plugin: PluginId,
    /// Its name.
    pub name: PluginName,
    /// The file.
    pub path: PathBuf,
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
    jobs: Mutex<VecDeque<Job>>,
    shelf: Shelf,
    toolbox: Arc<Toolbox>,
    compiler: Compiler,
    memory_limit_bytes: u64,
    inbox: Arc<Inbox>,
}

impl Loader {
    /// Starts `threads` threads that load `jobs` in their order and tell `inbox`. `memory_limit_bytes` is what all guests may
    /// hold together: a guest that needs more from its start can never run.
    ///
    /// # Errors
    /// If a thread cannot be spawned.
    pub fn start(
        threads: usize,
        jobs: VecDeque<Job>,
        toolbox: Arc<Toolbox>,
        compiler: Compiler,
        memory_limit_bytes: u64,
        process_niceness: i32,
        inbox: Arc<Inbox>,
    ) -> Result<Loader> {
        let shared = Arc::new(Shared {
            jobs: Mutex::new(jobs),
            shelf: Mutex::new(HashMap::new()),
            toolbox,
            compiler,
            memory_limit_bytes,
            inbox,
        });
        let spawn = |number: usize| {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("loader-{number}"))
                .spawn(move || {
                    // Compile children are started from here, and inherit this.
                    if let Err(error) = priority::take(Role::Guest, process_niceness) {
                        tracing::warn!(error = format!("{error:#}"), "compiling at normal priority");
                    }
                    shared.work();
                })
                .context("starting a loader's thread")
        };
        Ok(Loader { threads: (0..threads.max(1)).map(spawn).collect::<Result<_>>()? })
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
    fn work(&self) {
        loop {
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(job) = job else { return };
            let plugin = job.plugin;
            wedge::pass(Point::Loader);
            self.inbox.send(Message::Event(Event::Loading { plugin }));
            // A fault of the compiler is held to the one plugin that met it.
            let loaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.load(&job)));
            let message = match loaded {
                Ok(Ok((config, version, prepared))) => {
                    Message::Prepared { plugin, config: Arc::new(config), version: Arc::new(version), prepared }
                }
                Ok(Err(reason)) => Message::Event(Event::Refused { plugin, reason }),
                Err(_) => {
                    let reason = format!("{}: the compiler failed on it; please report this", job.path.display());
                    Message::Event(Event::Refused { plugin, reason })
                }
            };
            self.inbox.send(message);
        }
    }

    fn load(&self, job: &Job) -> Result<(Plugin, LoadedVersion, Arc<Prepared>), String> {
        let at = |why: String| format!("{}: {why}", job.path.display());
        let (artifact, anatomy) = load(&job.path)?;
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

    fn prepared(&self, artifact: &Artifact, anatomy: &Anatomy) -> Result<Arc<Prepared>, String> {
        let place =
            self.shelf.lock().unwrap_or_else(PoisonError::into_inner).entry(artifact.digest).or_default().clone();
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        place.get_or_insert_with(|| self.make(artifact, anatomy).map(Arc::new)).clone()
    }

    fn make(&self, artifact: &Artifact, anatomy: &Anatomy) -> Result<Prepared, String> {
        let said = |refused: Refused| refused.to_string();
        let compiled = self.compiler.code(artifact, anatomy.kind).map_err(said)?;
        match self.toolbox.load(&compiled) {
            // What the cache held is not to blame an artifact with.
            Err(_) if compiled.is_from_cache() => {
                self.toolbox.load(&self.compiler.code_anew(artifact, anatomy.kind).map_err(said)?)
            }
            loaded => loaded,
        }
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
