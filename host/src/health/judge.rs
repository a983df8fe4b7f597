//! Whether a thread is stuck: the rule, pure, and the readings of the kernel that it needs.
//!
//! A thread is stuck if it has been in the same piece of work for `stuckSeconds`, counted in the health thread's own wake-ups, and was
//! blocked all that time or has used as much CPU time in it. Runnable without CPU is starved, which a restart would not heal. A process
//! that was stopped and goes on has counted nothing meanwhile.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use super::beat::{Beat, Reading};

/// How often the health thread looks.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// What the kernel says of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Running, or waiting for nothing but a CPU or SIGCONT.
    pub(super) is_runnable: bool,
    pub(super) cpu: Duration,
}

/// Why a thread is held to be stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stuck {
    /// It waits for something that does not come.
    Blocked,
    /// It computes and does not come back.
    Spinning,
    /// It has ended, which it does only when the host does.
    Gone,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stuck::Blocked => "blocked",
            Stuck::Spinning => "spinning",
            Stuck::Gone => "gone",
        })
    }
}

/// Follows one thread from look to look.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The piece of work that is followed; none while none is due.
    turns: Option<u64>,
    looks: u64,
    blocked_looks: u64,
    cpu_at_first: Duration,
    cpu_at_last: Duration,
}

impl Watch {
    /// Takes in one look. `stuck_looks` is `stuckSeconds` in looks.
    pub(super) fn look(&mut self, reading: Reading, sample: Sample, stuck_looks: u64) -> Option<Stuck> {
        let turns = reading.is_due.then_some(reading.turns);
        if turns.is_none() || turns != self.turns {
            *self = Watch { turns, looks: 0, blocked_looks: 0, cpu_at_first: sample.cpu, cpu_at_last: sample.cpu };
            return None;
        }
        self.looks += 1;
        let blocked = !sample.is_runnable && sample.cpu == self.cpu_at_last;
        self.blocked_looks = if blocked { self.blocked_looks + 1 } else { 0 };
        self.cpu_at_last = sample.cpu;
        if self.blocked_looks >= stuck_looks {
            return Some(Stuck::Blocked);
        }
        let spun = sample.cpu.saturating_sub(self.cpu_at_first);
        let limit = TICK.saturating_mul(u32::try_from(stuck_looks).unwrap_or(u32::MAX));
        (self.looks >= stuck_looks && spun >= limit).then_some(Stuck::Spinning)
    }
}

/// The kernel's files on one thread, kept open: a descriptor may not be had at the bad moment.
#[derive(Debug, Default)]
pub(super) struct Files {
    thread: i32,
    open: Option<(File, File)>,
}

impl Files {
    /// Reads the thread's state and CPU time; none before it has registered, or if the kernel does not tell.
    pub(super) fn sample(&mut self, beat: &Beat) -> Option<Sample> {
        let thread = beat.thread();
        if thread == 0 {
            return None;
        }
        if self.thread != thread || self.open.is_none() {
            let folder = format!("/proc/self/task/{thread}");
            self.open = File::open(format!("{folder}/stat")).ok().zip(File::open(format!("{folder}/schedstat")).ok());
            self.thread = thread;
        }
        let (stat, schedstat) = self.open.as_ref()?;
        let mut buffer = [0; 512];
        // The name stands in brackets and may hold anything; the state is the first letter behind the last bracket.
        let read = stat.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(buffer.get(..read)?).ok()?;
        let state = text.rsplit_once(')')?.1.trim_start().chars().next()?;
        let read = schedstat.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(buffer.get(..read)?).ok()?;
        let cpu_ns = text.split_whitespace().next()?.parse().ok()?;
        // Stopped (T) or traced (t) is as good as runnable: it would go on if it were let.
        Some(Sample { is_runnable: matches!(state, 'R' | 'T' | 't'), cpu: Duration::from_nanos(cpu_ns) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// What a thread that has a CPU to itself uses from look to look.
    const LOOK: Duration = TICK;

    fn looks(samples: impl IntoIterator<Item = (u64, bool, bool, Duration)>) -> Vec<Option<Stuck>> {
        let mut watch = Watch::default();
        let look =
            |(turns, is_due, is_runnable, cpu)| watch.look(Reading { turns, is_due }, Sample { is_runnable, cpu }, 3);
        samples.into_iter().map(look).collect()
    }

    #[test]
    fn blocked_in_one_poll_is_stuck() {
        let told = looks((0..5).map(|_| (7, true, false, LOOK)));
        assert_eq!(told, [None, None, None, Some(Stuck::Blocked), Some(Stuck::Blocked)]);
    }

    #[test]
    fn spinning_in_one_poll_is_stuck_by_its_own_cpu_time() {
        let told = looks((0..5).map(|look| (7, true, true, LOOK * look)));
        assert_eq!(told, [None, None, None, Some(Stuck::Spinning), Some(Stuck::Spinning)]);
    }

    #[test]
    fn starved_is_not_stuck() {
        // Runnable, and a twentieth of a CPU.
        assert!(looks((0..50).map(|look| (7, true, true, LOOK * look / 20))).iter().all(Option::is_none));
    }

    #[test]
    fn a_sleep_that_lasts_too_long_counts_from_when_it_should_have_ended() {
        // Asleep as declared, and then no longer.
        let told = looks((0..7).map(|look| (8, look >= 3, false, LOOK)));
        assert_eq!(told, [None, None, None, None, None, None, Some(Stuck::Blocked)]);
    }

    #[test]
    fn idle_and_moving_threads_are_never_stuck() {
        assert!(looks((0..50).map(|_| (8, false, false, LOOK))).iter().all(Option::is_none));
        assert!(looks((0..50).map(|look| (2 * look + 1, true, true, LOOK * look as u32))).iter().all(Option::is_none));
    }

    #[test]
    fn a_stopped_process_has_counted_nothing() {
        // One look before and one after, however long it took.
        assert!(looks([(7, true, true, LOOK), (7, true, false, LOOK)]).iter().all(Option::is_none));
    }

    #[test]
    fn the_kernel_tells_a_blocked_thread_from_a_spinning_one() {
        let beats = [Arc::new(Beat::default()), Arc::new(Beat::default())];
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = beats
            .iter()
            .enumerate()
            .map(|(spins, beat)| {
                let (beat, stop) = (beat.clone(), stop.clone());
                std::thread::spawn(move || {
                    beat.register();
                    beat.enter();
                    while !stop.load(Ordering::Relaxed) {
                        if spins == 0 {
                            std::thread::park_timeout(Duration::from_secs(60));
                        }
                    }
                    beat.leave();
                })
            })
            .collect();
        let sample = |beat: &Beat| {
            let mut files = Files::default();
            let first = loop {
                if let Some(sample) = files.sample(beat) {
                    break sample;
                }
                std::thread::yield_now();
            };
            std::thread::sleep(Duration::from_millis(200));
            (first, files.sample(beat).unwrap())
        };
        // The first look may find the thread on its way to sleep.
        std::thread::sleep(Duration::from_millis(50));
        let (first, second) = sample(&beats[0]);
        assert!(!second.is_runnable && first.cpu == second.cpu, "{first:?} {second:?}");
        let (first, second) = sample(&beats[1]);
        assert!(second.is_runnable && second.cpu > first.cpu, "{first:?} {second:?}");
        assert!(beats.iter().all(|beat| beat.read().is_due));
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.thread().unpark();
            thread.join().unwrap();
        }
        assert!(beats.iter().all(|beat| !beat.read().is_due));
    }
}
