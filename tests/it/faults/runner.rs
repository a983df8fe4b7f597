//! Runs a row: a host with the culprit and three bystanders, probes all the while, and what is asserted of each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use windlass_core::time::Timestamp;
use windlass_tests::{Host, Launch, Scene, get};

use super::{How, Row};

/// Three plugins that do nothing, well, five times a second.
pub(crate) const BYSTANDERS: [&str; 3] = ["one", "two", "three"];
pub(crate) const PERIOD: Duration = Duration::from_millis(200);

/// How late bystanders may be: half of their runs, and every one. The larger is for a machine that has other things to do.
pub(crate) const MEDIAN: Duration = Duration::from_millis(150);
pub(crate) const WORST: Duration = Duration::from_millis(1_900);

/// How long a probe may take: what a kubelet waits by default.
pub(crate) const PROBE: Duration = Duration::from_secs(1);

/// A host with the culprit and the bystanders. `more` goes before `plugins`.
pub(crate) fn launch(scene: Scene, guests: &[&str], entry: &str, more: &str) -> Host {
    launch_as(scene, guests, entry, more, &Launch::default())
}

/// The same in another way than the usual one.
pub(crate) fn launch_as(scene: Scene, guests: &[&str], entry: &str, more: &str, launch: &Launch<'_>) -> Host {
    let scene = guests.iter().fold(scene.guest("succeeds"), |scene, guest| scene.guest(guest));
    let mut yaml = format!("{more}plugins:\n");
    if !entry.is_empty() {
        yaml += &format!("  culprit: {{ {entry} }}\n");
    }
    for name in BYSTANDERS {
        // `Allow`, so that one late run does not hide behind another: each that was due has to run.
        yaml += &format!(
            "  {name}: {{ source: file:succeeds.wasm, every: 200ms, concurrencyPolicy: Allow, maxConcurrent: 10 }}\n"
        );
    }
    scene.launch(&yaml, launch)
}

/// A host whose culprit runs once, and its bystanders, watched from when everything is loaded.
pub(crate) fn start(guests: &[&str], entry: &str) -> (Host, Bystanders) {
    let host = launch(Scene::new(), guests, &format!("{entry}, once: true, backoffLimit: 0"), "");
    host.wait_until_ready();
    let bystanders = Bystanders::watch(&host);
    (host, bystanders)
}

/// Brings a row's fault about, and asserts each of its cells.
pub(crate) fn check(row: &Row) {
    match row.how {
        How::Scene(scene) => scene(row),
        How::Plugin { guests, entry } => {
            for _ in 0..10 {
                let (host, bystanders) = start(guests, entry);
                let run = host.wait_for_run("culprit");
                bystanders.go_on_for(Duration::from_secs(1));
                bystanders.were_punctual(&host);
                if run["outcome"] == "DeadlineExceeded(Starved)" {
                    // Others on this machine had the CPU, and the host is right not to blame the culprit: that tells nothing of this row.
                    eprintln!("{}: starved, once more", row.fault);
                    continue;
                }
                return check_culprit(row, &host, &run);
            }
            panic!("{}: this machine is too busy", row.fault);
        }
    }
}

/// Asserts how the culprit's run ended, what is shown, and when it was over.
pub(crate) fn check_culprit(row: &Row, host: &Host, run: &Value) {
    assert_eq!(run["outcome"].as_str(), row.outcome, "{run}");
    let plugin = host.plugin("culprit");
    assert!(row.status.split(" or ").any(|status| plugin["status"] == status), "{plugin}");
    assert_eq!(plugin["running"].as_array().map(Vec::len), Some(0), "{plugin}");
    if let Some(reason) = row.reason {
        let shown = [&plugin["description"], &plugin["exception"], &run["refused"]].map(ToString::to_string).join(" ");
        let shown = shown.replace("\\\\", "\\");
        assert!(shown.contains(reason), "`{reason}` is not in {shown}");
        assert!(host.json("/health")["entries"]["culprit"].is_object());
    }
    let took = since(&run["due"], &run["ended"]);
    assert!(took <= row.well_within.as_secs_f64(), "{took} s: {run}");
    eprintln!("{}: gone {took:.3} s after it was due", row.fault);
}

