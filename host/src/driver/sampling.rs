//! Which runs are sampled when: each once a second, never many at a time. Pure.
//!
//! All 1,000 at once held a core for 2 ms each second against the health thread, and a probe that met it waited.

use std::time::Duration;

use crate::core::name::RunId;
use crate::core::time::Mono;

/// How often what a run has used up is told to the supervisor while it goes on.
const EVERY: Duration = Duration::from_secs(1);

/// How many runs are sampled at a time, roughly.
const AT_ONCE: usize = 32;

/// In how many parts they are sampled at most: each part is one wake-up.
const MOST_PARTS: usize = 20;

/// Goes round the parts.
pub(super) struct Sampling {
    at: Mono,
    part: u64,
}

/// The runs whose turn it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    part: u64,
    parts: u64,
}

impl Sampling {
    pub(super) fn new() -> Sampling {
        Sampling { at: Mono::START, part: 0 }
    }

    /// When the next part is due.
    pub(super) fn at(&self) -> Mono {
        self.at
    }

    /// The part whose turn it is, of so many runs; the next one is due a part of a second after `now`.
    pub(super) fn next_part(&mut self, runs: usize, now: Mono) -> Part {
        let parts = u32::try_from((runs / AT_ONCE).clamp(1, MOST_PARTS)).unwrap_or(1);
        self.at = now + EVERY / parts;
        self.part = (self.part + 1) % u64::from(parts);
        Part { part: self.part, parts: u64::from(parts) }
    }
}

impl Part {
    /// Whether this run belongs to it.
    pub(super) fn holds(self, run: RunId) -> bool {
        run.0 % self.parts == self.part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_has_its_turn_once_a_second_and_few_at_a_time() {
        for (runs, most_at_once) in [(1, 1), (31, 31), (64, 32), (1_000, 50)] {
            let (mut sampling, mut turns) = (Sampling::new(), vec![0; runs]);
            let mut now = Mono::START;
            while now < Mono::START + EVERY {
                let part = sampling.next_part(runs, now);
                let sampled: Vec<_> = (0..runs).filter(|run| part.holds(RunId(*run as u64))).collect();
                assert!(sampled.len() <= most_at_once, "{runs}: {}", sampled.len());
                sampled.into_iter().for_each(|run| turns[run] += 1);
                now = sampling.at();
            }
            assert!(turns.iter().all(|turns| *turns == 1), "{runs}: {turns:?}");
        }
    }
}
