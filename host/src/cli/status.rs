//! `windlass status`: the screen for three in the morning. Worst first, with the reason.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::client::Admin;
use super::{Failure, print};

/// What to show, and what to wait for.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these plugins
    names: Vec<String>,
    /// Wait until nothing is being loaded, checked or tried any more
    #[arg(long)]
    wait: bool,
    /// With --wait: also until the configuration with this hash is the one that runs
    #[arg(long, value_name = "SHA256", requires = "wait")]
    config_hash: Option<String>,
    /// With --wait: how many seconds at most
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0)]
    timeout: f64,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Admin,
}

/// How often a host is asked that is waited for.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Shows it. Fails if something is Unhealthy, or did not come about in time.
pub fn run(args: Args) -> Result<(), Failure> {
    let timeout = Duration::try_from_secs_f64(args.timeout)
        .map_err(|_| Failure::Usage(anyhow!("--timeout {}: it must be a number of seconds", args.timeout)))?;
    let began = Instant::now();
    let (report, waited_in_vain) = loop {
        let report = ask(&args.admin);
        if !args.wait {
            break (report.map_err(Failure::Failed)?, None);
        }
        let missing = match &report {
            Ok(report) => missing(report, args.config_hash.as_deref()),
            Err(error) => Some(format!("{error:#}")),
        };
        match (missing, report) {
            (None, Ok(report)) => break (report, None),
            (missing, report) if began.elapsed() >= timeout => {
                let missing = missing.unwrap_or_default();
                break (report.map_err(Failure::Failed)?, Some(missing));
            }
            (Some(_) | None, _) => std::thread::sleep(ASK_EVERY),
        }
    };
    for name in &args.names {
        if !plugins(&report).iter().any(|plugin| text(plugin, "name") == name) {
            return Err(Failure::Failed(anyhow!("there is no plugin `{name}`")));
        }
    }
    let shown: Vec<&Value> = plugins(&report)
        .iter()
        .filter(|plugin| args.names.is_empty() || args.names.iter().any(|name| name == text(plugin, "name")))
        .collect();
    match args.json {
        true => print(format_args!("{report:#}\n")),
        false => print(table(&report, &shown)),
    }
    if let Some(missing) = waited_in_vain {
        return Err(Failure::Failed(anyhow!("waited in vain for {} s: {missing}", args.timeout)));
    }
    let is_unhealthy = |what: &Value| text(what, "status") == "Unhealthy";
    match is_unhealthy(&report) || shown.iter().any(|plugin| is_unhealthy(plugin)) {
        true => Err(Failure::Quiet),
        false => Ok(()),
    }
}

fn ask(admin: &Admin) -> Result<Value> {
    let (code, body) = admin.ask("GET", "/status", Duration::from_secs(10))?;
    if code != 200 {
        bail!("{}", body.trim_end());
    }
    serde_json::from_str(&body).context("reading the host's answer")
}

/// What is waited for and not there yet.
fn missing(report: &Value, hash: Option<&str>) -> Option<String> {
    let runs = text(report, "configHash");
    match (hash, report["pending"].as_u64().unwrap_or(0)) {
        (Some(hash), _) if hash != runs => {
            let problem = text(report, "description");
            Some(format!("the configuration that runs is {runs}, and not {hash}; {problem}"))
        }
        (_, pending) if pending > 0 => Some(format!("{pending} plugins are still being loaded, checked or tried")),
        _ => None,
    }
}

fn plugins(report: &Value) -> &[Value] {
    report["plugins"].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_default()
}

/// The screen.
fn table(report: &Value, plugins: &[&Value]) -> String {
    let mut rows: Vec<[String; 7]> = plugins.iter().map(|plugin| row(plugin)).collect();
    rows.sort_by(|a, b| (rank(&a[1]), &a[0]).cmp(&(rank(&b[1]), &b[0])));
    let head = ["PLUGIN", "STATUS", "STATE", "VERSION", "LAST RUN", "NEXT RUN", "WHY"].map(str::to_owned);
    rows.insert(0, head);
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut screen = String::new();
    for row in &rows {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        screen += line.trim_end();
        screen.push('\n');
    }
    let host = text(report, "description");
    screen += &match host.is_empty() {
        true => format!("windlass: {}\n", text(report, "status")),
        false => format!("windlass: {}, {host}\n", text(report, "status")),
    };
    screen
}

fn rank(status: &str) -> usize {
    ["Unhealthy", "Degraded"].iter().position(|known| *known == status).unwrap_or(2)
}

fn row(plugin: &Value) -> [String; 7] {
    let version = &plugin["version"];
    let version = match (version["number"].as_u64(), version["authorVersion"].as_str()) {
        (None, _) => "-".to_owned(),
        (Some(number), None) => format!("{number}"),
        (Some(number), Some(author)) => format!("{number} ({author})"),
    };
    let last = &plugin["lastRun"];
    let last = match text(last, "outcome") {
        "" => "-".to_owned(),
        outcome => format!("{outcome} {}", text(last, "ended")),
    };
    let next = plugin["nextRun"].as_str().unwrap_or("-").to_owned();
    let why = match plugin["candidate"].as_str() {
        None => text(plugin, "description").to_owned(),
        Some(candidate) => format!("{}; {candidate}", text(plugin, "description")),
    };
    let cell = |key| text(plugin, key).to_owned();
    [cell("name"), cell("status"), cell("state"), version, last, next, why]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_worst_comes_first_with_its_reason() {
        let plugin = |name: &str, status: &str| json!({ "name": name, "status": status, "state": "Active", "description": "why" });
        let report = json!({ "status": "Degraded", "description": "a fault", "plugins": [
            plugin("a", "Healthy"), plugin("b", "Unhealthy"), plugin("c", "Degraded"),
        ] });
        let all: Vec<&Value> = plugins(&report).iter().collect();
        let screen = table(&report, &all);
        let names: Vec<_> = screen.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(names, ["PLUGIN", "b", "c", "a", "windlass:"]);
        assert!(screen.ends_with("windlass: Degraded, a fault\n"));
    }

    #[test]
    fn it_waits_for_the_hash_and_for_what_is_pending() {
        let report = json!({ "configHash": "aa", "pending": 1 });
        assert!(missing(&report, Some("bb")).is_some_and(|why| why.contains("aa")));
        assert!(missing(&report, Some("aa")).is_some_and(|why| why.contains('1')));
        assert_eq!(missing(&json!({ "configHash": "aa", "pending": 0 }), Some("aa")), None);
    }
}
