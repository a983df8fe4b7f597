//! Asks a host's admin port: one request, one answer. What `status`, `swap` and `rollback` share.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The largest answer that is read.
const ANSWER_BYTES: u64 = 64 << 20;

/// Where a host's admin port is, and what lets us in.
#[derive(Debug, Clone, clap::Args)]
pub struct Admin {
    /// The host's admin port
    #[arg(long, value_name = "HOST:PORT", env = "WINDLASS_ADMIN", default_value = "127.0.0.1:8081")]
    admin: String,
    /// The admin port's token
    #[arg(long, value_name = "TOKEN", env = "WINDLASS_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Admin {
    /// Asks, and returns the status code and the body.
    ///
    /// # Errors
    /// If nobody answers within `timeout`.
    pub(super) fn ask(&self, method: &str, path: &str, timeout: Duration) -> Result<(u16, String)> {
        let host = self.admin.strip_prefix("http://").unwrap_or(&self.admin).trim_end_matches('/');
        let token = match &self.token {
            Some(token) if token.chars().any(char::is_control) => {
                bail!("WINDLASS_TOKEN: it has characters that no token has")
            }
            Some(token) => format!("authorization: Bearer {token}\r\n"),
            None => String::new(),
        };
        let asking = || format!("asking the admin port {host}; is the host running, and is --admin right?");
        let address = host.to_socket_addrs().with_context(asking)?.next().with_context(asking)?;
        let mut stream = TcpStream::connect_timeout(&address, timeout).with_context(asking)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: windlass\r\ncontent-length: 0\r\n{token}connection: close\r\n\r\n"
        )
        .with_context(asking)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES).read_to_end(&mut answer).with_context(asking)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
        let Some(code) = head.split(' ').nth(1).and_then(|code| code.parse().ok()) else {
            bail!("the answer is no HTTP")
        };
        Ok((code, body.to_owned()))
    }
}
