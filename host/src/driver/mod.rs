//! The driver: the one loop between the supervisor, which decides, and the lanes, which act.
//!
//! It owns both, sleeps until a message or the supervisor's next wake-up, and decides nothing itself: it hands in what happened
//! with the time, does the actions that come out, and swaps in what health says now.

mod inbox;
mod run;
mod sampling;
mod slots;
mod waiting;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::core::event::{Action, Event, Sample, Start, Starved};
use crate::core::name::{Digest, PluginId, RunId};
use crate::core::outcome::{CancelReason, Ended, Outcome, Usage};
use crate::core::supervisor::Supervisor;
use crate::core::time::{Mono, Now, Timestamp};
use crate::escalations::Escalations;
use crate::guest::{self, Invocation, Lack, Ledger, Probe, Reservation, Toolbox};
use crate::health::Board;
use crate::lanes::priority::{Niceness, Role};
use crate::lanes::{Lanes, TaskHandle};
use crate::telemetry;
use crate::wedge::{self, Point};

pub use inbox::{Inbox, Message, Reply};
use run::{CheckWatcher, RunListener, RunWatcher};
use sampling::Sampling;
use slots::{Ready, Slots};
use waiting::{Waiting, WaitingRoom, What};

/// How old what health says may be while something changes: a bound on work, not on truth.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);

/// How often those that wait for memory are looked at, besides at each end of a run: memory comes back a little later than the end.
const ADMIT_EVERY: Duration = Duration::from_millis(20);

/// How long the driver looks away after it had something to do.
const NAP: Duration = Duration::from_micros(100);

/// How long the driver sleeps at most: a wait that does not end is then told from having nothing to do.
const BEAT_EVERY: Duration = Duration::from_millis(250);

/// CPU time that an author's health check may take.
const CHECK_CPU: Duration = Duration::from_secs(1);

/// The host's clock: monotonic from its own start, and the wall clock beside it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock { epoch: Instant::now() }
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        Now { mono: Mono::from_start(self.epoch.elapsed()), wall: wedge::wall(Timestamp::now()) }
    }
}

/// Loads a plugin's artifact again.
pub type OnReload = Box<dyn Fn(PluginId) + Send>;

/// What the driver works with.
pub struct Parts {
    /// Decides. Already knows all plugins.
    pub supervisor: Supervisor,
    /// Where runs are executed.
    pub lanes: Lanes,
    /// What runs are made with.
    pub toolbox: Arc<Toolbox>,
    /// The guests' memory and places.
    pub ledger: Arc<Ledger>,
    /// Where health is told.
    pub board: Arc<Board>,
    /// Where messages come from.
    pub inbox: Arc<Inbox>,
    /// The clock that the supervisor was started with.
    pub clock: Clock,
    /// Called where a person wants a plugin's artifact loaded again. Must not block.
    pub on_reload: OnReload,
    /// Where escalations are remembered; none where there is no `dataDir`.
    pub escalations: Option<Escalations>,
    /// How nice threads are, which the scheduler's thread must have.
    pub niceness: Niceness,
}

struct Running {
    probe: Arc<Probe>,
    task: TaskHandle,
}

/// See the module.
struct Driver {
    supervisor: Supervisor,
    lanes: Lanes,
    ledger: Arc<Ledger>,
    board: Arc<Board>,
    inbox: Arc<Inbox>,
    clock: Clock,
    on_reload: OnReload,
    escalations: Option<Escalations>,
    slots: Slots,
    running: HashMap<RunId, Running>,
    waiting: WaitingRoom,
    /// Health checks in progress, and when each is out of time.
    checks: HashMap<(PluginId, Digest), (Arc<Probe>, TaskHandle, Mono)>,
    check_deadlines: BTreeMap<(Mono, PluginId, Digest), ()>,
    draining: bool,
    published: Option<Mono>,
    dirty: bool,
}

/// Runs until a shutdown is drained. Call it on a thread of its own.
///
/// # Errors
/// If the thread has not the niceness of its role. Never for what a plugin does.
pub fn run(parts: Parts) -> Result<()> {
    let Parts { supervisor, lanes, toolbox, ledger, board, inbox, clock, on_reload, escalations, niceness } = parts;
    niceness.verify(Role::Host)?;
    let mut driver = Driver {
        supervisor,
        lanes,
        ledger,
        board,
        inbox,
        clock,
        on_reload,
        escalations,
        slots: Slots::new(toolbox),
        running: HashMap::new(),
        waiting: WaitingRoom::default(),
        checks: HashMap::new(),
        check_deadlines: BTreeMap::new(),
        draining: false,
        published: None,
        dirty: true,
    };
    driver.turn_until_drained()
}

