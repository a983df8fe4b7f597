//! The host's own lanes and guests without a driver: for what can only be timed from within.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use windlass::artifact::Artifact;
use windlass::core::event::TriggerKind;
use windlass::core::health::Report;
use windlass::guest::{
    Engine, EngineOptions, Executable, Grants, Invocation, Ledger, Line, Listener, Metering, Probe, Progress, Toolbox,
    attempt, memory_slots,
};
use windlass::lanes::{
    self, End, Group, LaneObserver, Lanes, Meter, Remains, TaskHandle, Watcher, Work, clock, priority,
};
use windlass::telemetry;

/// What all guests may hold together.
const MEMORY_BYTES: u64 = 3 << 30;

/// Bytes of log per attempt: as without configuration.
const LOG_BYTES: u64 = 1 << 20;

/// Lanes, and what runs on them is made with.
pub(crate) struct Stage {
    lanes: Lanes,
    toolbox: Arc<Toolbox>,
    ledger: Arc<Ledger>,
    /// After the lanes: what a guest held wants its runtime when it goes.
    _runtime: Runtime,
}

/// What to run.
pub(crate) struct Cast {
    executable: Arc<Executable>,
    name: String,
}

/// How one attempt ended.
pub(crate) struct Gone {
    /// From the beginning of its last poll until its future was gone.
    pub(crate) since_last_poll: Duration,
    pub(crate) end: End,
}

impl Stage {
    /// So many lanes, for so many runs at once.
    pub(crate) fn new(lanes: usize, runs: u32, observer: Arc<dyn LaneObserver>) -> Stage {
        let nice = priority::Niceness::among_others().unwrap();
        let engine = Engine::new(EngineOptions { max_concurrent_runs: runs, metering: Metering::Fuel }).unwrap();
        let runtime = lanes::guest_runtime(nice).unwrap();
        let options = lanes::Options {
            lanes,
            runtime: runtime.handle().clone(),
            pacer: lanes::governor::Pacer::new(),
            niceness: nice,
        };
        Stage {
            lanes: Lanes::start(&options, observer).unwrap(),
            toolbox: Toolbox::new(engine).unwrap(),
            ledger: Ledger::new(MEMORY_BYTES, runs, memory_slots(runs)),
            _runtime: runtime,
        }
    }

    /// Compiles a guest. None if it is one that the host refuses.
    pub(crate) fn prepare(&self, name: &str, wasm: Vec<u8>, config: &[(&str, &str)]) -> Option<Cast> {
        let artifact = Artifact::from_bytes(wasm);
        let anatomy = artifact.anatomy().ok()?;
        let prepared = self.toolbox.prepare(anatomy.kind, &artifact.bytes).ok()?;
        let grants = Grants {
            args: vec![name.to_owned()],
            config: config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            // The default of a plugin.
            memory_bytes: 256 << 20,
            fuel: None,
            log_bytes: LOG_BYTES,
        };
        let executable = Executable { toolbox: self.toolbox.clone(), prepared: Arc::new(prepared), grants };
        Some(Cast { executable: Arc::new(executable), name: name.to_owned() })
    }

    pub(crate) fn group(&self) -> Group {
        self.lanes.group(100)
    }

    /// Starts one attempt. None if its memory cannot be had. How it ends is sent to `tell`.
    pub(crate) fn spawn(
        &self,
        group: &Group,
        cast: &Cast,
        cpu: Option<Duration>,
        tell: mpsc::Sender<Gone>,
    ) -> Option<TaskHandle> {
        let prepared = &cast.executable.prepared;
        let holder = Arc::from(cast.name.as_str());
        let reservation = self.ledger.admit(&holder, prepared.min_memory_bytes, prepared.memories).ok()?;
        let probe = Probe::new(Arc::new(Log(cast.name.clone())), None, LOG_BYTES);
        let last_poll_ns = Arc::new(AtomicU64::new(0));
        let work = Timed {
            work: attempt(cast.executable.clone(), reservation, invocation(&cast.name), probe.clone()),
            last_poll_ns: last_poll_ns.clone(),
        };
        let watcher = Teller { tell: Mutex::new(tell), last_poll_ns, probe };
        Some(self.lanes.spawn(group, Box::pin(work), Arc::new(watcher), cpu))
    }
}

fn invocation(plugin: &str) -> Invocation {
    Invocation {
        run: "1".to_owned(),
        plugin: plugin.to_owned(),
        version: 1,
        attempt: 1,
        trigger: TriggerKind::Manual,
        due_ms: 0,
        made_up: false,
        time_left: None,
        payload: Vec::new().into(),
        content_type: None,
    }
}

/// Notes when each poll begins.
struct Timed {
    work: Work,
    last_poll_ns: Arc<AtomicU64>,
}

impl Future for Timed {
    type Output = Remains;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Remains> {
        self.last_poll_ns.store(clock::uptime_ns(Instant::now()), Ordering::Relaxed);
        self.work.as_mut().poll(context)
    }
}

struct Teller {
    tell: Mutex<mpsc::Sender<Gone>>,
    last_poll_ns: Arc<AtomicU64>,
    probe: Arc<Probe>,
}

impl Watcher for Teller {
    fn started(&self, _: &Meter) {}

    fn ended(&self, end: End, meter: &Meter) {
        let now_ns = clock::uptime_ns(Instant::now());
        // As the host does at every end.
        let _ = self.probe.ended(end.clone(), meter);
        let since_last_poll = Duration::from_nanos(now_ns.saturating_sub(self.last_poll_ns.load(Ordering::Relaxed)));
        // Whoever measured may have what it wants, and be gone.
        let _ = self.tell.lock().unwrap().send(Gone { since_last_poll, end });
    }
}

/// Logs as the host does.
struct Log(String);

impl Listener for Log {
    fn line(&self, line: &Line<'_>) {
        telemetry::guest_line(&self.0, 1, 1, tracing_level(line), "stdout", line.text, line.fields);
    }

    fn reported(&self, _: Report) {}

    fn progressed(&self, _: &Progress) {}
}

fn tracing_level(line: &Line<'_>) -> tracing::Level {
    match line.source {
        windlass::guest::LineSource::Log(level) => level,
        windlass::guest::LineSource::Stdout | windlass::guest::LineSource::Stderr => tracing::Level::INFO,
    }
}
