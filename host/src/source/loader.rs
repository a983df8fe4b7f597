//! From files and registries to versions that can run: reads, verifies, compiles and links off to the side, a few at a time, at low priority.
//!
//! Plugins with the same bytes share the compiled code. Whatever is wrong with one is told to the driver as a refusal.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

use anyhow::{Context, Result};

use super::Place;
use super::fetch::Fetcher;
use crate::artifact::{self, Anatomy, Artifact};
use crate::compile::{Compiler, Refused};
use crate::core::config::{Plugin, PluginLayer, resolve};
use crate::core::event::{Event, LoadedVersion};
use crate::core::health::Stage;
use crate::core::name::{Digest, PluginId, PluginName};
use crate::driver::{Clock, Inbox, Message, ReadyVersion};
use crate::guest::{Prepared, Toolbox, Unloadable};
use crate::lanes::priority::{Niceness, Role};
use crate::registry::Registry;
use crate::verify::Keys;
use crate::wedge::{self, Point};

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
    pub entry: Arc<PluginLayer>,
    /// How soon it is needed.
    pub need: Need,
    /// Only asks its registry whether there is something else than what was loaded last.
    pub again: bool,
    /// Loads what was kept of this artifact, whatever the place holds.
    pub recall: Option<Digest>,
}

/// How soon a job is needed: the order of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Nothing of the plugin runs yet.
    First,
    /// An older version goes on meanwhile.
    Newer,
}

/// Compiled code by artifact, for as long as somebody holds it: each is compiled once, and whoever comes meanwhile waits for it.
type Shelf = Mutex<HashMap<Digest, Arc<Mutex<Weak<Prepared>>>>>;

/// Loads jobs on threads of its own, for as long as the process runs.
#[derive(Clone)]
pub struct Loader {
    shared: Arc<Shared>,
}

/// What a loader is started with.
pub struct LoaderOptions {
    /// How many jobs with files at once.
    pub threads: usize,
    /// What guests are linked with.
    pub toolbox: Arc<Toolbox>,
    /// Compiles, off to the side.
    pub compiler: Compiler,
    /// Fetches.
    pub registry: Registry,
    /// Says since when a registry is in trouble.
    pub clock: Clock,
    /// What all guests may hold together: one that needs more from its start can never run.
    pub memory_limit_bytes: u64,
    /// How nice threads are.
    pub niceness: Niceness,
    /// Who is told.
    pub inbox: Arc<Inbox>,
}

struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    shelf: Shelf,
    toolbox: Arc<Toolbox>,
    compiler: Compiler,
    fetcher: Fetcher,
    memory_limit_bytes: u64,
    niceness: Niceness,
    /// How many fetchers run: none until there is something to fetch.
    fetchers: Mutex<usize>,
    /// The last copy of a file could not be kept.
    keeping_fails: AtomicBool,
    inbox: Arc<Inbox>,
}

/// At most one job waits for each plugin, and at most one is in work: a newer one takes the waiting one's place.
#[derive(Default)]
struct Queue {
    waiting: BTreeMap<(Need, u64), Job>,
    places: HashMap<PluginId, (Need, u64)>,
    in_work: HashSet<PluginId>,
    next: u64,
}

/// What a thread loads.
#[derive(Debug, Clone, Copy)]
enum What {
    Files,
    References,
}

impl What {
    fn is(self, job: &Job) -> bool {
        // What was kept is in a file, wherever it came from.
        let is_file = job.recall.is_some() || matches!(job.place, Place::File(_));
        match self {
            What::Files => is_file,
            What::References => !is_file,
        }
    }
}

impl Queue {
    fn push(&mut self, mut job: Job) {
        if job.recall.is_some() && self.places.contains_key(&job.plugin) {
            // What the place holds comes first: whoever recalls asks again if that changes nothing.
            return;
        }
        // It keeps its place in the order, unless it is needed sooner now.
        let place = match self.places.remove(&job.plugin) {
            Some(place) => {
                // One that was to load whatever there is still has to.
                job.again &= self.waiting.remove(&place).is_none_or(|before| before.again || before.recall.is_some());
                (place.0.min(job.need), place.1)
            }
            None => {
                self.next += 1;
                (job.need, self.next)
            }
        };
        self.places.insert(job.plugin, place);
        self.waiting.insert(place, job);
    }

