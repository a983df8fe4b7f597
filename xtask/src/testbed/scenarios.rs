//! The image in the chart's pod, under the chart's probes: what a kubelet would see and do.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::containers::{Containers, Pod, Volume};
use super::kubelet::{Answer, Kind, Kubelet, Step, Verdict, describe};
use super::tools::{Helm, Tools};
use crate::{Result, build};

const PLUGINS: &str = "plugins";
/// How many heavy plugins a cold start has.
const HEAVY: u8 = 40;

/// What all scenarios share.
pub(super) struct Stage<'a> {
    pub(super) tools: &'a Tools,
    pub(super) containers: &'a Containers,
    pub(super) helm: &'a Helm,
    /// The chart in the registry, its version, and the image there without a tag.
    pub(super) chart: String,
    pub(super) version: String,
    pub(super) image: String,
}

/// A container with its kubelet.
struct Watch<'a> {
    pod: Pod<'a>,
    kubelet: Kubelet,
    began: Instant,
}

impl<'a> Stage<'a> {
    /// The volume with the plugins, as someone else would have filled it.
    pub(super) fn plugins(&self) -> Result<Volume<'a>> {
        let read = |name: &str| {
            let path = build::guests_folder().join(format!("{name}.wasm"));
            std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let mut files = Vec::new();
        for name in ["heartbeat", "primes", "actor"] {
            files.push((format!("{name}.wasm"), read(name)?));
        }
        // Forty that differ in a custom section, so that each has a digest of its own and is compiled by itself.
        let heavy = read("kernels")?;
        for number in 0..HEAVY {
            files.push((format!("heavy-{number}.wasm"), [heavy.as_slice(), &[0, 3, 1, b'n', number]].concat()));
        }
        self.containers.volume(PLUGINS, &files)
    }

    /// Renders the chart out of the registry, and starts its pod.
    pub(super) fn pod(&self, release: &str, tag: &str, values: impl Display) -> Result<Pod<'a>> {
        Pod::play(self.containers, self.tools, release, &self.render(release, tag, values)?)
    }

    /// The chart out of the registry with these values, which are YAML or JSON, and the image with this tag.
    pub(super) fn render(&self, release: &str, tag: &str, values: impl Display) -> Result<String> {
        let file = self.tools.folder.join(format!("{release}-values.json"));
        std::fs::write(&file, values.to_string()).map_err(|error| format!("{}: {error}", file.display()))?;
        let image = format!("image.repository={}", self.image);
        let tag = format!("image.tag={tag}");
        let render = [
            "template",
            release,
            &self.chart,
            "--version",
            &self.version,
            "--plain-http",
            "--values",
            &file.display().to_string(),
            "--set",
            &image,
            "--set",
            &tag,
            "--set",
            "pluginsVolume.existingClaim=plugins",
        ];
        crate::steps::output(self.helm.command(&render))
    }

    fn watch(&self, release: &str, values: impl Display) -> Result<Watch<'a>> {
        let pod = self.pod(release, "one", values)?;
        let mut kubelet = Kubelet::new(&pod.container)?;
        kubelet.started(Duration::ZERO);
        Ok(Watch { pod, kubelet, began: Instant::now() })
    }
}

impl Watch<'_> {
    /// Probes, kills and starts again until `until` says so. An error if that takes longer than `patience`.
    fn until(&mut self, patience: Duration, until: impl Fn(&Kubelet, Duration) -> bool) -> Result<()> {
        let limit = self.began.elapsed() + patience;
        loop {
            let now = self.began.elapsed();
            if until(&self.kubelet, now) {
                return Ok(());
            }
            if now > limit {
                return Err(format!(
                    "{}: it did not come to that:\n{}",
                    self.pod.name(),
                    describe(&self.kubelet.events)
                ));
            }
            match self.kubelet.next(now) {
                Step::WaitUntil(then) => std::thread::sleep(then.saturating_sub(now).min(Duration::from_millis(200))),
                Step::Ask(kind) => self.ask(kind)?,
            }
        }
    }

    fn ask(&mut self, kind: Kind) -> Result<()> {
        let Some(probe) = self.kubelet.probe(kind).cloned() else { return Ok(()) };
        let asked = self.began.elapsed();
        let (answer, _) = self.pod.ask(&probe.path, probe.timeout);
        let is_gone = matches!(answer, Answer::Nothing(_)) && !self.pod.is_running();
        if !is_gone && self.kubelet.answered(kind, &answer, asked, self.began.elapsed()) == Verdict::GoOn {
            return Ok(());
        }
        if is_gone {
            self.kubelet.tell(self.began.elapsed(), "Exited", self.pod.last_words());
        } else {
            self.pod.stop()?;
        }
        let again = self.kubelet.ended(self.began.elapsed());
        std::thread::sleep(again.saturating_sub(self.began.elapsed()));
        self.pod.start()?;
        self.kubelet.started(self.began.elapsed());
        Ok(())
    }
}

