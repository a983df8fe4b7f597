//! A seeded simulation: years of schedule in a second. First with faults, and everything stays safe; then without, and everything
//! recovers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test may stop here"
)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use windlass_core::backoff;
use windlass_core::config::{Concurrency, Config, Plugin, Trigger, resolve};
use windlass_core::event::{Action, Chosen, Entry, Event, Hand, LoadedVersion, Note, Payload, Sample, Start};
use windlass_core::health::{Report, Snapshot, State, Status};
use windlass_core::name::{Digest, PluginId, PluginName, RunId};
use windlass_core::outcome::{CancelReason, Ended, Failure, MemoryLimit, Outcome, Usage};
use windlass_core::supervisor::Supervisor;
use windlass_core::time::{Mono, Now};
use windlass_core::verdict::HostCall;

const PLUGINS: &str = "
plugins:
  fast: { source: file:a, every: 1m, backoffLimit: 1 }
  slow: { source: file:a, every: 1h, backoffLimit: 3, activeDeadlineSeconds: 300 }
  daily: { source: file:a, every: 24h, health: { failureThreshold: 1 } }
  many: { source: file:a, every: 5m, concurrencyPolicy: Allow, maxConcurrent: 3 }
  newest: { source: file:a, every: 7m, concurrencyPolicy: Replace }
  always: { source: file:a, continuous: true, restartDelaySeconds: 60 }
  first: { source: file:a, once: true }
  hand: { source: file:a, attemptDeadlineSeconds: 20 }
  loud: { source: file:a, every: 3m, health: { escalate: OnUnhealthy, failureThreshold: 2 } }
  still: { source: file:a, every: 1h, suspend: true }
  late: { source: file:a, every: 10m, startingDeadlineSeconds: 3 }
  tried: { source: file:a, every: 11m, trial: OneRun, probation: { runs: 2 } }
";

/// An attempt as the shell would have it.
struct Attempt {
    start: Start,
    began: Option<Mono>,
    /// When it ends by itself, and how.
    ends: (Mono, Outcome),
    killed: Option<Outcome>,
}

