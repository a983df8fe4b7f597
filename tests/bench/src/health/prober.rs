//! The prober: a process of its own that asks as the kubelet does, and what it found.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::report::percentile;

/// How long one probe may take, from the first packet to the last.
const PATIENCE: Duration = Duration::from_secs(1);

/// What some probes found.
#[derive(Default)]
pub(crate) struct Probed {
    ms: Vec<f64>,
    is_sorted: bool,
    pub(crate) failed: usize,
}

impl Probed {
    pub(crate) fn add(&mut self, other: Probed) {
        self.ms.extend(other.ms);
        self.failed += other.failed;
        self.is_sorted = false;
    }

    /// Milliseconds, the shortest first. One that failed counts as [`PATIENCE`].
    pub(crate) fn sorted_ms(&mut self) -> &[f64] {
        if !self.is_sorted {
            self.ms.sort_by(f64::total_cmp);
            self.is_sorted = true;
        }
        &self.ms
    }

    pub(super) fn p50(&self) -> f64 {
        let mut ms = self.ms.clone();
        ms.sort_by(f64::total_cmp);
        percentile(&ms, 0.5)
    }
}

/// Asks `address` so many times, from another process.
pub(crate) fn probe(address: &str, probes: usize) -> Probed {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["prober", address, &probes.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "the prober failed");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut probed = Probed::default();
    for line in text.lines() {
        match line.parse() {
            Ok(ms) => probed.ms.push(ms),
            Err(_) => {
                probed.failed += 1;
                probed.ms.push(PATIENCE.as_secs_f64() * 1e3);
            }
        }
    }
    assert_eq!(probed.ms.len(), probes, "the prober tells of each probe");
    probed
}

/// The other process: one probe after another, a line for each: its milliseconds, or `failed`.
pub(crate) fn prober(arguments: &[String]) {
    let [_, address, probes] = arguments else { panic!("prober ADDRESS PROBES") };
    let (address, probes): (SocketAddr, u32) = (address.parse().unwrap(), probes.parse().unwrap());
    // Said at the end, so that whoever reads it is not woken in the middle.
    let mut said = String::new();
    for number in 0..probes {
        let began = Instant::now();
        match ask(address) {
            Ok(()) if began.elapsed() < PATIENCE => said += &format!("{}\n", began.elapsed().as_secs_f64() * 1e3),
            Ok(()) | Err(_) => said += "failed\n",
        }
        // 1.5 to 2.5 ms, never in step with anything that ticks.
        let jitter_us = u64::from(number.wrapping_mul(2_654_435_761) >> 22);
        std::thread::sleep(Duration::from_micros(1_500 + jitter_us));
    }
    print!("{said}");
}

/// One probe on a connection of its own.
fn ask(address: SocketAddr) -> std::io::Result<()> {
    let until = Instant::now() + PATIENCE;
    let left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&address, left())?;
    stream.set_nodelay(true)?;
    stream.write_all(
        b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nuser-agent: kube-probe/1.33\r\nconnection: close\r\n\r\n",
    )?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut piece)? {
            0 => break,
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
    match answer.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(std::io::ErrorKind::InvalidData.into()),
    }
}
