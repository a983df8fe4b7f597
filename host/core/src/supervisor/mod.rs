//! The supervisor: every plugin's life, as one state machine over many small ones.
//!
//! It owns what it decides on. The shell hands in events with the time, and does the actions that come out. No step looks at all
//! plugins: a set holds the next wake-up of each, and a list those whose report changed.

mod fold;
mod measured;
mod plugin;
mod run;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Plugin;
use crate::event::{Action, Chosen, Entry, Escalated, Event, Hand};
use crate::health::{HostView, PluginView, Snapshot, Status};
use crate::name::{PluginId, PluginName, RunId};
use crate::time::{Mono, Now, Timestamp};
use crate::verdict::Lack;
use plugin::{Context, Life, PluginState};

/// How long runs that starved past their deadline are shown in the host's entry.
const STARVED_SHOWN: Duration = Duration::from_secs(300);

/// Decides what starts, what ends, and what health says. Owns everything it decides on.
#[derive(Debug)]
pub struct Supervisor {
    plugins: BTreeMap<PluginId, PluginState>,
    /// Whose run it is, for runs in progress.
    runs: HashMap<RunId, PluginId>,
    wakeups: BTreeSet<(Mono, PluginId)>,
    shared: Shared,
    faults: BTreeMap<&'static str, String>,
    /// Runs whose deadline passed while they waited for a lane or memory: how many, and the last.
    starved: Option<(u64, Now)>,
    /// Plugins that have been starved for longer than they may, and of what.
    starving: BTreeMap<PluginId, Lack>,
    started: Timestamp,
    config_hash: String,
    /// The report, sorted by name, and who stands where.
    views: Vec<Arc<PluginView>>,
    order: BTreeMap<PluginName, PluginId>,
    dirty: BTreeSet<PluginId>,
    reordered: bool,
}

/// What the plugins' machines share.
#[derive(Debug)]
struct Shared {
    random: fastrand::Rng,
    next_run: u64,
    draining: Option<Mono>,
    /// How long runs may go on that were asked to end.
    drain: Duration,
    loading: usize,
    /// How many were ever added to be loaded, and how many of those began to be.
    to_load: usize,
    began_loading: usize,
    /// Which plugins turned `/health/live` red in a process before this one.
    escalated: BTreeMap<PluginName, Escalated>,
    /// What was chosen before this host, of plugins that have nothing loaded yet.
    chosen: BTreeMap<PluginName, Chosen>,
}

impl Supervisor {
    /// A supervisor without plugins. `seed` feeds the jitter of retries; `drain` is how long runs may go on after
    /// [`Event::Drain`].
    pub fn new(seed: u64, drain: Duration, now: Now) -> Supervisor {
        Supervisor {
            plugins: BTreeMap::new(),
            runs: HashMap::new(),
            wakeups: BTreeSet::new(),
            shared: Shared {
                random: fastrand::Rng::with_seed(seed),
                next_run: 1,
                draining: None,
                drain,
                loading: 0,
                to_load: 0,
                began_loading: 0,
                escalated: BTreeMap::new(),
                chosen: BTreeMap::new(),
            },
            faults: BTreeMap::new(),
            starved: None,
            starving: BTreeMap::new(),
            started: now.wall,
            config_hash: String::new(),
            views: Vec::new(),
            order: BTreeMap::new(),
            dirty: BTreeSet::new(),
            reordered: false,
        }
    }

    /// Takes over what a host before this one remembered of escalations: before the first [`Event::Loaded`].
    pub fn remember(&mut self, escalated: impl IntoIterator<Item = Escalated>) {
        self.shared.escalated = escalated.into_iter().map(|one| (one.plugin.clone(), one)).collect();
    }

    /// Takes over which versions a host before this one ran instead of what their sources held: before the first [`Event::Loaded`].
    pub fn remember_choices(&mut self, chosen: impl IntoIterator<Item = Chosen>) {
        self.shared.chosen = chosen.into_iter().map(|one| (one.plugin.clone(), one)).collect();
    }

    /// Adds a plugin, in state `Loading`, under the next identity that is free: for whoever keeps no identities of their own.
    pub fn add(&mut self, config: Arc<Plugin>, now: Now) -> PluginId {
        let plugin = PluginId(self.plugins.last_key_value().map_or(0, |(id, _)| id.0 + 1));
        let (name, source) = (config.name.clone(), Arc::from(config.source.as_str()));
        // Nothing is done for an entry alone.
        self.step(Event::Entry { plugin, name, source, entry: Entry::Wanted(config) }, now, &mut Vec::new());
        plugin
    }