struct Simulation {
    random: fastrand::Rng,
    faults: bool,
    supervisor: Supervisor,
    now: Now,
    plugins: BTreeMap<PluginId, Arc<Plugin>>,
    attempts: HashMap<RunId, Attempt>,
    /// The last attempt's number of runs that are between two.
    seen: HashMap<RunId, u32>,
    /// The code that the shell holds.
    code: HashSet<(PluginId, Digest)>,
    /// On which version each run began.
    began_on: HashMap<RunId, Digest>,
    over: HashSet<RunId>,
    /// When each artifact of a plugin turned `/health/live` red last.
    escalated: HashMap<(PluginName, Digest), Mono>,
    starts: u64,
    draining: bool,
    trace: Vec<String>,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let now = Now { mono: Mono::from_start(Duration::from_secs(1)), wall: "2026-01-01T00:00:00Z".parse().unwrap() };
        let mut supervisor = Supervisor::new(seed, Duration::from_secs(25), now);
        let config = Config::from_yaml(PLUGINS).unwrap();
        let mut plugins = BTreeMap::new();
        for (name, entry) in &config.plugins {
            let plugin = Arc::new(resolve(name, None, &config.defaults, entry.as_ref().unwrap()).unwrap());
            plugins.insert(supervisor.add(plugin.clone(), now), plugin);
        }
        // Of some plugins a host before chose another version than the one that is loaded first, or that one.
        let mut random = fastrand::Rng::with_seed(!seed);
        let chosen = plugins.values().filter_map(|plugin| {
            let (runs, instead_of) = (random.u8(1..4), random.u8(1..4));
            let bad = random.bool().then(|| "it broke".to_owned());
            let digest = |number| (Digest([number; 32]), None);
            let plugin = plugin.name.clone();
            (runs != instead_of).then(|| Chosen { plugin, runs: digest(runs), instead_of: digest(instead_of), bad })
        });
        supervisor.remember_choices(chosen.collect::<Vec<_>>());
        let mut simulation = Simulation {
            random: fastrand::Rng::with_seed(seed),
            faults: true,
            supervisor,
            now,
            plugins,
            attempts: HashMap::new(),
            seen: HashMap::new(),
            code: HashSet::new(),
            began_on: HashMap::new(),
            over: HashSet::new(),
            escalated: HashMap::new(),
            starts: 0,
            draining: false,
            trace: Vec::new(),
        };
        for plugin in simulation.plugins.keys().copied().collect::<Vec<_>>() {
            simulation.load(plugin, 1);
        }
        simulation
    }

    /// A version has been compiled.
    fn load(&mut self, plugin: PluginId, number: u8) {
        let has_check = self.random.bool();
        let wants = if self.faults && self.random.u8(..8) == 0 { vec!["http".to_owned()] } else { Vec::new() };
        let digest = Digest([number; 32]);
        let version = LoadedVersion { digest, author_version: None, has_check, wants: wants.into() };
        self.code.insert((plugin, digest));
        let config = self.plugins[&plugin].clone();
        self.tell(Event::Loaded { plugin, config, version: Arc::new(version) });
    }

    /// Whatever may happen to an artifact, its entry or its versions.
    fn swap_something(&mut self) {
        let ids: Vec<PluginId> = self.plugins.keys().copied().collect();
        let plugin = ids[self.random.usize(..ids.len())];
        let number = self.random.u8(1..6);
        let name = self.plugins[&plugin].name.clone();
        match self.random.u8(..8) {
            0..4 => {
                self.tell(Event::Found { plugin });
                self.load(plugin, number);
            }
            4 => self.tell(Event::Refused { plugin, digest: None, reason: "no good".to_owned() }),
            5 => {
                let mut actions = Vec::new();
                let hand = if self.random.bool() { Hand::Swap } else { Hand::Rollback };
                // Mostly there is nothing to swap to, and it says so.
                let _ = self.supervisor.by_hand(name.as_str(), hand, self.now, &mut actions);
                self.perform(actions);
            }
            6 => {
                self.tell(Event::Vanished { plugin, reason: "gone".to_owned() });
                self.load(plugin, number);
            }
            _ => {
                self.tell(Event::Removed { plugin });
                // An entry that was taken out and comes back begins anew.
                self.escalated.retain(|(of, _), _| *of != name);
                let config = self.plugins[&plugin].clone();
                let (source, entry) = (Arc::from("file:a"), Entry::Wanted(config));
                self.tell(Event::Entry { plugin, name, source, entry });
                self.load(plugin, number);
            }
        }
    }

    fn tell(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.supervisor.step(event, self.now, &mut actions);
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.trace.push(format!("{action:?}"));
            match action {
                Action::Start(start) => self.start(start),
                Action::Ask { run } => {
                    // Most obey, soon.
                    let obeys = !self.faults || self.random.u8(..4) > 0;
                    let soon = self.now.mono + Duration::from_millis(self.random.u64(1..2_000));
                    if let Some(attempt) = self.attempts.get_mut(&run).filter(|_| obeys) {
                        attempt.ends = (soon.min(attempt.ends.0), Outcome::Cancelled(CancelReason::Replaced));
                    }
                }
                Action::Kill { run, outcome, .. } => {
                    let attempt = self.attempts.get_mut(&run).expect("only what runs is killed");
                    assert!(attempt.killed.is_none(), "killed twice");
                    attempt.killed = Some(outcome.clone());
                    attempt.ends = (self.now.mono, outcome);
                }
                Action::Check { plugin, digest, .. } => {
                    let status = [Status::Healthy, Status::Degraded, Status::Unhealthy][self.random.usize(..3)];
                    let status = if self.faults { status } else { Status::Healthy };
                    let report = Report { status, description: "checked".to_owned(), data: Vec::new() };
                    let result =
                        if self.faults && self.random.u8(..5) == 0 { Err("trapped".to_owned()) } else { Ok(report) };
                    match self.faults && self.random.u8(..5) == 0 {
                        true => self.tell(Event::CheckStarved { plugin, digest }),
                        false => self.tell(Event::Checked { plugin, digest, result }),
                    }
                }
                Action::Note(Note::AttemptEnded { run, retry_at, attempt, ended, .. }) => match retry_at {
                    Some(at) => {
                        let pause = at.duration_since(self.now.wall);
                        let longest = match ended.outcome {
                            Outcome::Failed(Failure::Transient { retry_after: Some(_) }) => backoff::ASKED.1,
                            _ => backoff::LONGEST.mul_f64(1.2),
                        };
                        assert!(pause.unsigned_abs() <= longest + Duration::from_millis(1), "{pause:?}");
                        assert!(pause.is_positive());
                        self.seen.insert(run, attempt);
                    }
                    None => {
                        self.over.insert(run);
                    }
                },
                Action::Retire { plugin, digest } => {
                    let in_use = |attempt: &Attempt| (attempt.start.plugin, attempt.start.digest) == (plugin, digest);
                    assert!(!self.attempts.values().any(in_use), "code is let go that runs");
                    assert!(self.code.remove(&(plugin, digest)), "code is let go twice");
                }
                Action::Forget { plugin } => {
                    assert!(!self.attempts.values().any(|attempt| attempt.start.plugin == plugin), "it still runs");
                    self.code.retain(|(of, _)| *of != plugin);
                }
                Action::Escalated(escalated) => {
                    let now = self.now.mono;
                    let plugin = self.plugins.values().find(|plugin| plugin.name == escalated.plugin).unwrap();
                    assert!(plugin.health.escalate, "only where an operator asked for it");
                    if let Some(last) = self.escalated.insert((escalated.plugin, escalated.digest), now) {
                        assert!(now.since(last) >= plugin.health.escalate_every, "too soon after the last time");
                    }
                }
                Action::Recall { plugin, digest } if self.random.u8(..4) > 0 => {
                    self.code.insert((plugin, digest));
                    let version =
                        LoadedVersion { digest, author_version: None, has_check: false, wants: Arc::from([]) };
                    let config = self.plugins[&plugin].clone();
                    self.tell(Event::Recalled { plugin, config, version: Arc::new(version) });
                }
                Action::Recall { plugin, digest } => {
                    self.tell(Event::NotRecalled { plugin, digest, reason: "it is gone".to_owned() });
                }
                Action::Choice { chosen, .. } => {
                    let is_one = |chosen: &Chosen| chosen.runs.0 == chosen.instead_of.0;
                    assert!(!chosen.as_ref().is_some_and(is_one), "it was decided against what runs");
                }
                Action::Reload { .. } | Action::Note(_) => {}
            }
        }
    }

    fn start(&mut self, start: Start) {
        assert!(!self.draining, "nothing starts in a drain");
        assert!(!self.attempts.contains_key(&start.run), "a run starts once at a time");
        assert!(!self.over.contains(&start.run), "what is over does not come back");
        let expected = self.seen.get(&start.run).map_or(1, |attempt| attempt + 1);
        assert_eq!(start.attempt, expected, "attempts are counted without gaps");
        self.seen.insert(start.run, start.attempt);
        assert!(self.code.contains(&(start.plugin, start.digest)), "a version runs that was let go");
        let version = *self.began_on.entry(start.run).or_insert(start.digest);
        assert_eq!(version, start.digest, "a run ends on the version that it began with");
        self.starts += 1;
        let plugin = &self.plugins[&start.plugin];
        let most = match plugin.concurrency {
            Concurrency::Allow(most) => most as usize,
            Concurrency::Forbid | Concurrency::Replace => 1,
        };
        let running = self.attempts.values().filter(|attempt| attempt.start.plugin == start.plugin).count();
        assert!(running < most, "{} runs more often than it may", plugin.name);
        assert!(!plugin.suspend, "{} is suspended", plugin.name);
        let outcome = match (self.faults, self.random.u8(..20)) {
            (false, _) | (true, 0..6) => Outcome::Succeeded,
            (true, 6..9) => Outcome::Failed(Failure::Transient { retry_after: None }),
            (true, 9) => {
                Outcome::Failed(Failure::Transient { retry_after: Some(Duration::from_secs(self.random.u64(..9_000))) })
            }
            (true, 10) => Outcome::Failed(Failure::Permanent),
            (true, 11..13) => Outcome::Trapped,
            (true, 13) => Outcome::OutOfMemory(MemoryLimit::Host),
            (true, 14) => Outcome::OutOfMemory(MemoryLimit::Plugin),
            (true, 15) => Outcome::OutOfFuel,
            (true, 16) => Outcome::OutOfCpu,
            (true, _) => Outcome::Denied,
        };
        let seconds = if self.faults && self.random.u8(..10) == 0 { 4_000_000 } else { 2_000 };
        let takes = Duration::from_millis(self.random.u64(0..seconds));
        let ends = (self.now.mono + takes, outcome);
        self.attempts.insert(start.run, Attempt { start, began: None, ends, killed: None });
    }

    /// Goes to the next thing that happens, and lets it happen.
    fn go_on(&mut self) {
        let end = self.attempts.values().map(|attempt| attempt.ends.0).min();
        let Some(next) = end.into_iter().chain(self.supervisor.next_wakeup()).min() else { return };
        let by = next.since(self.now.mono);
        self.now.mono = self.now.mono + by;
        self.now.wall += by;
        if self.faults && self.random.u8(..50) == 0 {
            // The wall clock jumps, and nothing depends on it.
            let jump = Duration::from_secs(self.random.u64(..7_200));
            self.now.wall = if self.random.bool() { self.now.wall + jump } else { self.now.wall - jump };
        }
        let due: Vec<RunId> =
            self.attempts.iter().filter(|(_, attempt)| attempt.ends.0 <= self.now.mono).map(|(run, _)| *run).collect();
        let mut due = due;
        due.sort();
        for run in due {
            self.end(run);
        }
        let running: Vec<RunId> = {
            let mut running: Vec<_> = self.attempts.keys().copied().collect();
            running.sort();
            running
        };
        for run in running {
            self.live(run);
        }
        if self.faults && self.random.u8(..20) == 0 {
            let hand =
                self.plugins.iter().find(|(_, plugin)| plugin.trigger == Trigger::Manual).map(|(id, _)| *id).unwrap();
            self.tell(Event::Triggered { plugin: hand, payload: Payload::default() });
        }
        if self.faults && self.random.u8(..30) == 0 {
            self.swap_something();
        }
        let mut actions = Vec::new();
        self.supervisor.tick(self.now, &mut actions);
        self.perform(actions);
        assert!(self.supervisor.next_wakeup().is_none_or(|next| next > self.now.mono), "a busy loop");
    }

    /// What happens to an attempt while it goes on.
    fn live(&mut self, run: RunId) {
        let chance = self.random.u8(..8);
        let Some(attempt) = self.attempts.get_mut(&run) else { return };
        match (attempt.began, chance) {
            (None, 0..6) => {
                attempt.began = Some(self.now.mono);
                self.tell(Event::Started { run });
            }
            (Some(began), 2..5) => {
                let elapsed = self.now.mono.since(began);
                let cpu = if self.random.bool() { elapsed / 2 } else { Duration::ZERO };
                let starved = if self.faults { elapsed / 3 } else { Duration::ZERO };
                let sample = Sample {
                    usage: Usage { elapsed, cpu, starved, ..Usage::default() },
                    waiting: elapsed / 4,
                    call: Some(HostCall::ALL[self.random.usize(..HostCall::ALL.len())]),
                    in_call: self.random.bool().then_some(elapsed / 8),
                    is_queued: self.random.bool(),
                    ..Sample::default()
                };
                self.tell(Event::Sampled { run, sample: Box::new(sample) });
            }
            (Some(_), 0) => self.tell(Event::Progressed { run }),
            (Some(_), 1) => {
                let status = if self.faults { Status::Degraded } else { Status::Healthy };
                let report = Report { status, description: "so so".to_owned(), data: Vec::new() };
                self.tell(Event::Reported { run, report });
            }
            _ => {}
        }
    }

    fn end(&mut self, run: RunId) {
        let attempt = self.attempts.remove(&run).unwrap();
        let elapsed = attempt.began.map_or(Duration::ZERO, |began| self.now.mono.since(began));
        let starved = if self.faults && self.random.bool() { elapsed.mul_f64(0.6) } else { Duration::ZERO };
        let usage = Usage { elapsed, starved, cpu: elapsed / 2, fuel: 1, memory_peak_bytes: 1 };
        let outcome = attempt.killed.unwrap_or(attempt.ends.1);
        let ended = Ended { outcome, reason: "because".to_owned(), refusals: Vec::new(), exit_code: None, usage };
        self.tell(Event::Ended { run, ended: ended.clone() });
        // What comes twice changes nothing.
        self.tell(Event::Ended { run: RunId(u64::MAX), ended });
    }

    fn snapshot(&mut self) -> Snapshot {
        self.supervisor.snapshot(self.now)
    }

    fn drain(&mut self) {
        self.tell(Event::Drain);
        self.draining = true;
        for _ in 0..10_000 {
            if self.supervisor.is_idle() {
                break;
            }
            self.go_on();
        }
        assert!(self.supervisor.is_idle() && self.attempts.is_empty(), "a drain ends");
    }
}

