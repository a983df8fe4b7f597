//! The thread that writes log lines, and the bounded way to it.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use tracing_subscriber::fmt::MakeWriter;

use crate::wedge::{self, Point};

/// How many lines may wait: some megabytes of them at most, and seconds of a busy host.
const WAITING: usize = 8_192;

/// How long a flush waits for a reader that does not read.
const FLUSH: Duration = Duration::from_secs(1);

static CHANNEL: OnceLock<SyncSender<Item>> = OnceLock::new();

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Hands lines to the thread, or counts them.
#[derive(Clone)]
pub(super) struct Lines {
    channel: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

/// Starts the thread.
pub(super) fn start() -> Result<Lines> {
    let (channel, lines) = sync_channel(WAITING);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = dropped.clone();
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_all(&lines, &counted))
        .context("starting the log's thread")?;
    // Only the first set-up of a process counts.
    let _ = CHANNEL.set(channel.clone());
    Ok(Lines { channel, dropped })
}

fn write_all(lines: &Receiver<Item>, dropped: &AtomicU64) {
    let mut out = io::stderr();
    let mut batch = Vec::with_capacity(64 << 10);
    while let Ok(first) = lines.recv() {
        wedge::pass(Point::Log);
        let mut flushed = Vec::new();
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                Item::Line(line) => batch.extend_from_slice(&line),
                Item::Flush(done) => flushed.push(done),
            }
            next = if batch.len() < 64 << 10 { lines.try_recv().ok() } else { None };
        }
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let _ =
                writeln!(batch, "{{\"level\":\"WARN\",\"message\":\"log lines were dropped\",\"lines\":{missing}}}");
        }
        // A reader that has gone away is no reason to stop working.
        let _ = out.write_all(&batch);
        batch.clear();
        for done in flushed {
            let _ = done.try_send(());
        }
    }
}

/// Waits until what was logged before is written, for a second at most.
pub fn flush() {
    let Some(channel) = CHANNEL.get() else { return };
    let (done, wait) = sync_channel(1);
    if channel.try_send(Item::Flush(done)).is_ok() {
        let _ = wait.recv_timeout(FLUSH);
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, text: Vec::new() }
    }
}

/// One line in the making; sent when it is dropped.
pub(super) struct Line<'a> {
    lines: &'a Lines,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.lines.channel.try_send(Item::Line(text))
        {
            self.lines.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