/// Starts [`run`] on a thread named `scheduler`.
///
/// # Errors
/// If the thread cannot be spawned.
pub fn spawn(parts: Parts) -> Result<std::thread::JoinHandle<Result<()>>> {
    std::thread::Builder::new()
        .name("scheduler".to_owned())
        .spawn(move || run(parts))
        .context("starting the scheduler's thread")
}

impl Driver {
    fn turn_until_drained(&mut self) -> Result<()> {
        self.board.scheduler().register();
        let mut sampling = Sampling::new();
        let mut batch = VecDeque::new();
        let mut actions = Vec::new();
        loop {
            self.board.scheduler().enter();
            wedge::pass(Point::Scheduler);
            let now = self.clock.now();
            let had_messages = !batch.is_empty();
            for message in batch.drain(..) {
                self.take(message, now, &mut actions);
                self.dirty = true;
            }
            if now.mono >= sampling.at() && !self.running.is_empty() {
                self.sample(&mut sampling, now, &mut actions);
            }
            let due = self.supervisor.next_wakeup().is_some_and(|at| at <= now.mono);
            if due {
                self.supervisor.tick(now, &mut actions);
                self.dirty = true;
            }
            for action in actions.drain(..) {
                self.perform(action);
            }
            self.admit(now);
            self.end_late_checks(now.mono);
            self.publish(now);
            if self.draining && self.supervisor.is_idle() && self.running.is_empty() {
                self.board.publish(self.supervisor.snapshot(now));
                return Ok(());
            }
            if had_messages {
                // While much happens, a batch costs one wake-up instead of one for each message: what arrives during the nap wakes
                // nobody. A lone message is still seen at once.
                std::thread::sleep(NAP);
            }
            let patience = self.patience(sampling.at());
            self.board.scheduler().sleep(patience);
            wedge::pass(Point::SchedulerWait);
            self.inbox.take(&mut batch, patience);
        }
    }

    /// How long the driver may sleep if nothing arrives.
    fn patience(&self, sample_at: Mono) -> Duration {
        let publish = self.dirty.then(|| self.published.map_or(Mono::START, |at| at + PUBLISH_EVERY));
        let check = self.check_deadlines.first_key_value().map(|((at, ..), ())| *at);
        let now = self.clock.now().mono;
        let sample = (!self.running.is_empty()).then_some(sample_at);
        let next = [self.supervisor.next_wakeup(), publish, check, sample].into_iter().flatten().min();
        let most = if self.waiting.is_empty() { BEAT_EVERY } else { ADMIT_EVERY };
        next.map_or(most, |at| at.since(now).min(most))
    }

    /// Tells the supervisor what one part of the runs have used up.
    fn sample(&mut self, sampling: &mut Sampling, now: Now, actions: &mut Vec<Action>) {
        let part = sampling.next_part(self.running.len(), now.mono);
        for (run, Running { probe, task }) in self.running.iter().filter(|(run, _)| part.holds(**run)) {
            let meter = task.meter();
            let usage = Usage {
                fuel: probe.fuel(),
                cpu: meter.cpu(),
                elapsed: meter.elapsed(),
                starved: meter.waited(),
                memory_peak_bytes: probe.memory_peak_bytes(),
            };
            let waits = probe.waits();
            let sample = Sample {
                usage,
                waiting: waits.in_all,
                call: waits.call,
                in_call: waits.in_call,
                is_queued: meter.is_queued(),
                memory_bytes: probe.memory_bytes(),
                progress: probe.take_progress(),
            };
            self.supervisor.step(Event::Sampled { run: *run, sample: Box::new(sample) }, now, actions);
        }
        self.dirty = true;
    }

    /// Brings a message to the supervisor.
    fn take(&mut self, message: Message, now: Now, actions: &mut Vec<Action>) {
        match message {
            Message::Event(event) => self.tell(event, now, actions),
            Message::Configure { plugin, name, defaults, entry } => {
                for event in self.slots.configure(plugin, name, defaults, entry) {
                    self.tell(event, now, actions);
                }
            }
            Message::Prepared { plugin, manifest, version, prepared } => {
                if let Some(event) = self.slots.install(plugin, manifest, version, prepared) {
                    self.tell(event, now, actions);
                }
            }
            Message::ByHand { name, hand, reply } => reply(self.supervisor.by_hand(&name, hand, now, actions)),
            Message::Shutdown => {
                self.draining = true;
                self.tell(Event::Drain, now, actions);
            }
        }
    }