/// How many seeds each test takes: `PROPTEST_CASES` for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_faults_everything_stays_safe_and_without_it_recovers(seed in any::<u64>()) {
        let mut simulation = Simulation::new(seed);
        for _ in 0..4_000 {
            simulation.go_on();
        }
        prop_assert!(simulation.starts > 100);

        // No more faults: within two days of schedule everything that can recover has, each on a good version.
        simulation.faults = false;
        for plugin in simulation.plugins.keys().copied().collect::<Vec<_>>() {
            simulation.load(plugin, 9);
        }
        for attempt in simulation.attempts.values_mut() {
            attempt.ends = (simulation.now.mono, Outcome::Succeeded);
        }
        let until = simulation.now.mono + Duration::from_secs(49 * 3600);
        while simulation.now.mono < until {
            simulation.go_on();
        }
        for view in simulation.snapshot().plugins.iter() {
            let may_stay = ["first", "hand"].contains(&view.name.as_str()) || view.state == State::Suspended;
            // A run of two thousand seconds may be silent for longer than a version on probation can afford: it runs on its old one.
            let may_stay = may_stay || view.description.contains("was rolled back");
            prop_assert!(may_stay || view.status == Status::Healthy, "{}: {} {:?}", view.name, view.description, view.state);
        }
        // Each start that took place is over, or in progress, and nothing was forgotten.
        let in_progress: HashSet<RunId> = simulation.attempts.keys().copied().collect();
        let paused: HashSet<RunId> = simulation
            .snapshot()
            .plugins
            .iter()
            .flat_map(|view| view.running.iter().map(|run| run.run).collect::<Vec<_>>())
            .collect();
        for run in simulation.seen.keys() {
            prop_assert!(simulation.over.contains(run) || in_progress.contains(run) || paused.contains(run), "{run:?} is forgotten");
        }
        simulation.drain();
    }

    #[test]
    fn the_same_events_give_the_same_actions_and_the_same_report(seed in any::<u64>()) {
        let run = || {
            let mut simulation = Simulation::new(seed);
            for _ in 0..500 {
                simulation.go_on();
            }
            let report = format!("{:?}", simulation.snapshot().plugins);
            (simulation.trace, report)
        };
        let (first, second) = (run(), run());
        prop_assert_eq!(first, second);
    }

    #[test]
    fn a_drain_at_any_moment_ends(seed in any::<u64>(), after in 0..300_u32) {
        let mut simulation = Simulation::new(seed);
        for _ in 0..after {
            simulation.go_on();
        }
        simulation.drain();
    }
}