    /// The job that is needed most, of those whose plugin is not in work: two results of one plugin never cross.
    fn pop(&mut self, what: What) -> Option<Job> {
        let is_next = |job: &Job| what.is(job) && !self.in_work.contains(&job.plugin);
        let place = self.waiting.iter().find(|(_, job)| is_next(job)).map(|(place, _)| *place)?;
        let job = self.waiting.remove(&place)?;
        self.places.remove(&job.plugin);
        self.in_work.insert(job.plugin);
        Some(job)
    }
}

impl Loader {
    /// Starts the threads. They end with the process.
    ///
    /// # Errors
    /// If a thread cannot be spawned.
    pub fn start(options: LoaderOptions) -> Result<Loader> {
        let LoaderOptions { threads, toolbox, compiler, registry, clock, memory_limit_bytes, niceness, inbox } =
            options;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            shelf: Mutex::default(),
            toolbox,
            compiler,
            fetcher: Fetcher::new(registry, clock, inbox.clone()),
            memory_limit_bytes,
            niceness,
            fetchers: Mutex::new(0),
            keeping_fails: AtomicBool::new(false),
            inbox,
        });
        for number in 0..threads.max(1) {
            shared.spawn(format!("loader-{number}"), What::Files).context("starting a loader's thread")?;
        }
        Ok(Loader { shared })
    }

    /// Queues a job. One of the same plugin that still waits is dropped for it.
    pub fn load(&self, job: Job) {
        if !job.again && job.recall.is_none() {
            self.shared.inbox.send(Message::Event(Event::Found { plugin: job.plugin }));
        }
        if What::References.is(&job)
            && let Err(error) = self.shared.start_fetchers()
        {
            let reason = format!("{}: no thread to fetch it with ({error}): is there a limit of processes?", job.place);
            self.shared.inbox.send(Message::Event(Event::Refused { plugin: job.plugin, digest: None, reason }));
            return;
        }
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).push(job);
        // One of the threads is for it, and it is not told which.
        self.shared.arrived.notify_all();
    }

    /// Drops a job that waits: its plugin is gone.
    pub fn forget(&self, plugin: PluginId) {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = queue.places.remove(&plugin) {
            queue.waiting.remove(&place);
        }
        drop(queue);
        self.shared.fetcher.forget(plugin);
    }
}

/// What a job comes to: what the driver is to know of the version with its code, and the bytes.
type Loaded = (ReadyVersion, Artifact);

impl Shared {
    fn spawn(self: &Arc<Shared>, name: String, what: What) -> std::io::Result<()> {
        let shared = self.clone();
        let work = move || {
            // Compile children are started from here, and inherit this.
            if let Err(error) = shared.niceness.take(Role::Guest) {
                tracing::warn!(error = format!("{error:#}"), "compiling at normal priority");
            }
            shared.work(what);
        };
        std::thread::Builder::new().name(name).spawn(work).map(drop)
    }

