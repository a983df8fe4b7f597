//! What a guest writes to stdout and stderr, cut into lines of its run's log.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::attempt::{Line, LineSource, Probe};

/// A longer line is cut in pieces, so that output without line ends takes no more memory than this.
const LINE_BYTES: usize = 8 << 10;

/// How much one write may bring: what a slice can take in without being late.
const WRITE_BYTES: usize = 64 << 10;

/// One of the two streams. What has no line end yet is written when the last handle goes.
#[derive(Clone)]
pub(super) struct Output(Arc<Inner>);

struct Inner {
    probe: Arc<Probe>,
    source: LineSource,
    partial: Mutex<Vec<u8>>,
}

impl Output {
    pub(super) fn new(probe: Arc<Probe>, source: LineSource) -> Output {
        Output(Arc::new(Inner { probe, source, partial: Mutex::new(Vec::new()) }))
    }

    /// Writes out what has no line end yet.
    pub(super) fn finish(&self) {
        self.0.finish();
    }
}

impl Inner {
    fn take(&self, mut bytes: &[u8]) {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        while !bytes.is_empty() {
            let room = LINE_BYTES - partial.len();
            let window = bytes.get(..room.min(bytes.len())).unwrap_or(bytes);
            match window.iter().position(|byte| *byte == b'\n') {
                Some(at) => {
                    let (line, rest) = bytes.split_at(at);
                    if partial.is_empty() {
                        self.emit(line);
                    } else {
                        partial.extend_from_slice(line);
                        self.emit(&partial);
                        partial.clear();
                    }
                    bytes = rest.get(1..).unwrap_or_default();
                }
                None => {
                    partial.extend_from_slice(window);
                    bytes = bytes.get(window.len()..).unwrap_or_default();
                    if partial.len() >= LINE_BYTES {
                        self.emit(&partial);
                        partial.clear();
                    }
                }
            }
        }
    }

    fn emit(&self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.probe.line(&Line { source: self.source, text: &String::from_utf8_lossy(line), fields: &[] });
    }

    fn finish(&self) {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        if !partial.is_empty() {
            self.emit(&partial);
            partial.clear();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.finish();
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

#[async_trait::async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let taken = bytes.get(..WRITE_BYTES).unwrap_or(bytes);
        self.0.take(taken);
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;
    use crate::core::health::Report;
    use crate::guest::attempt::{Listener, Progress};

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl Listener for Lines {
        fn line(&self, line: &Line<'_>) {
            self.0.lock().unwrap().push(line.text.to_owned());
        }
        fn reported(&self, _: Report) {}
        fn progressed(&self, _: &Progress) {}
    }

    fn written(log_bytes: u64, pieces: &[&[u8]]) -> Vec<String> {
        let lines = Arc::new(Lines::default());
        let output = Output::new(Probe::new(lines.clone(), None, log_bytes), LineSource::Stdout);
        pieces.iter().for_each(|piece| output.0.take(piece));
        output.finish();
        drop(output);
        lines.0.lock().unwrap().clone()
    }

    #[test]
    fn pieces_become_lines() {
        assert_eq!(written(1000, &[b"one\ntw", b"o\r\n\nthree"]), ["one", "two", "", "three"]);
        assert_eq!(written(1000, &[b"\xff\xfe\n"]), ["\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn a_line_without_an_end_is_cut_and_takes_no_more_memory() {
        let lines = written(1 << 20, &[&vec![b'x'; 20_000]]);
        assert_eq!(
            lines.iter().map(String::len).collect::<Vec<_>>(),
            [LINE_BYTES, LINE_BYTES, 20_000 - 2 * LINE_BYTES]
        );
    }

    #[test]
    fn more_than_the_limit_is_dropped_and_said_once() {
        let lines = written(10, &[b"12345\n12345\n1\n2\n"]);
        assert_eq!(lines.len(), 2);
        assert!(lines[1].contains("limits.logs"), "{lines:?}");
    }
}
