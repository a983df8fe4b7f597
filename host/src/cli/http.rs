//! The little HTTP client of the commands that ask the health port: one request on a connection of its own, as a kubelet makes it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The largest answer that is read.
const ANSWER_BYTES: usize = 64 << 20;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) body: String,
    /// From the first packet to the last.
    pub(super) took: Duration,
}

/// Takes `http://HOST:PORT/PATH` apart, into `HOST:PORT` and the path; `path` where the URL has none.
pub(super) fn parse(url: &str, path: &str) -> Result<(String, String)> {
    let rest = url.strip_prefix("http://").with_context(|| format!("--url {url}: it must begin with http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, path));
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok((if has_port { host.to_owned() } else { format!("{host}:80") }, format!("/{path}")))
}

/// Asks for `path` as `agent`. All of it may take `patience`.
///
/// # Errors
/// If there is no answer in that time, or it is no HTTP; [`is_timeout`] tells the first.
pub(super) fn ask(host: &str, path: &str, agent: &str, patience: Duration) -> Result<Answer> {
    let address = host.to_socket_addrs().context("looking the host up")?.next().context("the host has no address")?;
    let began = Instant::now();
    let left = || patience.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&address, left()).context("connecting")?;
    stream.set_nodelay(true).context("connecting")?;
    stream.set_write_timeout(Some(left())).context("connecting")?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {agent}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("asking")?;
    let mut answer = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        // Looked at before each piece: a server that sends a byte now and then is not waited for for ever.
        if began.elapsed() >= patience {
            return Err(std::io::Error::from(ErrorKind::TimedOut)).context("reading the answer");
        }
        stream.set_read_timeout(Some(left())).context("reading the answer")?;
        let read = stream.read(&mut piece).context("reading the answer")?;
        if read == 0 {
            break;
        }
        answer.extend_from_slice(piece.get(..read).unwrap_or_default());
        if answer.len() > ANSWER_BYTES {
            bail!("the answer is longer than {} MiB", ANSWER_BYTES >> 20);
        }
    }
    let took = began.elapsed();
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let code = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)).and_then(|code| code.parse().ok());
    Ok(Answer { code: code.context("the answer is no HTTP")?, body: body.to_owned(), took })
}

/// Whether asking failed because nothing came in time.
pub(super) fn is_timeout(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn urls_are_taken_apart() {
        let parse = |url| parse(url, "health/live");
        assert_eq!(parse("http://h:81/health").unwrap(), ("h:81".to_owned(), "/health".to_owned()));
        assert_eq!(parse("http://h").unwrap(), ("h:80".to_owned(), "/health/live".to_owned()));
        assert!(parse("https://h/").is_err());
    }

    /// A server that says `answer` to its first client and then waits for the test to end.
    fn server(answer: &'static [u8]) -> (String, std::sync::mpsc::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (end, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            stream.write_all(answer).unwrap();
            // For as long as the test holds the other end.
            let _ = if answer.is_empty() { ended.recv() } else { Ok(()) };
        });
        (address, end)
    }

    #[test]
    fn garbage_is_no_answer_and_neither_is_silence() {
        let (address, _end) = server(b"SSH-2.0-OpenSSH_9.2\r\n\r\nHTTP/1.1 200 OK");
        let error = ask(&address, "/", "test", Duration::from_secs(10)).unwrap_err();
        assert!(!is_timeout(&error) && format!("{error:#}").contains("no HTTP"), "{error:#}");
        let (address, _end) = server(b"");
        let error = ask(&address, "/", "test", Duration::from_millis(50)).unwrap_err();
        assert!(is_timeout(&error), "{error:#}");
        let (address, _end) = server(b"HTTP/1.1 503 Service Unavailable\r\n\r\nwhy");
        let answer = ask(&address, "/", "test", Duration::from_secs(10)).unwrap();
        assert_eq!((answer.code, answer.body.as_str()), (503, "why"));
    }
}
