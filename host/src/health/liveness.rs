//! `/health/live`: red for what a restart heals, and for nothing else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Options;
use super::board::Board;
use super::judge::{Files, Stuck, TICK, Watch};
use crate::text::shown;

/// Looks at all beats once a tick, and remembers the verdict.
pub(super) struct Liveness {
    board: Arc<Board>,
    stuck: Duration,
    stuck_looks: u64,
    /// The scheduler first, then the lanes.
    threads: Vec<Thread>,
    termination_log: PathBuf,
    red: Option<String>,
}

struct Thread {
    name: String,
    watch: Watch,
    files: Files,
    stuck: Option<Stuck>,
}

impl Liveness {
    pub(super) fn new(options: &Options) -> Liveness {
        let thread = |name: String| Thread { name, watch: Watch::default(), files: Files::default(), stuck: None };
        let lanes = (0..options.board.lanes().len()).map(|lane| thread(format!("lane {lane}")));
        Liveness {
            board: options.board.clone(),
            stuck: options.stuck,
            stuck_looks: (options.stuck.as_secs_f64() / TICK.as_secs_f64()).ceil() as u64,
            threads: std::iter::once(thread("the scheduler".to_owned())).chain(lanes).collect(),
            termination_log: options.termination_log.clone(),
            red: None,
        }
    }

    /// Why it is red; none while it is green.
    pub(super) fn red(&self) -> Option<&str> {
        self.red.as_deref()
    }

    /// One look, to be called once a [`TICK`] of the health thread's own clock.
    pub(super) fn tick(&mut self) {
        let board = self.board.clone();
        let beats = std::iter::once(board.scheduler()).chain(board.lanes());
        for (thread, beat) in self.threads.iter_mut().zip(beats) {
            thread.stuck = match thread.files.sample(beat) {
                Some(sample) => thread.watch.look(beat.read(), sample, self.stuck_looks),
                // Before it has registered, or when all of them end together.
                None if beat.thread() == 0 || board.is_draining() => None,
                None => Some(Stuck::Gone),
            };
        }
        let now = self.verdict();
        match (&self.red, &now) {
            (None, Some(reason)) => self.turn_red(reason),
            (Some(_), None) => tracing::info!("liveness is green again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.red = now;
    }

    fn verdict(&self) -> Option<String> {
        let seconds = self.stuck.as_secs_f64();
        for (index, thread) in self.threads.iter().enumerate() {
            let Some(stuck) = thread.stuck else { continue };
            let name = &thread.name;
            return Some(match (stuck, index) {
                (Stuck::Gone, _) => format!("{name} is gone: its thread has ended"),
                (Stuck::Blocked | Stuck::Spinning, 0) => {
                    format!("{name} has given no beat for {seconds} s: it is {stuck}")
                }
                (Stuck::Blocked | Stuck::Spinning, _) => {
                    format!("{name} has been in one poll for {seconds} s: it is {stuck}")
                }
            });
        }
        let snapshot = self.board.snapshot();
        let escalating = snapshot.plugins.iter().find(|view| view.escalates)?;
        let description = shown(&escalating.description, 512);
        Some(format!("plugin {} is Unhealthy and escalates: {description}", escalating.name))
    }

    fn turn_red(&self, reason: &str) {
        self.board.turned_red();
        tracing::error!(reason, "liveness turned red");
        // Kubernetes makes the file; where there is none, nobody reads it.
        let file = std::fs::OpenOptions::new().append(true).open(&self.termination_log);
        if let Ok(mut file) = file {
            use std::io::Write as _;
            if let Err(error) = writeln!(file, "{reason}") {
                tracing::warn!(%error, "the termination log could not be written");
            }
        }
    }
}
