//! Who waits for memory or a place in the pool: first come first served, but whoever does not fit lets the next one by.

use std::collections::VecDeque;
use std::time::Duration;

use super::slots::Ready;
use crate::core::event::Start;
use crate::core::name::{Digest, PluginId, RunId};

/// What waits, with all that it needs to begin.
pub(super) struct Waiting {
    pub(super) what: What,
    /// Its version's code stays loaded for it, whatever is swapped in meanwhile.
    pub(super) ready: Ready,
}

pub(super) enum What {
    /// An attempt.
    Run {
        start: Box<Start>,
        /// Whether the supervisor has been told that it waits.
        told: bool,
    },
    /// A health check.
    Check { plugin: PluginId, digest: Digest, timeout: Duration },
}

/// Those who wait, in the order in which they came. Bounded by the supervisor: `maxConcurrent` runs and one check a plugin.
#[derive(Default)]
pub(super) struct WaitingRoom(VecDeque<Waiting>);

impl WaitingRoom {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.0.push_back(waiting);
    }

    pub(super) fn get(&self, index: usize) -> Option<&Waiting> {
        self.0.get(index)
    }

    /// Lets the one at `index` go.
    pub(super) fn take(&mut self, index: usize) -> Option<Waiting> {
        self.0.remove(index)
    }

    /// The run at `index`, if the supervisor has yet to be told that it waits.
    pub(super) fn tell(&mut self, index: usize) -> Option<RunId> {
        match &mut self.0.get_mut(index)?.what {
            What::Run { start, told } => (!std::mem::replace(told, true)).then_some(start.run),
            What::Check { .. } => None,
        }
    }

    /// Takes a run out, wherever it waits. False if it does not.
    pub(super) fn remove(&mut self, run: RunId) -> bool {
        let at = self.0.iter().position(|waiting| match &waiting.what {
            What::Run { start, .. } => start.run == run,
            What::Check { .. } => false,
        });
        at.is_some_and(|at| self.0.remove(at).is_some())
    }
}
