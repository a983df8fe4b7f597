//! The soak: plugins are swapped, broken, put back and removed at random under load, and in the end every run is accounted for.
//!
//! `WINDLASS_LONG=1` for several minutes of it, `WINDLASS_SEED` for the course of an earlier one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use windlass_tests::schedule::Count;
use windlass_tests::telling::{Between, Told, telling, told};
use windlass_tests::{Host, Scene, is_long};

/// What is swapped: these stay for the whole time, so that each due time can be counted; of the others the files go and come.
const STAY: [&str; 3] = ["stays-a", "stays-b", "stays-c"];
const COME_AND_GO: [&str; 3] = ["goes-a", "goes-b", "goes-c"];
const PERIOD_MS: f64 = 100.0;
const NEIGHBOURS: usize = 24;

/// Says with which seed it failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the soak failed with WINDLASS_SEED={}", self.0);
        }
    }
}

struct Soak {
    random: fastrand::Rng,
    host: Host,
    admin: String,
    plugins: PathBuf,
    /// The last version that was written anywhere.
    version: u32,
    /// What was done, by kind.
    done: BTreeMap<&'static str, u32>,
}

#[test]
fn whatever_is_swapped_every_run_is_accounted_for() {
    let seed = std::env::var("WINDLASS_SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    let seed = Seed(seed);
    let time = if is_long() { Duration::from_secs(270) } else { Duration::from_secs(12) };
    let mut soak = Soak::start(seed.0);
    let first: Vec<Count> = STAY.map(|name| soak.count(name)).into();
    let began = Instant::now();
    while began.elapsed() < time {
        soak.act();
        std::thread::sleep(Duration::from_millis(soak.random.u64(20..400)));
        assert_eq!(soak.host.get("/health/live").0, 200);
    }
    soak.settle();
    for (name, first) in STAY.into_iter().zip(first) {
        soak.each_due_time_is_accounted_for(name, &first);
    }
    eprintln!("seed {}: {:?} in {:?}", seed.0, soak.done, began.elapsed());
    soak.each_run_is_accounted_for();
}

impl Soak {
    fn start(seed: u64) -> Soak {
        let mut scene = Scene::new().guest("spins");
        let mut yaml = format!("dataDir: {}\ndrainSeconds: 2\nplugins:\n", scene.path().join("data").display());
        let names: Vec<&str> = STAY.into_iter().chain(COME_AND_GO).collect();
        for (number, name) in (1..).zip(&names) {
            scene = scene.file(&format!("{name}.wasm"), &telling(number, Between::Works));
            // Each kind of life: with and without a trial, and several at once.
            let more = match number % 3 {
                0 => "trial: OneRun",
                1 => "probation: { runs: 2 }",
                _ => "concurrencyPolicy: Allow, maxConcurrent: 3",
            };
            yaml += &format!(
                "  {name}: {{ source: file:{name}.wasm, every: 100ms, backoffLimit: 0, limits: {{ cpuSeconds: 0.1 }}, {more} }}\n"
            );
        }
        for number in 0..NEIGHBOURS {
            yaml += &format!("  n{number}: {{ source: file:spins.wasm, continuous: true }}\n");
        }
        let plugins = scene.plugins();
        let mut host = scene.run(&yaml);
        host.wait_until_ready();
        for name in &names {
            host.wait_for_run(name);
        }
        let admin = host.admin();
        let version = u32::try_from(names.len()).unwrap();
        Soak { random: fastrand::Rng::with_seed(seed), host, admin, plugins, version, done: BTreeMap::new() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.plugins.join(format!("{name}.wasm"))
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let beside = self.plugins.join(format!("{name}.new"));
        fs::write(&beside, bytes).unwrap();
        fs::rename(&beside, self.file(name)).unwrap();
    }

    fn next(&mut self, between: Between) -> Vec<u8> {
        self.version += 1;
        telling(self.version, between)
    }

    /// Does something to one of the plugins.
    fn act(&mut self) {
        let may_go = self.random.bool();
        let name = if may_go { COME_AND_GO[self.random.usize(..3)] } else { STAY[self.random.usize(..3)] };
        let what = match self.random.u8(..20) {
            0..8 => {
                let bytes = self.next(Between::Works);
                self.put(name, &bytes);
                "swapped"
            }
            8..10 => {
                let bytes = self.next(Between::Traps);
                self.put(name, &bytes);
                "broken"
            }
            10..12 => {
                let bytes = self.next(Between::Spins);
                self.put(name, &bytes);
                "looping"
            }
            12 => {
                self.put(name, b"\0asm, or so it says");
                "garbage"
            }
            13 => {
                let bytes = self.next(Between::Works);
                self.put(name, &bytes[..bytes.len() / 2]);
                "half"
            }
            14 => {
                self.write_slowly(name);
                "written in place"
            }
            15 => {
                self.by_hand(name, "rollback");
                "rolled back by hand"
            }
            16 => {
                self.by_hand(name, "swap");
                "swapped by hand"
            }
            17..20 if may_go => {
                // It may be gone already.
                let _ = fs::remove_file(self.file(name));
                "removed"
            }
            _ => {
                let away = self.plugins.with_extension("away");
                fs::rename(&self.plugins, &away).unwrap();
                std::thread::sleep(Duration::from_millis(100));
                fs::rename(&away, &self.plugins).unwrap();
                "folder gone for a moment"
            }
        };
        *self.done.entry(what).or_default() += 1;
    }

    fn write_slowly(&mut self, name: &str) {
        let bytes = self.next(Between::Works);
        let mut file = fs::File::create(self.file(name)).unwrap();
        for part in bytes.chunks(bytes.len() / 3) {
            file.write_all(part).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks as `windlass swap` and `rollback` do. Mostly there is nothing to be done, and the host says so.
    fn by_hand(&self, name: &str, verb: &str) {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let request = format!("POST /plugins/{name}/{verb} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let code = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["200", "409"].contains(&code), "{answer}");
    }

    /// A good file for each: whatever was done before, all come to run it.
    fn settle(&mut self) {
        let mut last = BTreeMap::new();
        for name in STAY.into_iter().chain(COME_AND_GO) {
            let bytes = self.next(Between::Works);
            self.put(name, &bytes);
            last.insert(name, digest_of(&bytes));
        }
        for (name, digest) in last {
            self.host.wait_for(name, |plugin| {
                let is_it = plugin["version"]["digest"] == digest && plugin["status"] == "Healthy";
                is_it && plugin["lastRuns"][0]["version"] == plugin["version"]["number"]
            });
        }
    }

    fn count(&self, name: &str) -> Count {
        Count::of(&self.host.plugin(name))
    }

    /// Each start that was due took place, or was skipped with a reason. Trial runs are more than the schedule has.
    fn each_due_time_is_accounted_for(&mut self, name: &str, first: &Count) {
        let last = self.count(name);
        let due = last.due_since(first, PERIOD_MS);
        let plugin = self.host.plugin(name);
        let accounted = last.accounted - first.accounted;
        eprintln!("{name}: {due} were due, {} of them skipped", last.skipped - first.skipped);
        assert!(due > 50.0, "{plugin:#}");
        let trials =
            self.host.lines().iter().filter(|line| line["plugin"] == name && line["stage"] == "Trying").count();
        let more = accounted - due;
        assert!((0.0..=trials as f64).contains(&more), "{due} were due, {accounted} accounted for, {trials} trials");
    }

    /// What began has ended, once, on the version that it began on.
    fn each_run_is_accounted_for(mut self) {
        assert_eq!(self.host.stop(), 0);
        let lines = self.host.all_lines();
        let dropped = lines.iter().filter(|line| line["message"] == "log lines were dropped").count();
        assert_eq!(dropped, 0, "the log has holes: nothing can be said");
        let runs: BTreeMap<u64, Told> =
            told(lines.iter()).into_iter().filter(|(_, run)| !run.plugin.starts_with('n')).collect();
        let mut numbers: BTreeMap<(&str, u32), u32> = BTreeMap::new();
        for (run, told) in &runs {
            assert_eq!(told.outcomes.len(), 1, "run {run} has not one outcome: {told:?}");
            let (outcome, number) = &told.outcomes[0];
            assert!(told.begins.len() <= 1 && told.ends.len() <= 1, "run {run} ran twice: {told:?}");
            if outcome == "Succeeded" {
                assert!(told.begins.len() == 1 && told.ends.len() == 1, "run {run} did not run: {told:?}");
            }
            if let Some(version) = told.begins.first() {
                let known = numbers.entry((&told.plugin, *number)).or_insert(*version);
                assert_eq!(known, version, "one number for two versions: run {run}, {told:?}");
            }
            let is_mixed = told.is_mixed(|version| {
                numbers
                    .iter()
                    .find(|((plugin, _), known)| *plugin == told.plugin && **known == version)
                    .map(|((_, n), _)| *n)
            });
            assert!(!is_mixed, "run {run} saw two versions: {told:?}");
        }
        let outcomes: BTreeSet<&str> = runs.values().map(|told| told.outcomes[0].0.as_str()).collect();
        eprintln!("{} runs, which ended {outcomes:?}", runs.len());
        assert!(runs.len() > 100 && outcomes.contains("Succeeded"));
    }
}

fn digest_of(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    windlass_core::name::Digest(sha2::Sha256::digest(bytes).into()).to_string()
}