/// Seconds from one moment of a report to another.
pub(crate) fn since(from: &Value, to: &Value) -> f64 {
    let at = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap().as_millisecond();
    (at(to) - at(from)) as f64 / 1e3
}

/// Watches bystanders and probes live, on a thread of its own.
pub(crate) struct Bystanders {
    began: Instant,
    before: [u64; 3],
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
    /// How late they may be.
    pub(crate) median: Duration,
    pub(crate) worst: Duration,
}

#[derive(Default)]
struct Seen {
    probes: u64,
    slowest: Duration,
    failed: Vec<String>,
    /// Seconds from due to ended, by run.
    late: BTreeMap<u64, f64>,
}

impl Bystanders {
    /// Begins.
    pub(crate) fn watch(host: &Host) -> Bystanders {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped) = (host.address().to_owned(), stop.clone());
        let before = BYSTANDERS.map(|name| succeeded(&host.plugin(name)));
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !stopped.load(Ordering::Relaxed) {
                seen.look(&address);
                std::thread::sleep(Duration::from_millis(25));
            }
            seen
        });
        Bystanders { began: Instant::now(), before, stop, thread, median: MEDIAN, worst: WORST }
    }

    pub(crate) fn watched_for(&self) -> Duration {
        self.began.elapsed()
    }

    /// Lets so much more time go by.
    pub(crate) fn go_on_for(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Ends, and asserts that every probe was answered in time, and that each bystander ran whenever it was due, hardly late.
    pub(crate) fn were_punctual(self, host: &Host) {
        // The runs of the last moment are shown a moment later.
        let elapsed = self.began.elapsed();
        let until = Instant::now() + self.worst;
        let due = (elapsed.as_secs_f64() / PERIOD.as_secs_f64()) as u64;
        for (name, before) in BYSTANDERS.iter().zip(self.before) {
            loop {
                let plugin = host.plugin(name);
                let runs = succeeded(&plugin) - before;
                // What was due while the host was stopped is told as such.
                let skipped = plugin["totals"]["skipped"].as_object().unwrap();
                assert!(skipped.keys().all(|reason| reason == "HostDown"), "{name}: {skipped:?}");
                assert_eq!(plugin["status"], "Healthy", "{plugin}");
                if runs + 2 >= due {
                    break;
                }
                assert!(Instant::now() < until, "{name}: {runs} runs where {due} were due");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().unwrap();
        assert!(seen.failed.is_empty(), "{:?}", seen.failed);
        let mut late: Vec<f64> = seen.late.values().copied().collect();
        late.sort_by(f64::total_cmp);
        let (median, worst) = (late[late.len() / 2], late[late.len() - 1]);
        eprintln!(
            "{} probes, the slowest {:?}; {} runs of bystanders over at most {worst} s after they were due, half of them {median} s",
            seen.probes,
            seen.slowest,
            late.len()
        );
        assert!(median <= self.median.as_secs_f64(), "half of the bystanders' runs were {median} s late");
        assert!(worst <= self.worst.as_secs_f64(), "a bystander's run was {worst} s late");
    }
}

fn succeeded(plugin: &Value) -> u64 {
    plugin["totals"]["runs"]["Succeeded"].as_u64().unwrap_or(0)
}

impl Seen {
    fn look(&mut self, address: &str) {
        let began = Instant::now();
        let answer = get(address, "/health/live");
        let took = began.elapsed();
        self.probes += 1;
        self.slowest = self.slowest.max(took);
        match answer {
            Ok((200, _)) if took <= PROBE => {}
            Ok((code, body)) => self.failed.push(format!("{code} after {took:?}: {body}")),
            Err(error) => self.failed.push(format!("{error} after {took:?}")),
        }
        // Ten runs are kept, which is two seconds.
        if !self.probes.is_multiple_of(16) && self.probes > 1 {
            return;
        }
        for name in BYSTANDERS {
            let Ok((200, body)) = get(address, &format!("/health/plugins/{name}")) else { continue };
            let plugin: Value = serde_json::from_str(&body).unwrap();
            for run in plugin["lastRuns"].as_array().unwrap() {
                let late = since(&run["due"], &run["ended"]);
                // Over a jump of the clock there is no telling.
                if late.abs() < 1_800.0 {
                    self.late.insert(run["run"].as_u64().unwrap(), late);
                }
            }
        }
    }
}