    /// Starts those fetchers that are not there yet. One is enough to go on with.
    fn start_fetchers(self: &Arc<Shared>) -> std::io::Result<()> {
        let mut running = self.fetchers.lock().unwrap_or_else(PoisonError::into_inner);
        while *running < FETCHERS {
            match self.spawn(format!("fetcher-{running}"), What::References) {
                Ok(()) => *running += 1,
                Err(error) if *running == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn work(&self, what: What) {
        loop {
            let job = self.next(what);
            let plugin = job.plugin;
            wedge::pass(Point::Loader);
            if !job.again && job.recall.is_none() {
                self.inbox.send(Message::Event(Event::Loading { plugin }));
            }
            // A fault of the compiler is held to the one plugin that met it.
            let loaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.load(&job)));
            let no_good = |digest, reason| match job.recall {
                Some(digest) => Message::Event(Event::NotRecalled { plugin, digest, reason }),
                None => Message::Event(Event::Refused { plugin, digest, reason }),
            };
            match loaded {
                Ok(Ok(None)) => {}
                Ok(Ok(Some((ready, artifact)))) => {
                    self.inbox.send(Message::Prepared { plugin, ready });
                    self.keep(&job, &artifact);
                }
                Ok(Err((digest, reason))) => self.inbox.send(no_good(digest, reason)),
                Err(_) => {
                    let reason = format!("{}: the compiler failed on it; please report this", job.place);
                    self.inbox.send(no_good(None, reason));
                }
            }
            self.queue.lock().unwrap_or_else(PoisonError::into_inner).in_work.remove(&plugin);
            // A job of the same plugin may have waited for this one.
            self.arrived.notify_all();
        }
    }

    fn next(&self, what: What) -> Job {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = queue.pop(what) {
                return job;
            }
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// None if there is nothing newer.
    fn load(&self, job: &Job) -> Result<Option<Loaded>, (Option<Digest>, String)> {
        let plugin = job.plugin;
        let at = |why: String| format!("{}: {why}", job.place);
        let Some(artifact) = self.artifact(job).map_err(|why| (None, why))? else { return Ok(None) };
        if job.again {
            self.inbox.send(Message::Event(Event::Found { plugin }));
            self.inbox.send(Message::Event(Event::Loading { plugin }));
        }
        let digest = artifact.digest;
        let staged = |stage| self.inbox.send(Message::Event(Event::Staged { plugin, digest, stage }));
        let refused = |why: String| (Some(digest), at(why));
        staged(Stage::Seen);
        let anatomy = artifact.anatomy().map_err(refused)?;
        let config = resolve(&job.name, artifact::layer(&anatomy), &job.defaults, &job.entry).map_err(refused)?;
        staged(Stage::Verified);
        let prepared = self.prepared(&artifact, &anatomy).map_err(refused)?;
        check_memory(&prepared, &config, self.memory_limit_bytes).map_err(refused)?;
        staged(Stage::Compiled);
        let (manifest, author_version, wants) = match anatomy.manifest {
            Some(manifest) => (Some(manifest.plugin), manifest.version, manifest.wants),
            None => (None, None, Vec::new()),
        };
        let has_check = prepared.has_check();
        let version = Arc::new(LoadedVersion { digest, author_version, has_check, wants: wants.into() });
        let recalled = job.recall.is_some();
        Ok(Some((ReadyVersion { manifest, version, prepared, recalled }, artifact)))
    }

    /// Gets the bytes, signed where that is asked for. Nothing has looked into them yet.
    fn artifact(&self, job: &Job) -> Result<Option<Artifact>, String> {
        if let Some(digest) = job.recall {
            return self.fetcher.registry().recall(digest, &job.keys).map(Some);
        }
        match &job.place {
            Place::Registry(reference) => self.fetcher.artifact(job, reference),
            Place::File(path) => {
                let at = |why: String| format!("{}: {why}", job.place);
                let artifact = Artifact::read(path).map_err(at)?;
                job.keys.check_file(path, &artifact.bytes).map_err(at)?;
                Ok(Some(artifact))
            }
        }
    }

    /// Keeps a copy of what a file held. What a registry held is kept already.
    fn keep(&self, job: &Job, artifact: &Artifact) {
        let (Place::File(path), None) = (&job.place, job.recall) else { return };
        let kept = self.fetcher.registry().keep_file(path, &job.keys, artifact);
        let problem =
            kept.err().map(|error| format!("{error:#}: plugins run, and a rollback does not outlive a restart"));
        if self.keeping_fails.swap(problem.is_some(), Ordering::Relaxed) != problem.is_some() {
            self.inbox.host_fault("kept-versions", problem);
        }
    }

    fn prepared(&self, artifact: &Artifact, anatomy: &Anatomy) -> Result<Arc<Prepared>, String> {
        let place = {
            let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
            // What nobody holds any more has been freed; its place goes too, but for one that is being filled.
            let is_of_use = |place: &Arc<Mutex<Weak<Prepared>>>| {
                Arc::strong_count(place) > 1 || place.lock().unwrap_or_else(PoisonError::into_inner).strong_count() > 0
            };
            if shelf.len() >= shelf.capacity() {
                shelf.retain(|_, place| is_of_use(place));
            }
            shelf.entry(artifact.digest).or_default().clone()
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = place.upgrade() {
            return Ok(prepared);
        }
        let prepared = Arc::new(self.make(artifact, anatomy)?);
        *place = Arc::downgrade(&prepared);
        Ok(prepared)
    }

    fn make(&self, artifact: &Artifact, anatomy: &Anatomy) -> Result<Prepared, String> {
        let said = |refused: Refused| refused.to_string();
        let compiled = self.compiler.code(artifact, anatomy.kind).map_err(said)?;
        match self.toolbox.load(&compiled) {
            // What the cache held is not to blame an artifact with. What it imports is, and is the same after another compile.
            Err(Unloadable::Code(why)) if compiled.is_from_cache() => {
                tracing::warn!(digest = %artifact.digest, why, "code from the cache is not taken; it is made again");
                self.toolbox.load(&self.compiler.code_anew(artifact, anatomy.kind).map_err(said)?)
            }
            loaded => loaded,
        }
        .map_err(|unloadable| unloadable.to_string())
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
pub fn check_memory(prepared: &Prepared, config: &Plugin, host_limit_bytes: u64) -> Result<(), String> {
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
