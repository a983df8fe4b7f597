//! What the driver holds of each plugin: what the operator says of it, and the code of its versions. Decides nothing: a version is
//! let go when the supervisor says that nobody needs it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::core::config::{Plugin, PluginLayer, resolve};
use crate::core::event::Event;
use crate::core::name::{Digest, PluginId, PluginName};
use crate::driver::ReadyVersion;
use crate::guest::{Executable, Grants, Prepared, Toolbox};
use crate::lanes::{Group, Lanes};
use crate::source;

/// All plugins that the operator said something of.
pub(super) struct Slots {
    toolbox: Arc<Toolbox>,
    slots: HashMap<PluginId, Slot>,
}

struct Slot {
    name: PluginName,
    defaults: Arc<PluginLayer>,
    entry: Arc<PluginLayer>,
    /// Its place in the lanes' order, with the weight that it has there.
    group: Option<(u32, Group)>,
    /// In whose name its runs hold memory.
    holder: Arc<str>,
    versions: HashMap<Digest, Code>,
}

/// A version that can run. Runs hold on to its executable by themselves.
struct Code {
    manifest: Option<PluginLayer>,
    config: Arc<Plugin>,
    executable: Arc<Executable>,
}

/// All that a run or a check needs to begin.
pub(super) struct Ready {
    pub(super) executable: Arc<Executable>,
    pub(super) group: Group,
    /// In whose name it will hold memory.
    pub(super) holder: Arc<str>,
    pub(super) config: Arc<Plugin>,
}

impl Slots {
    pub(super) fn new(toolbox: Arc<Toolbox>) -> Slots {
        Slots { toolbox, slots: HashMap::new() }
    }

    /// Takes in what the operator says of a plugin, and returns what it means for the versions that are there.
    pub(super) fn configure(
        &mut self,
        plugin: PluginId,
        name: PluginName,
        defaults: Arc<PluginLayer>,
        entry: Arc<PluginLayer>,
    ) -> Vec<Event> {
        let Slots { toolbox, slots } = self;
        let slot = slots.entry(plugin).or_insert_with(|| Slot {
            holder: Arc::from(name.as_str()),
            name,
            defaults: defaults.clone(),
            entry: entry.clone(),
            group: None,
            versions: HashMap::new(),
        });
        (slot.defaults, slot.entry) = (defaults, entry);
        let mut events = Vec::new();
        for (digest, code) in &mut slot.versions {
            let resolved = resolve(&slot.name, code.manifest.as_ref(), &slot.defaults, &slot.entry);
            let prepared = &code.executable.prepared;
            match resolved.and_then(|config| source::check_memory(prepared, &config, u64::MAX).map(|()| config)) {
                Ok(config) => {
                    code.config = Arc::new(config);
                    code.executable = executable(toolbox, &code.config, code.executable.prepared.clone());
                    events.push(Event::Reconfigured { plugin, digest: *digest, config: code.config.clone() });
                }
                Err(reason) => events.push(Event::Refused { plugin, digest: None, reason }),
            }
        }
        events
    }

    /// Takes in a version's code. Returns what to tell the supervisor; nothing for a plugin that is gone.
    pub(super) fn install(&mut self, plugin: PluginId, ready: ReadyVersion) -> Option<Event> {
        let ReadyVersion { manifest, version, prepared, recalled } = ready;
        let slot = self.slots.get_mut(&plugin)?;
        let digest = version.digest;
        match resolve(&slot.name, manifest.as_ref(), &slot.defaults, &slot.entry) {
            Ok(config) => {
                let config = Arc::new(config);
                let executable = executable(&self.toolbox, &config, prepared);
                slot.versions.insert(digest, Code { manifest, config: config.clone(), executable });
                Some(match recalled {
                    true => Event::Recalled { plugin, config, version },
                    false => Event::Loaded { plugin, config, version },
                })
            }
            Err(reason) if recalled => Some(Event::NotRecalled { plugin, digest, reason }),
            Err(reason) => Some(Event::Refused { plugin, digest: Some(digest), reason }),
        }
    }

    /// What a run or check of this version needs; none if there is no such version.
    pub(super) fn ready(&mut self, plugin: PluginId, digest: &Digest, lanes: &Lanes) -> Option<Ready> {
        let slot = self.slots.get_mut(&plugin)?;
        let code = slot.versions.get(digest)?;
        let weight = code.config.limits.weight;
        let group = match slot.group.take().filter(|(before, _)| *before == weight) {
            Some((_, group)) => group,
            None => lanes.group(weight),
        };
        slot.group = Some((weight, group.clone()));
        Some(Ready {
            executable: code.executable.clone(),
            group,
            holder: slot.holder.clone(),
            config: code.config.clone(),
        })
    }

    /// Lets a version's code go; runs that use it keep it until they end.
    pub(super) fn retire(&mut self, plugin: PluginId, digest: &Digest) {
        if let Some(slot) = self.slots.get_mut(&plugin) {
            slot.versions.remove(digest);
        }
    }

    /// Forgets a plugin.
    pub(super) fn forget(&mut self, plugin: PluginId) {
        self.slots.remove(&plugin);
    }
}

fn executable(toolbox: &Arc<Toolbox>, config: &Plugin, prepared: Arc<Prepared>) -> Arc<Executable> {
    Arc::new(Executable {
        toolbox: toolbox.clone(),
        prepared,
        grants: Grants {
            args: std::iter::once(config.name.to_string()).chain(config.args.iter().cloned()).collect(),
            config: config.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            memory_bytes: config.limits.memory_bytes,
            fuel: config.limits.fuel,
            log_bytes: config.limits.logs_bytes,
        },
    })
}
