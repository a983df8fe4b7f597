//! `windlass health`: asks the health port, for exec probes and people.

use std::time::Duration;

use anyhow::{Context, anyhow};

use super::{Failure, http, print};

/// What to ask.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to ask for: http://HOST:PORT/PATH
    #[arg(long, default_value = "http://127.0.0.1:8080/health/live")]
    url: String,
    /// Seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    timeout: f64,
}

/// Asks, prints the answer, and fails unless it is 200.
pub fn run(args: Args) -> Result<(), Failure> {
    let timeout = Duration::try_from_secs_f64(args.timeout).ok().filter(|timeout| !timeout.is_zero());
    let timeout =
        timeout.ok_or_else(|| Failure::Usage(anyhow!("--timeout {}: it must be more than 0", args.timeout)))?;
    let (host, path) = http::parse(&args.url, "health/live").map_err(Failure::Usage)?;
    let answer = http::ask(&host, &path, "windlass-health", timeout);
    let answer = answer.with_context(|| args.url.clone()).map_err(Failure::Failed)?;
    print(format_args!("{}\n", describe(&answer.body)));
    match answer.code {
        200 => Ok(()),
        code => Err(Failure::Failed(anyhow!("{}: {code}", args.url))),
    }
}

/// The report's entries a line each, the worst first; anything else as it is.
fn describe(body: &str) -> String {
    let Ok(report) = serde_json::from_str::<serde_json::Value>(body) else { return body.trim_end().to_owned() };
    let Some(entries) = report.get("entries").and_then(|entries| entries.as_object()) else { return body.to_owned() };
    let text = |entry: &serde_json::Value, key: &str| {
        entry.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    };
    let rank = |status: &str| ["Unhealthy", "Degraded"].iter().position(|known| *known == status).unwrap_or(2);
    let mut lines: Vec<_> = entries
        .iter()
        .map(|(name, entry)| {
            let status = text(entry, "status");
            (rank(&status), format!("{status:<10} {name:<24} {}", text(entry, "description")))
        })
        .collect();
    lines.sort();
    let lines: Vec<_> = lines.into_iter().map(|(_, line)| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn the_worst_comes_first() {
        let body = r#"{"entries":{"a":{"status":"Healthy"},"b":{"status":"Unhealthy","description":"broken"},"c":{"status":"Degraded"}}}"#;
        let text = describe(body);
        let names: Vec<_> = text.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
        assert_eq!(names, ["b", "c", "a"]);
        assert_eq!(describe("live\n"), "live");
    }
}
