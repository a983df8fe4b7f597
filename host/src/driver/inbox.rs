//! The driver's inbox: what anyone may send, and the one place where the driver sleeps.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::core::config::PluginLayer;
use crate::core::event::{Event, Hand, LoadedVersion};
use crate::core::name::{PluginId, PluginName};
use crate::guest::Prepared;

/// Takes the answer to a person: what was done, or why it cannot be.
pub type Reply = Box<dyn FnOnce(Result<String, String>) + Send>;

/// Something for the driver.
pub enum Message {
    /// For the supervisor.
    Event(Event),
    /// What the operator says of a plugin: before its first artifact, and whenever that changes.
    Configure {
        /// Whose.
        plugin: PluginId,
        /// Its name.
        name: PluginName,
        /// `defaults`
        defaults: Arc<PluginLayer>,
        /// Its entry.
        entry: Arc<PluginLayer>,
    },
    /// A version is compiled and linked.
    Prepared {
        /// Whose.
        plugin: PluginId,
        /// All that is needed of it.
        ready: ReadyVersion,
    },
    /// A person asks something of a plugin's versions, and waits for what comes of it.
    ByHand {
        /// The plugin's name, as that person wrote it.
        name: String,
        /// What is asked.
        hand: Hand,
        /// Takes the answer. Must not block.
        reply: Reply,
    },
    /// SIGTERM or SIGINT came.
    Shutdown,
}

/// A version that is compiled and linked.
pub struct ReadyVersion {
    /// What its manifest says of its configuration.
    pub manifest: Option<PluginLayer>,
    /// What the supervisor needs to know of the version.
    pub version: Arc<LoadedVersion>,
    /// The code.
    pub prepared: Arc<Prepared>,
    /// It is not what the plugin's source holds, but what was chosen instead.
    pub recalled: bool,
}

/// Bounded by what sends: an end per run in progress, a report a second per run, a few signals, and manual triggers, which the
/// supervisor bounds per plugin. Never blocks a sender for longer than a push takes.
#[derive(Default)]
pub struct Inbox {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    is_asleep: bool,
}

impl Inbox {
    /// An empty inbox.
    pub fn new() -> Arc<Inbox> {
        Arc::new(Inbox::default())
    }

    /// Leaves a message, and wakes the driver if it sleeps.
    pub fn send(&self, message: Message) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.messages.push_back(message);
        if std::mem::take(&mut queue.is_asleep) {
            drop(queue);
            self.arrived.notify_one();
        }
    }

    /// Logs a problem of the host's own and has it shown in the entry `windlass`, or takes it back.
    pub fn host_fault(&self, key: &'static str, problem: Option<String>) {
        if let Some(problem) = &problem {
            tracing::warn!(problem, "the host has a problem");
        }
        self.send(Message::Event(Event::HostFault { key, problem }));
    }

    /// Takes all messages into `batch`, which must be empty; sleeps for at most `patience` if there are none.
    pub(super) fn take(&self, batch: &mut VecDeque<Message>, patience: Duration) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.messages.is_empty() && !patience.is_zero() {
            queue.is_asleep = true;
            queue = self.arrived.wait_timeout(queue, patience).unwrap_or_else(PoisonError::into_inner).0;
            queue.is_asleep = false;
        }
        std::mem::swap(&mut queue.messages, batch);
    }
}