fn message_of(line: &Json) -> &str {
    line["message"].as_str().unwrap_or_default()
}

/// Limits, user, read-only root, no capability; health answers; the way out is clean.
pub(super) fn as_rendered(stage: &Stage<'_>) -> Result<String> {
    let values = json!({ "plugins": { "heartbeat": { "source": "file:heartbeat.wasm", "every": "1s" } } });
    let pod = stage.pod("plain", "one", values)?;
    pod.wait_until_ready(Duration::from_secs(30))?;
    let wanted = [
        ("{{.HostConfig.ReadonlyRootfs}}", "true"),
        ("{{.Config.User}}", "65532:65532"),
        ("{{.HostConfig.Memory}}", "536870912"),
        ("{{.EffectiveCaps}}", "[]"),
        ("{{.HostConfig.Privileged}}", "false"),
    ];
    for (format, wanted) in wanted {
        let got = pod.inspect(format)?;
        if got != wanted {
            return Err(format!("{format} of the pod's container is {got}, and should be {wanted}"));
        }
    }
    // 250m, rounded up to a whole core by whoever starts the pod, and from there to the lanes.
    let variables = pod.inspect("{{.Config.Env}}")?;
    let lanes = pod.log()?.iter().find_map(|line| line["lanes"].as_u64());
    if !variables.contains("WINDLASS_CPU_REQUEST=1") || lanes != Some(1) {
        return Err(format!("a request of 250m should make 1 lane, and made {lanes:?}: {variables}"));
    }
    stage.containers.podman(&["exec", &pod.name(), "windlass", "health"])?;
    let (answer, report) = pod.ask("/health", Duration::from_secs(2));
    if answer != Answer::Status(200) || !report.contains("\"heartbeat\"") {
        return Err(format!("/health: {answer:?} {report}"));
    }
    let guests = pod.log()?.iter().find_map(|line| line["guests_memory_mib"].as_u64());
    if guests != Some(384) {
        return Err(format!("of 512 MiB the guests should have 384, and have {guests:?}"));
    }
    let code = pod.stop()?;
    if code != 0 {
        Err(format!("after SIGTERM it ended with {code}"))
    } else {
        Ok("the pod as rendered: limits, user, read-only root, no capability, lanes by its CPU request; exit 0 after SIGTERM"
            .to_owned())
    }
}

