//! The watch over configuration and plugins' files: one thread that looks, in rounds and when an event says so, and tells driver and
//! loader what changed. It reads no artifact and decides nothing about versions.
//!
//! A file counts as changed when it has lain still: events say when one is closed, and where there are none two rounds have to agree.

mod events;
mod files;
mod look;
mod settle;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::configuration::{Configuration, Origin};
use super::loader::{Job, Loader, Need};
use super::plan::{Plan, Want, plan};
use super::{Place, name_all};
use crate::core::event::Event;
use crate::core::name::{PluginId, PluginName};
use crate::driver::{Inbox, Message};
use crate::lanes::priority::{Niceness, Role};
use events::{Bell, Events};
use files::Files;
use look::Look;
use settle::Settle;

/// How long something must lie still where events tell of every change.
const QUIET: Duration = Duration::from_millis(100);

/// How long a file may stay open for writing without a change before it is taken all the same.
const QUIET_OPEN: Duration = Duration::from_secs(30);

/// How long a name may be missing before the file is taken to be gone: some tools remove before they write.
const QUIET_GONE: Duration = Duration::from_millis(500);

/// Events that come together are looked at together.
const GATHER: Duration = Duration::from_millis(20);

/// How the watch is kept.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How often everything is looked at, events or not.
    pub every: Duration,
    /// Whether events are used at all.
    pub events: bool,
}

/// What may be asked of the watch.
#[derive(Debug, Clone, Copy)]
enum Command {
    /// Read the configuration again, changed or not.
    Reload,
    /// Load a plugin's artifact again, changed or not.
    Load(PluginId),
}

/// Asks things of the watch. Never blocks for longer than a push takes.
#[derive(Clone)]
pub struct Handle {
    commands: Arc<Mutex<Vec<Command>>>,
    bell: Arc<Bell>,
}

impl Handle {
    /// Reads the configuration again.
    pub fn reload(&self) {
        self.command(Command::Reload);
    }

    /// Loads a plugin's artifact again.
    pub fn load(&self, plugin: PluginId) {
        self.command(Command::Load(plugin));
    }

    fn command(&self, command: Command) {
        /// More than these wait for a watch that hangs in a file system: the rest is dropped.
        const WAITING: usize = 1_000;
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        if commands.len() < WAITING {
            commands.push(command);
        }
        drop(commands);
        self.bell.ring();
    }
}

struct Known {
    id: PluginId,
    want: Want,
    /// When its registry is asked again.
    refresh_at: Option<Duration>,
}

/// Something that follows from a look.
enum Step {
    Tell(Message),
    Load(Job),
    Forget(PluginId),
}

/// See the module.
pub struct Watcher {
    settings: Settings,
    origin: Origin,
    /// What the host was started with: what cannot change without a restart is compared with it.
    started: Configuration,
    configuration: Configuration,
    known: BTreeMap<PluginName, Known>,
    /// Names keep their identity for as long as the host runs.
    ids: HashMap<PluginName, PluginId>,
    files: Files,
    config_files: Settle<Vec<(PathBuf, Look)>>,
    faults: BTreeMap<&'static str, String>,
    /// Whom the log already says that no signature is asked for.
    unsigned: Vec<String>,
    events: Events,
    handle: Handle,
    epoch: Instant,
    /// Until when changes are taken to have been told by events.
    told_until: Duration,
    steps: Vec<Step>,
}

