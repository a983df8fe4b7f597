//! The supervisor: every plugin's life, as one state machine.

use crate::config::Plugin;
use crate::event::{Action, Event};
use crate::health::Snapshot;
use crate::name::PluginId;
use crate::time::{Mono, Now};

/// Decides what starts, what ends, and what health says. Owns everything it decides on.
#[derive(Debug)]
pub struct Supervisor {
    _private: (),
}

impl Supervisor {
    /// A supervisor without plugins. `seed` feeds the jitter of retries.
    pub fn new(seed: u64, now: Now) -> Supervisor {
        let _ = (seed, now);
        unreachable!()
    }

    /// Adds a plugin, in state `Loading`. Its effective configuration is final.
    pub fn add(&mut self, config: std::sync::Arc<Plugin>, now: Now) -> PluginId {
        let _ = (config, now);
        unreachable!()
    }

    /// Takes in what happened and appends what to do to `actions`.
    pub fn step(&mut self, event: Event, now: Now, actions: &mut Vec<Action>) {
        let _ = (event, now, actions);
        unreachable!()
    }

    /// Does whatever is due at `now`, and appends it to `actions`.
    pub fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        let _ = (now, actions);
        unreachable!()
    }

    /// When `tick` has something to do again; none if only an event can bring it about.
    pub fn next_wakeup(&self) -> Option<Mono> {
        unreachable!()
    }

    /// What health says now. Views of plugins that did not change are shared with the snapshot before.
    pub fn snapshot(&mut self, now: Now) -> Snapshot {
        let _ = now;
        unreachable!()
    }

    /// Whether no run is in progress: what a drain waits for.
    pub fn is_idle(&self) -> bool {
        unreachable!()
    }
}
