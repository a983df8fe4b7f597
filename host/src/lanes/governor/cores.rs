//! As few cores as the limit needs: the kernel hands a quota to each core in pieces of 5 ms, and strands what one of them has left.
//!
//! All threads are held to the chosen cores, those that come later inherit it, and all is as before when the limit goes. A core that
//! turns out to be crowded by others is left for the next one. Health alone may use any core: it strands less than it gains, since it
//! need not wait for a lane to be taken off (measured in ADR 6).

use std::fs;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Where the kernel lists our threads.
const OWN_THREADS: &str = "/proc/self/task";

/// See the module.
#[derive(Debug)]
pub(super) struct Cores {
    /// What we were given.
    allowed: Vec<usize>,
    /// How many of them are used; all of them where it is as large as `allowed`.
    count: usize,
    /// Where in `allowed` those begin.
    first: usize,
    crowd: Crowd,
    /// CPU time of all threads, and their time in run queues, when they were last read.
    last: (u64, u64),
}

impl Cores {
    /// Notes which cores there are. Begins with the one that the kernel has put the caller on: it is seldom the busiest.
    pub(super) fn find() -> Cores {
        let set = sched_getaffinity(None).unwrap_or_default();
        let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect();
        let here = sched_getcpu();
        let first = allowed.iter().position(|core| *core == here).unwrap_or(0);
        Cores { count: allowed.len(), allowed, first, crowd: Crowd::default(), last: (0, 0) }
    }

    /// Uses so many of them, or all if `count` is none; `children` are held to the same. Says which if anything changed.
    pub(super) fn use_only(
        &mut self,
        count: Option<usize>,
        children: &[Pid],
        health: Option<Pid>,
    ) -> Option<Vec<usize>> {
        let count = count.unwrap_or(usize::MAX).clamp(1, self.allowed.len().max(1));
        if count == self.count {
            return None;
        }
        self.count = count;
        self.crowd = Crowd::default();
        self.last = waits();
        self.apply(children, health)
    }

    /// To be called once a second. Moves on if others crowd the chosen cores; `ours` says that what waits, waits for us: throttled,
    /// or behind a child of our own.
    pub(super) fn look(&mut self, ours: bool, children: &[Pid], health: Option<Pid>) -> Option<Vec<usize>> {
        if self.count >= self.allowed.len() {
            return None;
        }
        self.set_free(health);
        let now = waits();
        let (used_ns, waited_ns) = (now.0.saturating_sub(self.last.0), now.1.saturating_sub(self.last.1));
        self.last = now;
        if ours || !self.crowd.look(used_ns, waited_ns) {
            return None;
        }
        self.first = (self.first + self.count) % self.allowed.len();
        self.apply(children, health)
    }

    /// Health may use any core. It may have said who it is only after the others were held to theirs.
    fn set_free(&self, health: Option<Pid>) {
        if let Some(health) = health {
            let all = set_of(&self.allowed);
            if sched_getaffinity(Some(health)).is_ok_and(|now| now != all) {
                let _ = sched_setaffinity(Some(health), &all);
            }
        }
    }

    fn apply(&self, children: &[Pid], health: Option<Pid>) -> Option<Vec<usize>> {
        let chosen = choose(&self.allowed, self.first, self.count);
        let set = set_of(&chosen);
        let mut folders = vec![OWN_THREADS.to_owned()];
        folders.extend(children.iter().map(|child| format!("/proc/{}/task", child.as_raw_nonzero())));
        // Twice: a thread may be spawned during the first round by one that has not been reached yet.
        for folder in folders.iter().chain(&folders) {
            for thread in threads(folder).into_iter().filter(|thread| Some(*thread) != health) {
                // A thread may have ended meanwhile. Where the system refuses it altogether, all cores are used as before.
                let _ = sched_setaffinity(Some(thread), &set);
            }
        }
        self.set_free(health);
        (sched_getaffinity(None).ok()? == set).then_some(chosen)
    }
}

fn set_of(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    set
}

/// `count` of the cores, from the one at `first` on and around.
fn choose(allowed: &[usize], first: usize, count: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = allowed.iter().cycle().skip(first).take(count.min(allowed.len())).copied().collect();
    chosen.sort_unstable();
    chosen
}

/// Whether others crowd the cores we use, from look to look. Pure.
#[derive(Debug, Default)]
struct Crowd {
    crowded: u32,
    /// Looks before we may move again.
    rest: u32,
    next_rest: u32,
}

impl Crowd {
    /// Waiting for less than this in a second is no crowd.
    const LEAST_WAIT_NS: u64 = 50_000_000;
    /// Crowded looks in a row that are no accident.
    const LOOKS: u32 = 3;
    /// Looks between two moves: twice as many each time, since it may be crowded everywhere.
    const REST: (u32, u32) = (10, 600);

    /// Takes in what our threads used and waited in a second; whether to move.
    fn look(&mut self, used_ns: u64, waited_ns: u64) -> bool {
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        let crowded = waited_ns >= Crowd::LEAST_WAIT_NS && waited_ns > used_ns / 2;
        self.crowded = if crowded { self.crowded + 1 } else { 0 };
        if self.crowded < Crowd::LOOKS {
            return false;
        }
        self.crowded = 0;
        self.next_rest = (self.next_rest * 2).clamp(Crowd::REST.0, Crowd::REST.1);
        self.rest = self.next_rest;
        true
    }
}

fn threads(folder: &str) -> Vec<Pid> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// CPU time of all our threads and their time in run queues, in nanoseconds.
fn waits() -> (u64, u64) {
    let mut sum = (0, 0);
    for thread in threads(OWN_THREADS) {
        let text = fs::read_to_string(format!("{OWN_THREADS}/{}/schedstat", thread.as_raw_nonzero()));
        let text = text.unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        sum.0 += numbers.next().unwrap_or(0);
        sum.1 += numbers.next().unwrap_or(0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_taken_from_where_we_are_and_around() {
        assert_eq!(choose(&[0, 1, 2, 3], 2, 1), [2]);
        assert_eq!(choose(&[1, 5, 7], 2, 2), [1, 7]);
        assert_eq!(choose(&[1, 5], 0, 9), [1, 5]);
        assert!(choose(&[], 0, 1).is_empty());
    }

    #[test]
    fn a_crowded_core_is_left_and_a_crowded_machine_is_borne() {
        let mut crowd = Crowd::default();
        let moves = (0..1_000).filter(|_| crowd.look(100_000_000, 400_000_000)).count();
        assert!((4..=8).contains(&moves), "{moves}");
        let mut alone = Crowd::default();
        assert!(!(0..100).any(|_| alone.look(900_000_000, 100_000_000)), "waiting for one another is no crowd");
        assert!(!(0..100).any(|_| alone.look(0, 1_000_000)));
        let mut twice = Crowd::default();
        assert!(!(0..100).any(|look| twice.look(100_000_000, if look % 3 == 0 { 0 } else { 400_000_000 })));
    }
}
