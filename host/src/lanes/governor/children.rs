//! Children whose CPU time is charged and paced: each is stopped when it has had its share for the moment, and continued after.
//!
//! A child's time is in no clock of ours until it has been reaped, and no niceness keeps it from using up the quota: within one group
//! the kernel stops everyone alike. So it is held to a duty cycle with SIGSTOP and SIGCONT (ADR 6 has what else was measured).

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use super::pacer::Pacer;
use crate::lanes::clock;

/// What a child may use in one go.
const BURST_NS: f64 = 3_000_000.0;
/// What a child is made to pay back at most.
const MOST_DEBT_NS: f64 = 50_000_000.0;
/// What part of the rate children get while lanes have work.
const SHARE_BESIDE_LANES: f64 = 0.5;
/// Children stand still while so much is owed by all together.
const WHILE_OWED_NS: f64 = 2_000_000.0;
/// How soon, and how late, a child is looked at again, in nanoseconds.
const LOOK_NS: (f64, f64) = (500_000.0, 20_000_000.0);

/// One child's budget. Pure.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Duty {
    balance_ns: f64,
    is_stopped: bool,
}

impl Duty {
    const NEW: Duty = Duty { balance_ns: BURST_NS, is_stopped: false };

    /// `since_ns` have passed in which the child used `used_ns` and may use `rate_cpus`. Returns whether it is to stand still from
    /// now on, if that is new.
    fn turn(&mut self, since_ns: f64, used_ns: f64, rate_cpus: f64, others_owe: bool) -> Option<bool> {
        self.balance_ns = (self.balance_ns + since_ns * rate_cpus - used_ns).clamp(-MOST_DEBT_NS, BURST_NS);
        let stop = match self.is_stopped {
            true => self.balance_ns < BURST_NS || others_owe,
            false => self.balance_ns <= 0.0 || others_owe,
        };
        (std::mem::replace(&mut self.is_stopped, stop) != stop).then_some(stop)
    }

    /// When to look again.
    fn next_look_ns(&self, rate_cpus: f64) -> f64 {
        let until = match self.is_stopped {
            true => (BURST_NS - self.balance_ns) / rate_cpus.max(1e-6),
            false => self.balance_ns,
        };
        until.clamp(LOOK_NS.0, LOOK_NS.1)
    }
}

#[derive(Debug)]
struct Child {
    pid: Pid,
    clock_ns: u64,
    looked_at_ns: u64,
    duty: Duty,
}

/// All children there are at the moment.
#[derive(Debug, Default)]
pub(super) struct Children {
    /// Held for a few system calls by the governor's thread, and by whoever adopts or lets go.
    list: Mutex<Vec<Child>>,
}

impl Children {
    fn lock(&self) -> MutexGuard<'_, Vec<Child>> {
        // Each entry is whole at any moment.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, pid: Pid, now_ns: u64) {
        let clock_ns = clock::child_cpu_ns(pid).unwrap_or(0);
        self.lock().push(Child { pid, clock_ns, looked_at_ns: now_ns, duty: Duty::NEW });
    }

    /// Lets a child go; it is left running.
    pub(super) fn remove(&self, pid: Pid) {
        let mut list = self.lock();
        if let Some(at) = list.iter().position(|child| child.pid == pid) {
            let child = list.swap_remove(at);
            // Under the lock: nobody may stop it again after this.
            child.go_on();
        }
    }

    pub(super) fn pids(&self) -> Vec<Pid> {
        self.lock().iter().map(|child| child.pid).collect()
    }

    /// Continues all: the limit is gone, or the governor.
    pub(super) fn release(&self) {
        for child in self.lock().iter_mut() {
            child.go_on();
            child.duty = Duty::NEW;
        }
    }

    /// Charges and paces each; returns in how many nanoseconds to do so again, if there is any.
    pub(super) fn turn(&self, pacer: &Pacer, rate_cpus: f64, now_ns: u64) -> Option<u64> {
        let mut list = self.lock();
        if list.is_empty() {
            return None;
        }
        let readings: Vec<(u64, u64)> = list.iter_mut().map(|child| child.read(now_ns)).collect();
        let used_ns = readings.iter().map(|(_, used_ns)| used_ns).sum();
        let (busy, owed) = pacer.with_bucket(|bucket, at_ns| {
            bucket.child_used(used_ns);
            (bucket.lanes_are_busy(at_ns), bucket.balance_ns(at_ns) < -WHILE_OWED_NS)
        });
        let rate_cpus = rate_cpus * if busy { SHARE_BESIDE_LANES } else { 1.0 } / list.len() as f64;
        let mut next_ns = LOOK_NS.1;
        for (child, (since_ns, used_ns)) in list.iter_mut().zip(readings) {
            match child.duty.turn(since_ns as f64, used_ns as f64, rate_cpus, owed) {
                // It may have ended meanwhile: whoever adopted it will say so.
                Some(true) => drop(kill_process(child.pid, Signal::STOP)),
                Some(false) => drop(kill_process(child.pid, Signal::CONT)),
                None => {}
            }
            next_ns = next_ns.min(child.duty.next_look_ns(rate_cpus));
        }
        Some(next_ns as u64)
    }
}