    fn tell(&mut self, event: Event, now: Now, actions: &mut Vec<Action>) {
        self.note_end(&event);
        self.supervisor.step(event, now, actions);
    }

    /// Forgets what has ended, before the supervisor starts the next.
    fn note_end(&mut self, event: &Event) {
        match event {
            Event::Ended { run, .. } => {
                self.running.remove(run);
            }
            Event::Checked { plugin, digest, .. } | Event::CheckStarved { plugin, digest } => {
                if let Some((_, _, deadline)) = self.checks.remove(&(*plugin, *digest)) {
                    self.check_deadlines.remove(&(deadline, *plugin, *digest));
                }
            }
            Event::Entry { .. }
            | Event::Removed { .. }
            | Event::Vanished { .. }
            | Event::Found { .. }
            | Event::Staged { .. }
            | Event::Reconfigured { .. }
            | Event::Configured { .. }
            | Event::Loading { .. }
            | Event::Loaded { .. }
            | Event::Refused { .. }
            | Event::Started { .. }
            | Event::Reported { .. }
            | Event::Progressed { .. }
            | Event::Triggered { .. }
            | Event::Starving { .. }
            | Event::Sampled { .. }
            | Event::HostFault { .. }
            | Event::Drain => {}
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Start(start) => {
                let (plugin, digest) = (start.plugin, start.digest);
                self.wait_with(plugin, digest, What::Run { start: Box::new(start), told: false });
            }
            Action::Check { plugin, digest, timeout } => {
                // One that is still in progress answers for both.
                if !self.checks.contains_key(&(plugin, digest)) {
                    self.wait_with(plugin, digest, What::Check { plugin, digest, timeout });
                }
            }
            Action::Retire { plugin, digest } => self.slots.retire(plugin, &digest),
            Action::Reload { plugin } => (self.on_reload)(plugin),
            Action::Forget { plugin } => self.slots.forget(plugin),
            Action::Ask { run } => {
                if let Some(running) = self.running.get(&run) {
                    running.probe.ask_to_end();
                }
            }
            Action::Kill { run, outcome, reason } => {
                if let Some(running) = self.running.get(&run) {
                    running.probe.kill_as(outcome, reason);
                    running.task.kill();
                } else if self.waiting.remove(run) {
                    self.ended_unstarted(run, outcome, reason);
                }
            }
            Action::Escalated(escalated) => {
                if let Some(memory) = &self.escalations {
                    memory.remember(escalated);
                }
            }
            Action::Note(note) => telemetry::note(&note),
        }
    }

    /// Queues what is to run for memory and a place; it begins in [`Driver::admit`], at once where there is room.
    fn wait_with(&mut self, plugin: PluginId, digest: Digest, what: What) {
        match (self.slots.ready(plugin, &digest, &self.lanes), what) {
            (Some(ready), what) => self.waiting.push(Waiting { what, ready }),
            // The supervisor starts nothing of a version that has not been installed.
            (None, What::Run { start, .. }) => {
                self.ended_unstarted(start.run, Outcome::Lost, "it has no code".to_owned());
            }
            (None, What::Check { .. }) => {
                let result = Err("it has no code".to_owned());
                self.inbox.send(Message::Event(Event::Checked { plugin, digest, result }));
            }
        }
    }

    fn ended_unstarted(&self, run: RunId, outcome: Outcome, reason: String) {
        let ended = Ended { outcome, reason, refusals: Vec::new(), exit_code: None, usage: Usage::default() };
        self.inbox.send(Message::Event(Event::Ended { run, ended }));
    }

    /// Lets in whoever waits and fits.
    fn admit(&mut self, now: Now) {
        /// How many who do not fit are looked past at a time.
        const PATIENCE: usize = 64;
        let mut index = 0;
        while let Some(waiting) = self.waiting.get(index) {
            let prepared = &waiting.ready.executable.prepared;
            match self.ledger.admit(&waiting.ready.holder, prepared.min_memory_bytes, prepared.memories) {
                Ok(reservation) => {
                    if let Some(waiting) = self.waiting.take(index) {
                        self.launch(waiting, reservation, now);
                    }
                }
                Err(lack) => {
                    self.tell_starving(index, lack);
                    index += 1;
                    // No place for one is no place for all; memory may do for a smaller one further back.
                    if lack == Lack::Slots || index > PATIENCE {
                        return;
                    }
                }
            }
        }
    }

