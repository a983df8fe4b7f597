//! `windlass once`: one run of any wasm, here and now, and what it took.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, anyhow};

use super::Failure;
use crate::artifact::Artifact;
use crate::core::config::amount;
use crate::core::event::TriggerKind;
use crate::core::health::Report;
use crate::core::outcome::{Ended, Outcome};
use crate::core::time::Timestamp;
use crate::guest::{
    self, Engine, EngineOptions, Executable, Grants, Invocation, Ledger, Line, LineSource, Listener, Metering, Probe,
    Progress, Toolbox, memory_slots,
};
use crate::lanes::priority::Niceness;
use crate::lanes::{self, End, Lanes, Meter, Unobserved, Watcher};

/// Runs at once: one, and a little room for what it is made of.
const SLOTS: u32 = 8;

/// What to run, and with what.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The wasm file: a windlass job, a WASI 0.2 command, or a preview 1 module
    file: PathBuf,
    /// What the run's payload is: text, or @FILE
    #[arg(long, value_name = "TEXT|@FILE")]
    payload: Option<String>,
    /// The payload's media type
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// A value that the guest reads through wasi:config; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    config: Vec<String>,
    /// When the run is due, as the guest is told
    #[arg(long, value_name = "RFC3339")]
    at: Option<String>,
    /// Memory of the instance
    #[arg(long, value_name = "QUANTITY", default_value = "256Mi")]
    memory: String,
    /// Fuel that the run may burn
    #[arg(long)]
    fuel: Option<u64>,
    /// Seconds of wall-clock time that the run may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0)]
    deadline_seconds: f64,
    /// Arguments for the program
    #[arg(last = true)]
    args: Vec<String>,
}

/// Runs the file once; fails unless it succeeds.
pub fn run(args: Args) -> Result<(), Failure> {
    let job = Job::read(args).map_err(Failure::Usage)?;
    let ended = job.execute().map_err(Failure::Failed)?;
    if ended.outcome == Outcome::Succeeded { Ok(()) } else { Err(Failure::Quiet) }
}

/// All input, checked.
struct Job {
    path: PathBuf,
    artifact: Artifact,
    kind: crate::artifact::Kind,
    invocation: Invocation,
    deadline: Duration,
    grants: Grants,
}

impl Job {
    fn read(args: Args) -> anyhow::Result<Job> {
        let (artifact, anatomy) = crate::source::load(&args.file).map_err(|why| anyhow!(why))?;
        let name = program_name(&args.file);
        let payload = match args.payload.as_deref().map(|payload| (payload, payload.strip_prefix('@'))) {
            None => Vec::new(),
            Some((_, Some(file))) => std::fs::read(file).with_context(|| format!("reading the payload from {file}"))?,
            Some((text, None)) => text.as_bytes().to_vec(),
        };
        let config = args.config.iter().map(|pair| {
            let (key, value) =
                pair.split_once('=').with_context(|| format!("--config {pair}: it must be KEY=VALUE"))?;
            Ok((key.to_owned(), value.to_owned()))
        });
        let config: BTreeMap<_, _> = config.collect::<anyhow::Result<_>>()?;
        let at = match &args.at {
            None => Timestamp::now(),
            Some(text) => text.parse().with_context(|| format!("--at {text}: write it like 2026-01-31T08:00:00Z"))?,
        };
        let deadline =
            Duration::try_from_secs_f64(args.deadline_seconds)
                .ok()
                .filter(|deadline| !deadline.is_zero())
                .with_context(|| format!("--deadline-seconds {}: it must be more than 0", args.deadline_seconds))?;
        let memory_bytes = amount::whole(&args.memory).map_err(|why| anyhow!("--memory {}: {why}", args.memory))?;
        Ok(Job {
            path: args.file,
            artifact,
            kind: anatomy.kind,
            invocation: Invocation {
                run: "1".to_owned(),
                plugin: name.clone(),
                version: 1,
                attempt: 1,
                trigger: TriggerKind::Manual,
                due_ms: u64::try_from(at.as_millisecond()).unwrap_or(0),
                made_up: false,
                time_left: Some(deadline),
                payload: payload.into(),
                content_type: args.content_type.map(Arc::from),
            },
            deadline,
            grants: Grants {
                args: std::iter::once(name).chain(args.args).collect(),
                config: config.into_iter().collect(),
                memory_bytes,
                fuel: args.fuel,
                log_bytes: u64::MAX,
            },
        })
    }