    /// An entry, for a plugin that is new or known.
    fn take_entry(&mut self, plugin: PluginId, event: Event, now: Now, actions: &mut Vec<Action>) {
        if let (Event::Entry { name, source, entry, .. }, false) = (&event, self.plugins.contains_key(&plugin)) {
            let state = match entry {
                Entry::Wanted(config) => {
                    self.shared.loading += 1;
                    self.shared.to_load += 1;
                    PluginState::new(config.clone(), Life::Loading { nth: None }, now)
                }
                Entry::Refused(reason) => {
                    PluginState::nameplate(name.clone(), source, Life::Refused { reason: reason.clone() }, now)
                }
                Entry::Ignored => PluginState::nameplate(name.clone(), source, Life::Ignored, now),
            };
            self.order.insert(name.clone(), plugin);
            self.plugins.insert(plugin, state);
            self.reordered = true;
            return self.settle(plugin, now);
        }
        self.tell(plugin, event, now, actions);
    }

    /// Does what a person asks of a plugin's versions, and says what was done, or why it cannot be.
    ///
    /// # Errors
    /// One line for that person: no such plugin, no such version, or not now.
    pub fn by_hand(&mut self, name: &str, hand: Hand, now: Now, actions: &mut Vec<Action>) -> Result<String, String> {
        let known = PluginName::new(name).ok().and_then(|name| self.order.get(&name).copied());
        let Some(plugin) = known else { return Err(format!("there is no plugin `{name}`")) };
        let mut answer = Err(String::new());
        self.with(plugin, now, actions, |state, context| {
            answer = state.by_hand(hand, context);
            state.retire_unused(context);
        });
        answer
    }

    fn forget(&mut self, plugin: PluginId, actions: &mut Vec<Action>) {
        let Some(state) = self.plugins.remove(&plugin) else { return };
        if let Some(at) = state.registered_wakeup() {
            self.wakeups.remove(&(at, plugin));
        }
        if self.order.get(state.name()) == Some(&plugin) {
            self.order.remove(state.name());
        }
        self.dirty.remove(&plugin);
        self.starving.remove(&plugin);
        self.reordered = true;
        actions.push(Action::Forget { plugin });
    }

    /// Takes in what happened and appends what to do to `actions`. What comes late or is about something unknown is ignored.
    pub fn step(&mut self, event: Event, now: Now, actions: &mut Vec<Action>) {
        match event {
            Event::Drain => self.begin_drain(now, actions),
            Event::HostFault { key, problem: Some(problem) } => {
                self.faults.insert(key, problem);
            }
            Event::HostFault { key, problem: None } => {
                self.faults.remove(key);
            }
            Event::Configured { hash } => self.config_hash = hash,
            Event::Entry { plugin, .. } => self.take_entry(plugin, event, now, actions),
            Event::Loading { plugin }
            | Event::Found { plugin }
            | Event::Removed { plugin }
            | Event::Vanished { plugin, .. }
            | Event::Staged { plugin, .. }
            | Event::Reconfigured { plugin, .. }
            | Event::Loaded { plugin, .. }
            | Event::Recalled { plugin, .. }
            | Event::NotRecalled { plugin, .. }
            | Event::Refused { plugin, .. }
            | Event::Checked { plugin, .. }
            | Event::CheckStarved { plugin, .. }
            | Event::Triggered { plugin, .. } => self.tell(plugin, event, now, actions),
            Event::Started { run }
            | Event::Ended { run, .. }
            | Event::Reported { run, .. }
            | Event::Progressed { run }
            | Event::Sampled { run, .. }
            | Event::Starving { run, .. } => {
                if let Some(plugin) = self.runs.get(&run) {
                    self.tell(*plugin, event, now, actions);
                }
            }
        }
    }

    fn tell(&mut self, plugin: PluginId, event: Event, now: Now, actions: &mut Vec<Action>) {
        self.with(plugin, now, actions, |state, context| state.step(event, context));
    }