impl Child {
    /// How long ago it was last looked at, and what it has used since.
    fn read(&mut self, now_ns: u64) -> (u64, u64) {
        // One that has ended uses nothing more.
        let clock_ns = clock::child_cpu_ns(self.pid).unwrap_or(self.clock_ns);
        let read = (now_ns.saturating_sub(self.looked_at_ns), clock_ns.saturating_sub(self.clock_ns));
        (self.clock_ns, self.looked_at_ns) = (clock_ns, now_ns);
        read
    }

    fn go_on(&self) {
        if self.duty.is_stopped {
            let _ = kill_process(self.pid, Signal::CONT);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_busy_child_gets_its_rate_in_bursts() {
        let (mut duty, mut now, mut used, mut signals) = (Duty::NEW, 0.0, 0.0, 0);
        while now < 10e9 {
            let step = duty.next_look_ns(0.2);
            let spent = if duty.is_stopped { 0.0 } else { step };
            (now, used) = (now + step, used + spent);
            signals += u32::from(duty.turn(step, spent, 0.2, false).is_some());
        }
        assert!((used / now - 0.2).abs() < 0.01, "{}", used / now);
        assert!((500..2_000).contains(&signals), "{signals} signals in ten seconds");
    }

    #[test]
    fn a_child_stands_still_while_others_owe_and_goes_on_after() {
        let mut duty = Duty::NEW;
        assert_eq!(duty.turn(1e6, 0.0, 0.2, true), Some(true));
        assert_eq!(duty.turn(1e6, 0.0, 0.2, true), None);
        assert_eq!(duty.turn(1e6, 0.0, 0.2, false), Some(false));
    }

    /// Computes until it is dropped.
    struct Computes(std::process::Child);

    impl Computes {
        fn start() -> Computes {
            Computes(std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap())
        }

        fn pid(&self) -> Pid {
            Pid::from_child(&self.0)
        }

        fn is_stopped(&self) -> bool {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        }

        fn wait_until(&self, stopped: bool, meanwhile: impl Fn()) {
            let until = Instant::now() + Duration::from_secs(20);
            while self.is_stopped() != stopped {
                assert!(Instant::now() < until, "the child is not as wanted: stopped should be {stopped}");
                meanwhile();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    impl Drop for Computes {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_child_is_stopped_when_it_had_its_share_and_never_left_so() {
        let (children, pacer) = (Children::default(), Pacer::new());
        let (one, other) = (Computes::start(), Computes::start());
        let now_ns = || clock::uptime_ns(Instant::now());
        let turn = || {
            let _ = children.turn(&pacer, 0.01, now_ns());
        };
        assert_eq!(children.turn(&pacer, 0.01, now_ns()), None, "there is none yet");
        for child in [&one, &other] {
            children.add(child.pid(), now_ns());
        }
        one.wait_until(true, turn);
        other.wait_until(true, turn);
        children.remove(one.pid());
        one.wait_until(false, || {});
        assert_eq!(children.pids(), [other.pid()]);
        children.release();
        other.wait_until(false, || {});
    }

    #[test]
    fn a_child_that_is_gone_costs_nothing() {
        let (children, pacer) = (Children::default(), Pacer::new());
        let gone = Computes::start().pid();
        children.add(gone, 0);
        assert!(children.turn(&pacer, 0.01, 1_000_000).is_some());
        assert_eq!(clock::child_cpu_ns(gone), None);
        children.remove(gone);
        assert!(children.pids().is_empty());
    }

    #[test]
    fn a_childs_debt_is_bounded() {
        let mut duty = Duty::NEW;
        assert_eq!(duty.turn(0.0, 60e9, 0.2, false), Some(true));
        assert_eq!(duty.turn(300e6, 0.0, 0.2, false), Some(false), "after 53 ms at a fifth of a CPU, and no later");
    }
}