#[test]
fn ten_years_of_a_busy_schedule_take_a_moment() {
    let now = Now { mono: Mono::from_start(Duration::from_secs(1)), wall: "2026-01-01T00:00:00Z".parse().unwrap() };
    let mut supervisor = Supervisor::new(1, Duration::from_secs(25), now);
    let config = Config::from_yaml("plugins:\n  p: { source: file:a, every: 1h }\n").unwrap();
    let (name, entry) = config.plugins.iter().next().unwrap();
    let plugin = Arc::new(resolve(name, None, &config.defaults, entry.as_ref().unwrap()).unwrap());
    let (id, config) = (supervisor.add(plugin.clone(), now), plugin);
    let version =
        LoadedVersion { digest: Digest([1; 32]), author_version: None, has_check: false, wants: Arc::from([]) };
    let version = Arc::new(version);
    let (mut now, mut actions, mut runs) = (now, Vec::new(), 0);
    supervisor.step(Event::Loaded { plugin: id, config, version }, now, &mut actions);
    while now.mono.since_start() < Duration::from_secs(10 * 365 * 86_400) {
        for action in std::mem::take(&mut actions) {
            if let Action::Start(start) = action {
                runs += 1;
                let usage = Usage::default();
                let ended = Ended {
                    outcome: Outcome::Succeeded,
                    reason: String::new(),
                    refusals: Vec::new(),
                    exit_code: None,
                    usage,
                };
                supervisor.step(Event::Ended { run: start.run, ended }, now, &mut actions);
            }
        }
        let by = supervisor.next_wakeup().unwrap().since(now.mono);
        now = Now { mono: now.mono + by, wall: now.wall + by };
        supervisor.tick(now, &mut actions);
    }
    assert!((87_599..=87_601).contains(&runs), "{runs}");
}