    fn tell_starving(&mut self, index: usize, lack: Lack) {
        let Some(run) = self.waiting.tell(index) else { return };
        let of = match lack {
            Lack::Memory => Starved::Memory { held_by: self.ledger.largest_holders(3) },
            Lack::Slots => Starved::Slots,
        };
        self.inbox.send(Message::Event(Event::Starving { run, of: Some(of) }));
    }

    fn launch(&mut self, waiting: Waiting, reservation: Reservation, now: Now) {
        let Waiting { what, ready } = waiting;
        match what {
            What::Run { start, told } => {
                if told {
                    self.inbox.send(Message::Event(Event::Starving { run: start.run, of: None }));
                }
                self.launch_run(*start, ready, reservation);
            }
            What::Check { plugin, digest, timeout } => {
                self.launch_check((now.mono + timeout, plugin, digest), ready, reservation);
            }
        }
    }

    fn launch_run(&mut self, start: Start, ready: Ready, reservation: Reservation) {
        let Ready { executable, group, holder: _, config } = ready;
        let Start { run, plugin: _, version, digest: _, attempt, trigger, due, due_mono, made_up, time_left, payload } =
            start;
        let listener = Arc::new(RunListener {
            inbox: self.inbox.clone(),
            plugin: config.name.clone(),
            run,
            attempt,
            counts: true,
        });
        let probe = Probe::new(listener, executable.grants.fuel, executable.grants.log_bytes);
        let watcher = Arc::new(RunWatcher {
            inbox: self.inbox.clone(),
            board: self.board.clone(),
            probe: probe.clone(),
            run,
            due: (attempt == 1).then_some(due_mono),
            epoch: self.clock.epoch,
        });
        let invocation = Invocation {
            run: run.0.to_string(),
            plugin: config.name.to_string(),
            version: version.0,
            attempt,
            trigger,
            due_ms: u64::try_from(due.as_millisecond()).unwrap_or(0),
            made_up,
            time_left,
            payload: payload.bytes,
            content_type: payload.content_type,
        };
        let work = guest::attempt(executable, reservation, invocation, probe.clone());
        let task = self.lanes.spawn(&group, work, watcher, config.limits.cpu);
        self.running.insert(run, Running { probe, task });
    }

    fn launch_check(&mut self, key: (Mono, PluginId, Digest), ready: Ready, reservation: Reservation) {
        let (deadline, plugin, digest) = key;
        let Ready { executable, group, holder: _, config } = ready;
        let listener = Arc::new(RunListener {
            inbox: self.inbox.clone(),
            plugin: config.name.clone(),
            run: RunId(0),
            attempt: 0,
            counts: false,
        });
        let probe = Probe::new(listener, executable.grants.fuel, executable.grants.log_bytes);
        let answer = Arc::new(Mutex::new(None));
        let work = guest::check(executable, reservation, probe.clone(), answer.clone());
        let watcher =
            Arc::new(CheckWatcher { inbox: self.inbox.clone(), probe: probe.clone(), plugin, digest, answer });
        let task = self.lanes.spawn(&group, work, watcher, Some(CHECK_CPU));
        self.checks.insert((plugin, digest), (probe, task, deadline));
        self.check_deadlines.insert(key, ());
    }

    fn end_late_checks(&mut self, now: Mono) {
        while let Some(entry) = self.check_deadlines.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, plugin, digest), ()) = entry.remove_entry();
            if let Some((probe, task, _)) = self.checks.get(&(plugin, digest)) {
                probe.kill_as(
                    Outcome::DeadlineExceeded { starved: false },
                    "the health check did not answer within checkTimeoutSeconds".to_owned(),
                );
                task.kill();
            }
        }
    }

    fn publish(&mut self, now: Now) {
        let due = self.published.is_none_or(|at| now.mono.since(at) >= PUBLISH_EVERY);
        if self.dirty && (due || self.draining) {
            self.dirty = false;
            self.published = Some(now.mono);
            self.board.publish(self.supervisor.snapshot(now));
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Whatever is still there when the driver goes is ended with it; nobody is left to hear of it.
        for running in self.running.values() {
            running.probe.kill_as(Outcome::Cancelled(CancelReason::HostShutdown), String::new());
            running.task.kill();
        }
    }
}
