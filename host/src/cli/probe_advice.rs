//! `windlass probe-advice`: measures a host's probes over real sockets, and prints what to set for them.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::advice::{Advice, Kind, Measured, Series, advise};
use super::{Failure, http, print};
use crate::text::shown;

/// Whom to ask, for how long.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host's health port: http://HOST:PORT
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// How long to measure; some minutes of a busy hour say most
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    seconds: f64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print probes as a container has them (`httpGet`) instead of the chart's values
    #[arg(long)]
    container: bool,
}

/// How long one probe is waited for: longer than any timeout that should be set.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause between two probes: what is measured is the host's own load, not ours.
const PAUSE: Duration = Duration::from_millis(5);

/// As a kubelet names itself, so that the host treats us alike.
const AGENT: &str = "kube-probe/windlass-probe-advice";

/// What the host's metrics call what is asked of them.
const THROTTLED: &str = "windlass_cpu_throttled_periods_total";
const STARTUP: &str = "windlass_startup_seconds";

/// Measures, advises, and fails if the host could not be asked or is red.
pub fn run(args: Args) -> Result<(), Failure> {
    let time = Duration::try_from_secs_f64(args.seconds).ok().filter(|time| !time.is_zero());
    let time = time.ok_or_else(|| Failure::Usage(anyhow!("--seconds {}: it must be more than 0", args.seconds)))?;
    let (host, _) = http::parse(&args.url, "").map_err(Failure::Usage)?;
    let measured = measure(&host, time);
    let [live, ..] = &measured.series;
    if let Some(why) = no_host(live) {
        return Err(Failure::Failed(anyhow!("{}{}: {why}", args.url, Kind::Liveness.path())));
    }
    let advice = advise(&measured);
    match args.json {
        true => {
            let json = serde_json::to_string_pretty(&advice).map_err(|error| Failure::Failed(error.into()))?;
            print(format_args!("{json}\n"));
        }
        false => print(text(&advice, args.container.then_some(&*host))),
    }
    match advice.is_red {
        true => Err(Failure::Failed(anyhow!("{}{} is red", args.url, Kind::Liveness.path()))),
        false => Ok(()),
    }
}

/// Why nothing can be said: whoever was asked is no host that runs.
fn no_host(live: &Series) -> Option<String> {
    match &live.last_refusal {
        Some((code, _)) if *code != 503 => return Some(format!("it answers {code}: is this a windlass?")),
        Some(_) | None => {}
    }
    if !live.answered.is_empty() {
        return None;
    }
    Some(live.last_error.clone().unwrap_or_else(|| format!("no answer within {} s", PATIENCE.as_secs())))
}

/// Asks for the three in turn, each time on a new connection, one after another as a kubelet does.
fn measure(host: &str, time: Duration) -> Measured {
    let mut measured = Measured { patience: PATIENCE, ..Measured::default() };
    let before = metrics(host);
    let until = Instant::now() + time;
    loop {
        for (kind, series) in Kind::ALL.iter().zip(&mut measured.series) {
            one(host, *kind, series);
            std::thread::sleep(PAUSE);
        }
        // Whoever is not there will not be there for the rest of the time either.
        let [live, ..] = &measured.series;
        if Instant::now() >= until || (live.broken > 0 && live.answered.is_empty()) {
            break;
        }
    }
    let after = metrics(host);
    measured.startup = value(&after, STARTUP).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    measured.throttled_periods =
        value(&before, THROTTLED).zip(value(&after, THROTTLED)).map(|(before, after)| (after - before).max(0.0) as u64);
    measured
}

fn one(host: &str, kind: Kind, series: &mut Series) {
    match http::ask(host, kind.path(), AGENT, PATIENCE) {
        Ok(answer) => {
            series.answered.push(answer.took);
            if answer.code != 200 {
                series.not_ok += 1;
                series.last_refusal = Some((answer.code, shown(answer.body.trim(), 256)));
            }
        }
        Err(error) if http::is_timeout(&error) => series.timeouts += 1,
        Err(error) => {
            series.broken += 1;
            series.last_error = Some(format!("{error:#}"));
        }
    }
}

/// The host's metrics; empty if it does not tell.
fn metrics(host: &str) -> String {
    let answer = http::ask(host, "/metrics", AGENT, PATIENCE);
    answer.ok().filter(|answer| answer.code == 200).map(|answer| answer.body).unwrap_or_default()
}

/// The value of a series without labels.
fn value(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The figures, then YAML to paste: the chart's values, or a container's own fields for `host`.
fn text(advice: &Advice, host: Option<&str>) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "# {:<16} {:>7} {:>9} {:>9} {:>9} {:>7}",
        "path", "probes", "p50 ms", "p99 ms", "max ms", "failed"
    );
    for probe in &advice.probes {
        let figures = probe.measured;
        let _ = writeln!(
            text,
            "# {:<16} {:>7} {:>9.2} {:>9.2} {:>9.2} {:>7}",
            probe.path,
            figures.probes,
            figures.p50_ms,
            figures.p99_ms,
            figures.max_ms,
            figures.failed + figures.not_ok
        );
    }
    for warning in &advice.warnings {
        let _ = writeln!(text, "# warning: {warning}");
    }
    for probe in &advice.probes {
        let values = probe.values;
        let _ = writeln!(text, "{}:", probe.probe);
        match host.and_then(|host| host.rsplit_once(':')) {
            None => {
                let _ = writeln!(text, "  path: {}", probe.path);
            }
            Some((_, port)) => {
                let _ = writeln!(text, "  httpGet: {{ path: {}, port: {port} }}", probe.path);
            }
        }
        let [timeout_reason, reason] = [0, 1].map(|nth| probe.reasons.get(nth).map_or("", String::as_str));
        let _ = writeln!(text, "  # {timeout_reason}");
        let _ = writeln!(text, "  timeoutSeconds: {}", values.timeout_seconds);
        let _ = writeln!(text, "  # {reason}");
        let _ = writeln!(text, "  periodSeconds: {}", values.period_seconds);
        let _ = writeln!(text, "  failureThreshold: {}", values.failure_threshold);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let metrics = "windlass_startup_seconds_more 4\nwindlass_startup_seconds 0.25\n";
        assert_eq!(value(metrics, STARTUP), Some(0.25));
        assert_eq!(value(metrics, THROTTLED), None);
    }
}