    fn execute(self) -> anyhow::Result<Ended> {
        let Job { path, artifact, kind, invocation, deadline, grants } = self;
        let nice = Niceness::among_others()?;
        let engine = Engine::new(EngineOptions { max_concurrent_runs: SLOTS, metering: Metering::Fuel })?;
        let toolbox = Toolbox::new(engine)?;
        let prepared = toolbox.prepare(kind, &artifact.bytes).map_err(|why| anyhow!("{}: {why}", path.display()))?;
        let ledger = Ledger::new(grants.memory_bytes.max(prepared.min_memory_bytes), SLOTS, memory_slots(SLOTS));
        let holder = Arc::from(invocation.plugin.as_str());
        let reservation = ledger
            .admit(&holder, prepared.min_memory_bytes, prepared.memories)
            .map_err(|_| anyhow!("{}: it has more linear memories than a pool for one run", path.display()))?;
        let runtime = lanes::guest_runtime(nice)?;
        let pacer = lanes::governor::Pacer::new();
        let options = lanes::Options { lanes: 1, runtime: runtime.handle().clone(), pacer, niceness: nice };
        let lanes = Lanes::start(&options, Arc::new(Unobserved))?;
        let probe = Probe::new(Arc::new(Terminal::default()), grants.fuel, grants.log_bytes);
        let (tell, told) = mpsc::channel();
        let executable = Arc::new(Executable { toolbox, prepared: Arc::new(prepared), grants });
        let work = guest::attempt(executable, reservation, invocation, probe.clone());
        let watcher = Arc::new(Teller { probe: probe.clone(), tell: Mutex::new(tell) });
        let task = lanes.spawn(&lanes.group(100), work, watcher, None);
        let ended = match told.recv_timeout(deadline) {
            Ok(ended) => ended,
            Err(_) => {
                let reason = format!("--deadline-seconds {} have passed", deadline.as_secs_f64());
                probe.kill_as(Outcome::DeadlineExceeded { starved: false }, reason);
                task.kill();
                told.recv().context("waiting for the run to be gone")?
            }
        };
        drop(lanes);
        runtime.shutdown_background();
        print_summary(&path, &ended).context("printing the summary")?;
        Ok(ended)
    }
}

fn program_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "job".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn print_summary(path: &Path, ended: &Ended) -> std::io::Result<()> {
    let mut out = std::io::stderr().lock();
    let usage = &ended.usage;
    writeln!(out, "{}: {}", path.display(), ended.outcome.label())?;
    if !ended.reason.is_empty() {
        writeln!(out, "  reason   {}", ended.reason)?;
    }
    if let Some(code) = ended.exit_code {
        writeln!(out, "  exit     {code}")?;
    }
    for refusal in &ended.refusals {
        writeln!(out, "  refused  {refusal}")?;
    }
    writeln!(out, "  elapsed  {:.3} s", usage.elapsed.as_secs_f64())?;
    writeln!(out, "  cpu      {:.3} s", usage.cpu.as_secs_f64())?;
    writeln!(out, "  fuel     {}", usage.fuel)?;
    writeln!(out, "  memory   {:.1} MiB at most", usage.memory_peak_bytes as f64 / f64::from(1 << 20))?;
    if ended.outcome == Outcome::Succeeded {
        let (cpu, fuel) = proposal(usage.cpu, usage.fuel);
        writeln!(out, "  limits that leave ten times this:  limits: {{ cpuSeconds: {cpu}, fuel: {fuel} }}")?;
    }
    Ok(())
}

/// Ten times what was used, rounded up to two digits: room for a larger input and a slower machine.
fn proposal(cpu: Duration, fuel: u64) -> (u64, u64) {
    let fuel = fuel.saturating_mul(10).max(1_000_000);
    let unit = 10_u64.pow(fuel.ilog10().saturating_sub(1));
    let cpu = (cpu.as_secs_f64() * 10.0).ceil().max(1.0) as u64;
    (cpu, fuel.div_ceil(unit).saturating_mul(unit))
}

/// Passes output on as it comes: stdout to stdout, all else to stderr.
#[derive(Default)]
struct Terminal {
    lines: Mutex<()>,
}

impl Listener for Terminal {
    fn line(&self, line: &Line<'_>) {
        let _one_at_a_time = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // A reader that has gone away is no fault of the run.
        let _ = match line.source {
            LineSource::Stdout => writeln!(std::io::stdout(), "{}", line.text),
            LineSource::Stderr => writeln!(std::io::stderr(), "{}", line.text),
            LineSource::Log(level) => {
                let fields: Vec<_> = line.fields.iter().map(|(key, value)| format!(" {key}={value}")).collect();
                let text = crate::text::shown(&format!("{}{}", line.text, fields.concat()), 8 << 10);
                writeln!(std::io::stderr(), "{level:>5} {text}")
            }
        };
    }

    fn reported(&self, report: Report) {
        let _ = writeln!(std::io::stderr(), "health: {:?} {}", report.status, report.description);
    }

    fn progressed(&self, progress: &Progress) {
        let total = if progress.total == 0 { String::new() } else { format!(" of {}", progress.total) };
        let _ = writeln!(std::io::stderr(), "progress: {}{total} {}", progress.done, progress.message);
    }
}

struct Teller {
    probe: Arc<Probe>,
    tell: Mutex<mpsc::Sender<Ended>>,
}

impl Watcher for Teller {
    fn started(&self, _: &Meter) {}

    fn ended(&self, end: End, meter: &Meter) {
        let ended = self.probe.ended(end, meter);
        // The other side waits for this until it has it.
        let _ = self.tell.lock().unwrap_or_else(PoisonError::into_inner).send(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_are_round_and_roomy() {
        assert_eq!(proposal(Duration::from_millis(340), 8_000_002), (4, 81_000_000));
        assert_eq!(proposal(Duration::ZERO, 10), (1, 1_000_000));
    }
}
