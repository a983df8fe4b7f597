//! A host that stands for the real one in an author's own tests: `cargo test`, without wasm.
//!
//! ```
//! use windlass_sdk::{Context, Error, testing::TestContext};
//!
//! fn run(ctx: &Context) -> Result<(), Error> {
//!     let limit: u32 = ctx.config("limit").ok_or_else(|| Error::permanent("limit is not set"))?.parse()?;
//!     windlass_sdk::log::info!("the limit is {limit}");
//!     Ok(())
//! }
//!
//! let test = TestContext::new().config("limit", "5");
//! assert!(run(test.context()).is_ok());
//! assert_eq!(test.logs()[0].message, "the limit is 5");
//! assert!(run(TestContext::new().context()).unwrap_err().is_permanent());
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::context::Invocation;
use crate::{Context, Health, Level, Trigger};

/// A line that the job logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How important it is.
    pub level: Level,
    /// The message.
    pub message: String,
    /// Names and values beside it.
    pub fields: Vec<(String, String)>,
}

/// What the job said of its progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// Steps in all; 0 if it does not know.
    pub total: u64,
    /// What it is at.
    pub message: String,
}

thread_local! {
    static LOGS: RefCell<Vec<LogLine>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn capture(level: Level, message: &str, fields: &[(String, String)]) {
    LOGS.with_borrow_mut(|logs| logs.push(LogLine { level, message: message.to_owned(), fields: fields.to_vec() }));
}

/// Stands for the host's side.
#[derive(Debug, Default)]
pub(crate) struct Host {
    config: RefCell<BTreeMap<String, String>>,
    /// Turns true after so many looks.
    cancelled_after: Cell<Option<u32>>,
    progress: RefCell<Vec<Progress>>,
    reports: RefCell<Vec<Health>>,
}

impl Host {
    pub(crate) fn config(&self, key: &str) -> Option<String> {
        self.config.borrow().get(key).cloned()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        match self.cancelled_after.get() {
            None => false,
            Some(0) => true,
            Some(looks) => {
                self.cancelled_after.set(Some(looks - 1));
                false
            }
        }
    }

    pub(crate) fn report_progress(&self, done: u64, total: u64, message: &str) {
        self.progress.borrow_mut().push(Progress { done, total, message: message.to_owned() });
    }

    pub(crate) fn report_health(&self, health: Health) {
        self.reports.borrow_mut().push(health);
    }
}

/// A run to call a job with, and all that the job said in it. One at a time on a thread: lines that are logged belong to the latest.
#[derive(Debug)]
pub struct TestContext {
    context: Context,
    host: Rc<Host>,
}

impl Default for TestContext {
    fn default() -> TestContext {
        TestContext::new()
    }
}

impl TestContext {
    /// A first attempt, started by hand, with nothing set.
    pub fn new() -> TestContext {
        crate::logging::install();
        LOGS.with_borrow_mut(Vec::clear);
        let host = Rc::new(Host::default());
        let invocation = Invocation {
            run_id: "1".to_owned(),
            plugin: "test".to_owned(),
            version: 1,
            attempt: 1,
            trigger: Trigger::Manual,
            due_ms: 0,
            made_up: false,
            deadline_ms: None,
            payload: Vec::new(),
            content_type: None,
        };
        TestContext { context: Context { invocation, host: host.clone() }, host }
    }

    /// Sets a value of `config`.
    #[must_use]
    pub fn config(self, key: &str, value: &str) -> TestContext {
        self.host.config.borrow_mut().insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets the payload.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> TestContext {
        self.context.invocation.payload = payload.into();
        self
    }

    /// Sets the payload's media type.
    #[must_use]
    pub fn content_type(mut self, content_type: &str) -> TestContext {
        self.context.invocation.content_type = Some(content_type.to_owned());
        self
    }

    /// Sets which attempt it is.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> TestContext {
        self.context.invocation.attempt = attempt;
        self
    }

    /// Sets what caused it.
    #[must_use]
    pub fn trigger(mut self, trigger: Trigger) -> TestContext {
        self.context.invocation.trigger = trigger;
        self
    }

    /// Sets when it was due, counted from 1970.
    #[must_use]
    pub fn due(mut self, since_1970: Duration) -> TestContext {
        self.context.invocation.due_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Has the job be asked to end after it has looked `looks` times.
    #[must_use]
    pub fn cancelled_after(self, looks: u32) -> TestContext {
        self.host.cancelled_after.set(Some(looks));
        self
    }

    /// What to call the job with.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The lines that were logged on this thread since this was made.
    pub fn logs(&self) -> Vec<LogLine> {
        LOGS.with_borrow(Clone::clone)
    }

    /// What it said of its progress.
    pub fn progress(&self) -> Vec<Progress> {
        self.host.progress.borrow().clone()
    }

    /// What it said of its health.
    pub fn reports(&self) -> Vec<Health> {
        self.host.reports.borrow().clone()
    }
}
