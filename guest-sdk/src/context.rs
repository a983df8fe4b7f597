//! What a job is told of its run, and what it can say while it goes on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Health;

/// What caused a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The interval of `every` has passed.
    Every,
    /// A time of the `schedule` has come.
    Schedule,
    /// The job runs once for this artifact.
    Once,
    /// The job is meant to run all the time.
    Continuous,
    /// A message arrived on a queue.
    Queue,
    /// A person or another program asked for it.
    Manual,
}

/// The facts of one run.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    pub(crate) run_id: String,
    pub(crate) plugin: String,
    pub(crate) version: u32,
    pub(crate) attempt: u32,
    pub(crate) trigger: Trigger,
    pub(crate) due_ms: u64,
    pub(crate) made_up: bool,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) payload: Vec<u8>,
    pub(crate) content_type: Option<String>,
}

/// One run, from inside: what it is about, and the way to the host.
#[derive(Debug)]
pub struct Context {
    pub(crate) invocation: Invocation,
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) host: std::rc::Rc<crate::testing::Host>,
}

#[cfg(target_arch = "wasm32")]
use crate::guest as host;

/// Calls the host, or the test that stands for it.
macro_rules! host {
    ($self:ident.$function:ident($($argument:expr),*)) => {{
        #[cfg(target_arch = "wasm32")]
        { host::$function($($argument),*) }
        #[cfg(not(target_arch = "wasm32"))]
        { $self.host.$function($($argument),*) }
    }};
}

impl Context {
    /// Identifies the run; its attempts share it. Use it as an idempotency key.
    pub fn run_id(&self) -> &str {
        &self.invocation.run_id
    }

    /// The plugin's name in the host's configuration.
    pub fn plugin(&self) -> &str {
        &self.invocation.plugin
    }

    /// Which version of the plugin this is, numbered upwards from 1.
    pub fn version(&self) -> u32 {
        self.invocation.version
    }

    /// 1 for the first attempt of a run, 2 for its first retry, and so on.
    pub fn attempt(&self) -> u32 {
        self.invocation.attempt
    }

    /// What caused the run.
    pub fn trigger(&self) -> Trigger {
        self.invocation.trigger
    }

    /// When the run was due.
    pub fn due(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.invocation.due_ms)
    }

    /// Whether the run makes up for a start that was missed.
    pub fn made_up(&self) -> bool {
        self.invocation.made_up
    }

    /// When the host will stop the run; none if it will not.
    pub fn deadline(&self) -> Option<SystemTime> {
        self.invocation.deadline_ms.map(|ms| UNIX_EPOCH + Duration::from_millis(ms))
    }

    /// What the trigger carried along: a queue's message, or what a person gave; empty if there is nothing.
    pub fn payload(&self) -> &[u8] {
        &self.invocation.payload
    }

    /// The payload's media type, where the trigger knows it.
    pub fn content_type(&self) -> Option<&str> {
        self.invocation.content_type.as_deref()
    }

    /// A value of `config` in the plugin's entry; none if it is not set.
    pub fn config(&self, key: &str) -> Option<String> {
        host!(self.config(key))
    }

    /// Whether the host wants this run to end soon. Look at it often, and return: then the run is not cut off.
    pub fn is_cancelled(&self) -> bool {
        host!(self.is_cancelled())
    }

    /// Says that the run moves on: `done` of `total` steps (0 if the total is not known), and what it is at.
    pub fn progress(&self, done: u64, total: u64, message: &str) {
        host!(self.report_progress(done, total, message))
    }

    /// States how the job is, from now until its next run ends. The host takes over one change a second.
    pub fn report_health(&self, health: Health) {
        host!(self.report_health(health))
    }
}