    /// Does whatever is due at `now`, and appends it to `actions`.
    pub fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some((_, plugin)) = self.wakeups.first().copied().filter(|(at, _)| *at <= now.mono) {
            self.with(plugin, now, actions, PluginState::tick);
        }
        if self.starved.is_some_and(|(_, last)| now.mono >= last.mono + STARVED_SHOWN) {
            self.starved = None;
        }
    }

    /// Lets one plugin's machine act, and brings everything that depends on it up to date.
    fn with(
        &mut self,
        plugin: PluginId,
        now: Now,
        actions: &mut Vec<Action>,
        act: impl FnOnce(&mut PluginState, &mut Context<'_>),
    ) {
        let Some(state) = self.plugins.get_mut(&plugin) else { return };
        let first = actions.len();
        let mut context =
            Context { id: plugin, now, actions, shared: &mut self.shared, gone: Vec::new(), starved: false };
        act(state, &mut context);
        state.escalate(&mut context);
        state.tell_choice(&mut context);
        let Context { gone, starved, .. } = context;
        for action in actions.iter().skip(first) {
            if let Action::Start(start) = action {
                self.runs.insert(start.run, plugin);
            }
        }
        for run in gone {
            self.runs.remove(&run);
        }
        if starved {
            let before = self.starved.map_or(0, |(count, _)| count);
            self.starved = Some((before + 1, now));
        }
        if let Some(note) = self.plugins.get_mut(&plugin).and_then(|state| state.note_change(now)) {
            actions.push(Action::Note(note));
        }
        if self.plugins.get(&plugin).is_some_and(PluginState::is_gone) {
            return self.forget(plugin, actions);
        }
        self.settle(plugin, now);
    }

    fn settle(&mut self, plugin: PluginId, now: Now) {
        let Some(state) = self.plugins.get_mut(&plugin) else { return };
        self.dirty.insert(plugin);
        match state.starved_for_long(now.mono) {
            Some((_, (lack, _))) => {
                self.starving.insert(plugin, lack);
            }
            None => {
                self.starving.remove(&plugin);
            }
        }
        let wanted = state.next_wakeup(now);
        let registered = state.registered_wakeup();
        if wanted != registered {
            if let Some(at) = registered {
                self.wakeups.remove(&(at, plugin));
            }
            if let Some(at) = wanted {
                self.wakeups.insert((at, plugin));
            }
            state.register_wakeup(wanted);
        }
    }

    fn begin_drain(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.shared.draining.is_some() {
            return;
        }
        self.shared.draining = Some(now.mono + self.shared.drain);
        let all: Vec<PluginId> = self.plugins.keys().copied().collect();
        for plugin in all {
            self.with(plugin, now, actions, PluginState::drain);
        }
    }

    /// When `tick` has something to do again; none if only an event can bring it about.
    pub fn next_wakeup(&self) -> Option<Mono> {
        let plugins = self.wakeups.first().map(|(at, _)| *at);
        let host = self.starved.map(|(_, last)| last.mono + STARVED_SHOWN);
        plugins.into_iter().chain(host).min()
    }

    /// What health says now. Views of plugins that did not change are shared with the snapshot before.
    pub fn snapshot(&mut self, now: Now) -> Snapshot {
        if std::mem::take(&mut self.reordered) {
            self.views = self
                .order
                .values()
                .filter_map(|id| self.plugins.get(id))
                .map(|state| Arc::new(state.view(now)))
                .collect();
            for (place, id) in self.order.values().enumerate() {
                if let Some(state) = self.plugins.get_mut(id) {
                    state.place = Some(place);
                }
            }
            self.dirty.clear();
        }
        for id in std::mem::take(&mut self.dirty) {
            let Some(state) = self.plugins.get(&id) else { continue };
            if let Some(view) = state.place.and_then(|place| self.views.get_mut(place)) {
                *view = Arc::new(state.view(now));
            }
        }
        Snapshot { taken: now, started: self.started, host: self.host_view(), plugins: self.views.as_slice().into() }
    }

    fn host_view(&self) -> HostView {
        let mut problems: Vec<String> = self.faults.values().cloned().collect();
        if let Some((count, last)) = self.starved {
            let at = last.wall.strftime("%H:%M:%SZ");
            problems.push(format!("{count} runs starved past their deadline, the last at {at}"));
        }
        problems.extend([Lack::Lanes, Lack::Memory, Lack::Slots].into_iter().filter_map(|lack| self.starving_of(lack)));
        HostView {
            status: if problems.is_empty() { Status::Healthy } else { Status::Degraded },
            description: problems.join("; "),
            draining: self.shared.draining.is_some(),
            loading: self.shared.loading,
            config_hash: self.config_hash.clone(),
        }
    }

    /// Who has been starved of something for longer than they may.
    fn starving_of(&self, lack: Lack) -> Option<String> {
        /// So many are named.
        const NAMED: usize = 5;
        let starving = self.starving.iter().filter(|(_, of)| **of == lack).map(|(plugin, _)| plugin);
        let count = starving.clone().count();
        let names: Vec<_> = starving
            .take(NAMED)
            .filter_map(|plugin| self.plugins.get(plugin))
            .map(|state| state.name().as_str())
            .collect();
        let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
        (count > 0).then(|| format!("starved of {}: {}{more}", lack.name(), names.join(", ")))
    }

    /// Whether no run is in progress: what a drain waits for.
    pub fn is_idle(&self) -> bool {
        self.runs.is_empty()
    }
}