impl Watcher {
    /// Looks for the first time. What is there now is taken as it is.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub fn new(origin: Origin, configuration: Configuration, settings: Settings) -> Result<Watcher> {
        let events = Events::new(settings.events).context("starting the watch over files")?;
        let handle = Handle { commands: Arc::default(), bell: events.bell() };
        let mut watcher = Watcher {
            settings,
            config_files: Settle::new(look_at(&origin)),
            origin,
            started: configuration.clone(),
            files: Files::new(&configuration.config.plugins_dir),
            configuration,
            known: BTreeMap::new(),
            ids: HashMap::new(),
            faults: BTreeMap::new(),
            unsigned: Vec::new(),
            events,
            handle,
            epoch: Instant::now(),
            told_until: Duration::ZERO,
            steps: Vec::new(),
        };
        watcher.plan(&BTreeSet::new());
        watcher.configured();
        watcher.watch_folders();
        Ok(watcher)
    }

    /// Asks things of it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Takes out the events of the first look, for a supervisor that is not driven yet.
    pub fn first_events(&mut self) -> Vec<Event> {
        let (mut events, mut rest) = (Vec::new(), Vec::new());
        for step in std::mem::take(&mut self.steps) {
            match step {
                Step::Tell(Message::Event(event)) => events.push(event),
                Step::Tell(_) | Step::Load(_) | Step::Forget(_) => rest.push(step),
            }
        }
        self.steps = rest;
        events
    }

    /// Watches on a thread of its own, until the process ends.
    ///
    /// # Errors
    /// If the thread cannot be spawned.
    pub fn start(mut self, loader: Loader, inbox: Arc<Inbox>, niceness: Niceness) -> Result<()> {
        std::thread::Builder::new()
            .name("watcher".to_owned())
            .spawn(move || {
                if let Err(error) = niceness.verify(Role::Host) {
                    tracing::warn!(error = format!("{error:#}"), "watching at another priority");
                }
                loop {
                    self.perform(&loader, &inbox);
                    self.turn();
                }
            })
            .context("starting the watcher's thread")?;
        Ok(())
    }

    fn perform(&mut self, loader: &Loader, inbox: &Inbox) {
        for step in self.steps.drain(..) {
            match step {
                Step::Tell(message) => inbox.send(message),
                Step::Load(job) => loader.load(job),
                Step::Forget(plugin) => loader.forget(plugin),
            }
        }
    }

    /// Waits until there is a reason to look, and looks.
    fn turn(&mut self) {
        let moving = self.config_files.is_moving() || self.files.are_moving();
        let patience = if moving { QUIET.min(self.settings.every) } else { self.settings.every };
        let refresh_at = self.known.values().filter_map(|known| known.refresh_at).min().unwrap_or(Duration::MAX);
        let patience = patience.min(refresh_at.saturating_sub(self.epoch.elapsed()));
        if self.events.wait(patience) {
            self.told_until = self.epoch.elapsed() + Duration::from_secs(1);
            std::thread::sleep(GATHER);
            self.events.wait(Duration::ZERO);
        }
        let commands = std::mem::take(&mut *self.handle.commands.lock().unwrap_or_else(PoisonError::into_inner));
        let reload = commands.iter().any(|command| matches!(command, Command::Reload));
        self.look(reload);
        self.refresh();
        for command in commands {
            if let Command::Load(plugin) = command {
                self.load_again(plugin);
            }
        }
    }

    fn look(&mut self, reload: bool) {
        let now = self.epoch.elapsed();
        let quiet = if now < self.told_until { QUIET } else { self.settings.every };
        let settled = self.config_files.look(now, look_at(&self.origin), quiet);
        let changed_config = (settled || reload) && self.read_configuration();
        let entries = self.known.values().filter_map(|known| match &known.want {
            Want::File { path, named: true, .. } => Some(path.clone()),
            Want::File { .. } | Want::Registry { .. } | Want::Refused(_) | Want::Ignored { .. } => None,
        });
        let signatures = self.known.values().filter_map(|known| known.want.signature());
        let entries: BTreeSet<PathBuf> = entries.chain(signatures).collect();
        let events = &self.events;
        let quiet = |path: &std::path::Path, look: &Look| match look {
            _ if events.is_being_written(path) => QUIET_OPEN,
            Look::Absent => quiet.max(QUIET_GONE),
            Look::Present { .. } | Look::Unknown(_) => quiet,
        };
        let changed = self.files.look(now, &entries, quiet);
        if changed_config || !changed.is_empty() || self.files.problem() != self.faults.get("plugins-dir").cloned() {
            self.plan(&changed);
        }
        if changed_config {
            self.configured();
        }
        self.watch_folders();
    }

    /// Reads the configuration again. A bad one changes nothing, and is shown.
    fn read_configuration(&mut self) -> bool {
        match self.origin.read() {
            Ok(configuration) => {
                self.fault("config", None);
                self.configuration = configuration;
                tracing::info!(hash = self.configuration.hash, "the configuration was read again");
                true
            }
            Err(error) => {
                self.fault("config", Some(format!("{error:#}; the configuration from before goes on")));
                false
            }
        }
    }

    /// Says what became of the configuration, after everything that follows from it.
    fn configured(&mut self) {
        let keys = self.started.config.needs_restart(&self.configuration.config);
        let restart = match keys.is_empty() {
            true => None,
            false => Some(format!("the configuration changed in {}: restart the host for that", keys.join(", "))),
        };
        self.fault("restart", restart);
        let problems = &self.configuration.problems;
        let problems = (!problems.is_empty()).then(|| problems.join("; "));
        self.fault("config-dir", problems);
        let hash = self.configuration.hash.clone();
        self.steps.push(Step::Tell(Message::Event(Event::Configured { hash })));
    }

    /// Shows a problem in the host's own entry, or takes it back.
    fn fault(&mut self, key: &'static str, problem: Option<String>) {
        if self.faults.get(key) == problem.as_ref() {
            return;
        }
        match &problem {
            Some(problem) => {
                tracing::warn!(problem, "the host has a problem");
                self.faults.insert(key, problem.clone());
            }
            None => {
                self.faults.remove(key);
            }
        }
        self.steps.push(Step::Tell(Message::Event(Event::HostFault { key, problem })));
    }

    /// Compares what is to be with what is known, and brings about what differs. `changed`: files that lie still as others than before.
    fn plan(&mut self, changed: &BTreeSet<PathBuf>) {
        let Plan { wants, misnamed, unsigned } = plan(&self.configuration, name_all(self.files.found()));
        self.fault("plugins-dir", self.files.problem());
        self.fault("names", (!misnamed.is_empty()).then(|| misnamed.join("; ")));
        if unsigned != self.unsigned && !unsigned.is_empty() {
            let why = "no signature is asked for: whoever may push to the registry decides what runs; see verify.keys";
            tracing::warn!(plugins = unsigned.join(", "), "{why}");
        }
        self.unsigned = unsigned;
        let gone: Vec<PluginName> = self.known.keys().filter(|name| !wants.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(Known { id, .. }) = self.known.remove(&name) {
                tracing::info!(plugin = name.as_str(), "plugin removed");
                self.steps.push(Step::Forget(id));
                self.steps.push(Step::Tell(Message::Event(Event::Removed { plugin: id })));
            }
        }
        for (name, want) in wants {
            self.bring_about(name, want, changed);
        }
    }

    fn bring_about(&mut self, name: PluginName, want: Want, changed: &BTreeSet<PathBuf>) {
        let next = PluginId(u32::try_from(self.ids.len()).unwrap_or(u32::MAX));
        let id = *self.ids.entry(name.clone()).or_insert(next);
        let before = self.known.get(&name);
        let is_same = before.is_some_and(|before| before.want == want);
        let first = before.is_none();
        let refresh_at = match before {
            Some(before) if is_same => before.refresh_at,
            Some(_) | None => want.refresh(fastrand::f64()).map(|every| self.epoch.elapsed().saturating_add(every)),
        };
        if before.is_some_and(|before| before.refresh_at.is_some()) && refresh_at.is_none() {
            // What its registry was in trouble with is no longer said.
            self.steps.push(Step::Forget(id));
        }
        if !is_same {
            if let Want::Refused(why) = &want {
                tracing::warn!(plugin = name.as_str(), reason = why, "plugin refused");
            }
            if let Want::File { defaults, entry, .. } | Want::Registry { defaults, entry, .. } = &want {
                let (defaults, entry) = (defaults.clone(), entry.clone());
                let configure = Message::Configure { plugin: id, name: name.clone(), defaults, entry };
                self.steps.push(Step::Tell(configure));
            }
            let (source, entry) = want.entry();
            self.steps.push(Step::Tell(Message::Event(Event::Entry { plugin: id, name: name.clone(), source, entry })));
        }
        let signature = want.signature();
        let is_touched = |path: &PathBuf| changed.contains(path);
        match &want {
            Want::File { path, .. } if is_touched(path) && self.files.is_gone(path) => {
                let reason = format!("{}: the file is gone: put it back, or take the entry out", path.display());
                self.steps.push(Step::Forget(id));
                self.steps.push(Step::Tell(Message::Event(Event::Vanished { plugin: id, reason })));
            }
            Want::File { path, .. } if !is_same || is_touched(path) || signature.as_ref().is_some_and(is_touched) => {
                self.files.track(path);
                if let Some(signature) = &signature {
                    self.files.track(signature);
                }
                self.steps.extend(job(id, &name, &want, first).map(Step::Load));
            }
            Want::Registry { .. } if !is_same => self.steps.extend(job(id, &name, &want, first).map(Step::Load)),
            Want::File { .. } | Want::Registry { .. } | Want::Refused(_) | Want::Ignored { .. } => {}
        }
        self.known.insert(name, Known { id, want, refresh_at });
    }

    /// Has the registries asked again whose time has come.
    fn refresh(&mut self) {
        let now = self.epoch.elapsed();
        for (name, known) in &mut self.known {
            if known.refresh_at.is_some_and(|at| at <= now) {
                known.refresh_at = known.want.refresh(fastrand::f64()).map(|every| now.saturating_add(every));
                let job = job(known.id, name, &known.want, false).map(|job| Job { again: true, ..job });
                self.steps.extend(job.map(Step::Load));
            }
        }
    }

    fn load_again(&mut self, plugin: PluginId) {
        let known = self.known.iter().find(|(_, known)| known.id == plugin);
        if let Some(job) = known.and_then(|(name, known)| job(plugin, name, &known.want, false)) {
            self.steps.push(Step::Load(job));
        }
    }

    fn watch_folders(&mut self) {
        let mut folders: BTreeSet<PathBuf> = self.origin.folders().into_iter().collect();
        folders.insert(self.configuration.config.plugins_dir.clone());
        for known in self.known.values() {
            if let Want::File { path, .. } = &known.want {
                folders.extend(path.parent().map(std::path::Path::to_owned));
            }
        }
        self.events.watch(&folders);
    }
}

fn job(plugin: PluginId, name: &PluginName, want: &Want, first: bool) -> Option<Job> {
    let (place, keys, defaults, entry) = match want {
        Want::File { path, keys, defaults, entry, .. } => (Place::File(path.clone()), keys, defaults, entry),
        Want::Registry { reference, keys, defaults, entry, .. } => {
            (Place::Registry(reference.clone()), keys, defaults, entry)
        }
        Want::Refused(_) | Want::Ignored { .. } => return None,
    };
    Some(Job {
        plugin,
        name: name.clone(),
        place,
        keys: keys.clone(),
        defaults: defaults.clone(),
        entry: entry.clone(),
        need: if first { Need::First } else { Need::Newer },
        again: false,
    })
}

fn look_at(origin: &Origin) -> Vec<(PathBuf, Look)> {
    origin.files().into_iter().map(|file| (file.clone(), Look::at(&file))).collect()
}
