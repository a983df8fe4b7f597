//! `windlass health`: asks the health port, for exec probes and people.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::{Failure, print};

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

/// The largest answer that is read.
const ANSWER_BYTES: u64 = 64 << 20;

/// Asks, prints the answer, and fails unless it is 200.
pub fn run(args: Args) -> Result<(), Failure> {
    let timeout = Duration::try_from_secs_f64(args.timeout).ok().filter(|timeout| !timeout.is_zero());
    let timeout =
        timeout.ok_or_else(|| Failure::Usage(anyhow!("--timeout {}: it must be more than 0", args.timeout)))?;
    let (host, path) = parse(&args.url).map_err(Failure::Usage)?;
    let (code, body) = ask(&host, &path, timeout).with_context(|| args.url.clone()).map_err(Failure::Failed)?;
    print(format_args!("{}\n", describe(&body)));
    match code {
        200 => Ok(()),
        code => Err(Failure::Failed(anyhow!("{}: {code}", args.url))),
    }
}

fn parse(url: &str) -> Result<(String, String)> {
    let rest = url.strip_prefix("http://").with_context(|| format!("--url {url}: it must begin with http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, "health/live"));
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok((if has_port { host.to_owned() } else { format!("{host}:80") }, format!("/{path}")))
}

fn ask(host: &str, path: &str, timeout: Duration) -> Result<(u16, String)> {
    let address = host.to_socket_addrs().context("looking the host up")?.next().context("the host has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, timeout).context("connecting")?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: windlass-health\r\nconnection: close\r\n\r\n")
        .context("asking")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).context("reading the answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let Some(code) = head.split(' ').nth(1).and_then(|code| code.parse().ok()) else { bail!("the answer is no HTTP") };
    Ok((code, body.to_owned()))
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
    fn urls_are_taken_apart() {
        assert_eq!(parse("http://h:81/health").unwrap(), ("h:81".to_owned(), "/health".to_owned()));
        assert_eq!(parse("http://h").unwrap(), ("h:80".to_owned(), "/health/live".to_owned()));
        assert!(parse("https://h/").is_err());
    }

    #[test]
    fn the_worst_comes_first() {
        let body = r#"{"entries":{"a":{"status":"Healthy"},"b":{"status":"Unhealthy","description":"broken"},"c":{"status":"Degraded"}}}"#;
        let text = describe(body);
        let names: Vec<_> = text.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
        assert_eq!(names, ["b", "c", "a"]);
        assert_eq!(describe("live\n"), "live");
    }
}