/// An upgrade and the way back over the same data, under a one-second schedule: no two hosts at once, and the lock behind it.
pub(super) fn upgrade(stage: &Stage<'_>) -> Result<String> {
    let _data = stage.containers.volume("data", &[])?;
    let values = || {
        json!({
            "plugins": { "heartbeat": { "source": "file:heartbeat.wasm", "every": "1s" } },
            "persistence": { "enabled": true, "existingClaim": "data" }
        })
    };
    let (mut lives, mut binaries) = (Vec::new(), Vec::new());
    for (number, tag) in ["one", "two", "one"].into_iter().enumerate() {
        let pod = stage.pod("upgraded", tag, values())?;
        pod.wait_until_ready(Duration::from_secs(30))?;
        binaries.push(pod.binary()?);
        if number == 0 {
            second_host_is_refused(stage, values())?;
        }
        let until = Instant::now() + Duration::from_secs(20);
        while runs(&pod.log()?).len() < 3 {
            if Instant::now() > until {
                return Err("a one-second schedule ran less than three times in 20 s".to_owned());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        // What `strategy: Recreate` does: the old one has ended before the new one begins.
        if pod.stop()? != 0 {
            return Err("the old host did not end well".to_owned());
        }
        lives.push(runs(&pod.log()?));
    }
    let all: Vec<&String> = lives.iter().flatten().collect();
    let distinct: BTreeSet<&&String> = all.iter().collect();
    if !all.is_sorted() || distinct.len() != all.len() {
        return Err(format!("runs of three hosts one after the other overlap: {lives:?}"));
    }
    if !matches!(binaries.as_slice(), [one, two, back] if one == back && one != two) {
        return Err(format!("it should be one binary, another, and the first again: {binaries:?}"));
    }
    Ok(format!(
        "upgrade to an image with another binary and back, over the same data, {} runs of a one-second schedule: none twice",
        all.len()
    ))
}

/// The time of each run's end, in the order of the log.
fn runs(log: &[Json]) -> Vec<String> {
    let ended = log.iter().filter(|line| message_of(line) == "run ended" && line["plugin"] == "heartbeat");
    ended.filter_map(|line| line["timestamp"].as_str().map(str::to_owned)).collect()
}

fn second_host_is_refused(stage: &Stage<'_>, values: Json) -> Result<()> {
    let second = stage.pod("second", "one", values)?;
    let until = Instant::now() + Duration::from_secs(20);
    while second.is_running() {
        if Instant::now() > until {
            return Err("a second host on the same dataDir goes on".to_owned());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let said =
        stage.containers.command("podman", &["logs", &second.name()]).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    if said.contains("held by another windlass") { Ok(()) } else { Err(format!("the second host said {said}")) }
}

/// A thousand plugins that spin, in half a CPU, under the chart's own probes: no restart.
pub(super) fn spinning(stage: &Stage<'_>, seconds: u64) -> Result<String> {
    let plugin =
        || json!({ "source": "file:primes.wasm", "config": { "limit": "4000000000" }, "limits": { "memory": "2Mi" } });
    let plugins: serde_json::Map<String, Json> =
        (0..1000).map(|number| (format!("spins-{number}"), plugin())).collect();
    let values = json!({ "plugins": plugins, "resources": { "limits": { "cpu": "500m", "memory": "4Gi" } } });
    let mut watch = stage.watch("spins", values)?;
    let time = Duration::from_secs(seconds);
    watch.until(time * 2, |_, now| now > time)?;
    let events = &watch.kubelet;
    if events.restarts > 0 || !events.is_ready() {
        return Err(format!("1,000 spinning plugins in half a CPU:\n{}", describe(&events.events)));
    }
    let (_, metrics) = watch.pod.ask("/metrics", Duration::from_secs(5));
    let burnt: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("process_cpu_seconds_total"))
        .filter_map(|line| line.split(' ').nth(1)?.parse::<f64>().ok())
        .sum();
    if burnt < time.as_secs_f64() * 0.05 {
        return Err(format!("in {seconds} s of half a CPU they burnt only {burnt:.1} s: they did not spin"));
    }
    let missed = events.count("Unhealthy", "Liveness");
    Ok(format!(
        "1,000 spinning plugins in half a CPU for {seconds} s ({burnt:.0} s of CPU burnt): 0 restarts, {missed} liveness probes missed"
    ))
}

/// `escalate: OnUnhealthy` and a job that always fails, under the values of a classic worker's probe as the guide has them: six failures, a
/// restart, and no loop; and `describe` shows what the guide says.
pub(super) fn escalating(stage: &Stage<'_>) -> Result<String> {
    const GUIDE: &str = "docs/from-dotnet-worker.md";
    let shown = crate::links::block(GUIDE, "a crashing worker")?;
    let crashes = r#""file:crashes.wasm""#;
    let values = shown.replace(crashes, r#""file:actor.wasm", config: { act: panics }"#);
    if values == shown {
        return Err(format!("{GUIDE}: the crashing worker is not {crashes}"));
    }
    let values = values + "config: { drainSeconds: 2 }\n";
    let mut watch = stage.watch("crashes", values)?;
    watch.until(Duration::from_secs(120), |kubelet, _| kubelet.restarts == 1)?;
    let again = watch.began.elapsed();
    // Long enough for another six failures, if it were a loop.
    watch.until(Duration::from_secs(120), |_, now| now > again + Duration::from_secs(65))?;
    let kubelet = &watch.kubelet;
    let described = describe(&kubelet.events);
    eprintln!("{described}");
    for line in crate::links::block(GUIDE, "what describe shows")?.lines().filter(|line| !line.trim().is_empty()) {
        let (reason, message) = line.trim().split_once(' ').ok_or("a line of describe is one word")?;
        let is_there = |said: &str| said.trim_start().starts_with(reason) && said.ends_with(message.trim());
        if !described.lines().any(is_there) {
            return Err(format!("{GUIDE} shows `{line}`, and describe does not:\n{described}"));
        }
    }
    let failures = kubelet.count("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 503");
    if kubelet.restarts != 1 || failures != 6 || kubelet.count("Killing", "failed liveness probe") != 1 {
        return Err(format!("{failures} failures and {} restarts:\n{}", kubelet.restarts, describe(&kubelet.events)));
    }
    Ok("an escalating plugin under the classic probe (6 failures, every 5 s, after 30 s): 503 six times, Killing, Started, and no loop".to_owned())
}

/// A cold start of forty heavy plugins at a quarter of a CPU, under the chart's own probes: slow, and no restart.
pub(super) fn cold_start(stage: &Stage<'_>, seconds: u64) -> Result<String> {
    let plugin = |number| json!({ "source": format!("file:heavy-{number}.wasm"), "suspend": true });
    let plugins: serde_json::Map<String, Json> =
        (0..HEAVY).map(|number| (format!("heavy-{number}"), plugin(number))).collect();
    let values = json!({ "plugins": plugins, "resources": { "limits": { "cpu": "250m", "memory": "2Gi" } } });
    let mut watch = stage.watch("cold", values)?;
    let time = Duration::from_secs(seconds);
    // Whatever still compiles then, the host is ready: `readyTimeoutSeconds`.
    watch.until(time * 2, |kubelet, now| kubelet.is_ready() && now > time)?;
    if watch.kubelet.restarts > 0 {
        return Err(format!("a cold start at a quarter of a CPU:\n{}", describe(&watch.kubelet.events)));
    }
    let (_, report) = watch.pod.ask("/health", Duration::from_secs(5));
    let left = report.matches("compiling").count();
    let missed = watch.kubelet.count("Unhealthy", "Liveness");
    Ok(format!(
        "a cold start of {HEAVY} heavy plugins at a quarter of a CPU, {left} of them still compiling after {seconds} s: \
         0 restarts, {missed} liveness probes missed"
    ))
}

/// A host that is stopped dead: killed within what the probe promises, and running again.
pub(super) fn wedged(stage: &Stage<'_>) -> Result<String> {
    let values = json!({
        "plugins": { "heartbeat": { "source": "file:heartbeat.wasm", "every": "1s" } },
        "config": { "drainSeconds": 0 },
    });
    let mut watch = stage.watch("wedged", values)?;
    watch.until(Duration::from_secs(40), |kubelet, _| kubelet.is_ready())?;
    watch.pod.signal("STOP")?;
    let stopped = watch.began.elapsed();
    let probe = watch.kubelet.probe(Kind::Liveness).cloned().ok_or("no liveness probe")?;
    watch.until(Duration::from_secs(90), |kubelet, _| kubelet.restarts == 1 && kubelet.is_ready())?;
    let killed =
        watch.kubelet.events.iter().find(|event| event.reason == "Killing").map_or(Duration::MAX, |event| event.at);
    let took = killed.saturating_sub(stopped);
    // A probe may just have been answered when it was stopped, and the bed itself may be late.
    let most = probe.patience() + Duration::from_secs(5);
    if took > most {
        return Err(format!(
            "killed {took:?} after it was stopped, not {most:?}:\n{}",
            describe(&watch.kubelet.events)
        ));
    }
    Ok(format!(
        "a host stopped dead: killed after {:.0} s (at most {:.0}), and ready again",
        took.as_secs_f64(),
        most.as_secs_f64()
    ))
}

/// SIGTERM while runs are in flight: each run that began has its end in the log.
pub(super) fn drain(stage: &Stage<'_>) -> Result<String> {
    let plugin = || json!({ "source": "file:actor.wasm", "every": "1s", "config": { "act": "obeys_cancel" } });
    let plugins: serde_json::Map<String, Json> = (0..20).map(|number| (format!("works-{number}"), plugin())).collect();
    let pod = stage.pod("drains", "one", json!({ "plugins": plugins }))?;
    pod.wait_until_ready(Duration::from_secs(60))?;
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let (_, report) = pod.ask("/metrics", Duration::from_secs(5));
        // A start was skipped because the run before it is still there.
        let skipped = report.lines().filter(|line| line.starts_with("windlass_skipped_starts_total"));
        let began = skipped.filter(|line| line.contains("\"StillRunning\"") && !line.ends_with(" 0")).count();
        if began == 20 {
            break;
        }
        if Instant::now() > until {
            return Err(format!("{began} of 20 runs are in flight:\n{report}"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let code = pod.stop()?;
    let ended = pod.log()?.iter().filter(|line| message_of(line) == "run ended").count();
    if code != 0 || ended != 20 {
        return Err(format!(
            "20 runs were in flight at SIGTERM; {ended} ends are in the log, and the exit code is {code}"
        ));
    }
    Ok("SIGTERM with 20 runs in flight: 20 ends in the log, exit 0".to_owned())
}
