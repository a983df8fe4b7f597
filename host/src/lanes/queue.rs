//! Which group's task is next: weighted fair queueing over virtual time. Pure; the lanes hold it under a mutex.
//!
//! Virtual time belongs to the group and advances by CPU time over weight, so a group's share does not depend on how many tasks it has
//! or how short they are. The group goes first whose next turn would end first in virtual time, were it to cost what its last one did: the
//! finish tags of Demers, Keshav and Shenker, "Analysis and Simulation of a Fair Queueing Algorithm" (SIGCOMM 1989). So one whose turns
//! are short, or whose weight is large, does not wait while a thousand others begin. Of one that was not runnable before, half a usual
//! turn is expected at most (as Linux' EEVDF does with what is new), so that it goes before those that never sleep. It starts at
//! the larger of its own virtual time and the least of all that are runnable (`min_vruntime` of Linux' CFS), so that sleeping earns no
//! share, and neither does being new.

use std::collections::{BTreeSet, VecDeque};

/// The weight that stands for one full share.
const UNIT_WEIGHT: u128 = 100;

/// What a whole turn costs in CPU nanoseconds, nearly: what is usual before there was one.
const FULL_TURN_NS: u64 = 1_000_000;

/// Of how many turns the usual one is the mean, nearly: an exponential average.
const USUAL_OF: i64 = 32;

/// Stands for a group in one [`Queue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupKey(u32);

#[derive(Debug)]
struct Group<T> {
    weight: u32,
    /// CPU nanoseconds × 100 / weight.
    virtual_time: u128,
    /// What the last turn of this group cost: charged in advance when the next one begins, and set right when it ends, so that lanes
    /// that pick at the same moment do not all pick the same group.
    expected_ns: u64,
    /// Its place in `runnable`, while it has tasks that wait.
    place: Option<Place>,
    ready: VecDeque<T>,
}

/// Where a group stands among those that are runnable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    virtual_time: u128,
    /// Virtual time at which its next turn would end.
    finish: u128,
    /// Makes groups that are equal otherwise take turns.
    nth: u64,
}

/// The runnable groups in two orders.
#[derive(Debug, Default)]
struct Order {
    by_finish: BTreeSet<(u128, u64, GroupKey)>,
    by_virtual_time: BTreeSet<(u128, GroupKey)>,
    places: u64,
}

impl Order {
    fn next_place(&mut self) -> u64 {
        self.places += 1;
        self.places
    }

    /// Gives a group its place, as of its virtual time now.
    fn enter<T>(&mut self, key: GroupKey, group: &mut Group<T>, turn_ns: u64, nth: u64) {
        let finish = group.virtual_time + scaled(turn_ns, group.weight);
        group.place = Some(Place { virtual_time: group.virtual_time, finish, nth });
        self.by_finish.insert((finish, nth, key));
        self.by_virtual_time.insert((group.virtual_time, key));
    }

    fn leave(&mut self, key: GroupKey, place: Place) {
        self.by_finish.remove(&(place.finish, place.nth, key));
        self.by_virtual_time.remove(&(place.virtual_time, key));
    }
}

/// Groups of runnable tasks.
#[derive(Debug)]
pub(super) struct Queue<T> {
    groups: Vec<Option<Group<T>>>,
    vacant: Vec<u32>,
    runnable: Order,
    /// The least virtual time of the runnable: what newcomers start at. Never goes back.
    now: u128,
    /// What a turn costs on average, in CPU nanoseconds.
    usual_ns: u64,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Queue<T> {
        Queue { groups: Vec::new(), vacant: Vec::new(), runnable: Order::default(), now: 0, usual_ns: FULL_TURN_NS }
    }

    /// Adds a group. A `weight` of 100 is one full share; 0 counts as 1.
    pub(super) fn add_group(&mut self, weight: u32) -> GroupKey {
        let group = Group {
            weight: weight.max(1),
            virtual_time: 0,
            expected_ns: FULL_TURN_NS,
            place: None,
            ready: VecDeque::new(),
        };
        if let Some(index) = self.vacant.pop()
            && let Some(slot) = self.groups.get_mut(index as usize)
        {
            *slot = Some(group);
            return GroupKey(index);
        }
        self.groups.push(Some(group));
        GroupKey(u32::try_from(self.groups.len() - 1).unwrap_or(u32::MAX))
    }

    /// Takes a group away, with the tasks that still wait in it.
    pub(super) fn remove_group(&mut self, key: GroupKey) -> VecDeque<T> {
        let Some(group) = self.groups.get_mut(key.0 as usize).and_then(Option::take) else {
            return VecDeque::new();
        };
        if let Some(place) = group.place {
            self.runnable.leave(key, place);
        }
        self.vacant.push(key.0);
        group.ready
    }

    /// Makes a task of `key` runnable that was not before. Gives the task back if the group is gone.
    pub(super) fn push(&mut self, key: GroupKey, task: T) -> Result<(), T> {
        self.add(key, task, self.usual_ns / 2)
    }

    /// Puts a task back whose turn ended before it did. Gives it back if the group is gone.
    pub(super) fn put_back(&mut self, key: GroupKey, task: T) -> Result<(), T> {
        self.add(key, task, u64::MAX)
    }

    fn add(&mut self, key: GroupKey, task: T, most_ns: u64) -> Result<(), T> {
        let now = self.now;
        let Some(group) = self.groups.get_mut(key.0 as usize).and_then(Option::as_mut) else { return Err(task) };
        group.ready.push_back(task);
        if group.place.is_none() {
            group.virtual_time = group.virtual_time.max(now);
            let nth = self.runnable.next_place();
            let turn_ns = group.expected_ns.min(most_ns);
            self.runnable.enter(key, group, turn_ns, nth);
        }
        Ok(())
    }

    /// Takes the first task of the group whose turn would end first, and what to give back to [`Queue::charge`].
    pub(super) fn pop(&mut self) -> Option<(Turn, T)> {
        loop {
            if let Some((least, _)) = self.runnable.by_virtual_time.first() {
                self.now = self.now.max(*least);
            }
            let (_, _, key) = *self.runnable.by_finish.first()?;
            let group = self.groups.get_mut(key.0 as usize)?.as_mut()?;
            if let Some(place) = group.place.take() {
                self.runnable.leave(key, place);
            }
            let Some(task) = group.ready.pop_front() else { continue };
            let advance_ns = group.expected_ns;
            group.virtual_time += scaled(advance_ns, group.weight);
            if !group.ready.is_empty() {
                let nth = self.runnable.next_place();
                self.runnable.enter(key, group, advance_ns, nth);
            }
            return Some((Turn { key, advance_ns }, task));
        }
    }

    /// Charges what a turn really cost, in CPU nanoseconds.
    pub(super) fn charge(&mut self, turn: Turn, cpu_ns: u64) {
        let Some(group) = self.groups.get_mut(turn.key.0 as usize).and_then(Option::as_mut) else { return };
        let before = group.virtual_time;
        group.virtual_time =
            (before + scaled(cpu_ns, group.weight)).saturating_sub(scaled(turn.advance_ns, group.weight));
        // A task that was killed in the queue tells nothing of the others.
        if cpu_ns > 0 {
            group.expected_ns = cpu_ns;
            let above = cpu_ns.cast_signed() - self.usual_ns.cast_signed();
            self.usual_ns = self.usual_ns.saturating_add_signed(above / USUAL_OF);
        }
        if let Some(place) = group.place {
            self.runnable.leave(turn.key, place);
            self.runnable.enter(turn.key, group, group.expected_ns, place.nth);
        }
    }
}

/// One task's turn on a lane; hand it back to [`Queue::charge`], or the group keeps only what was charged in advance.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(super) struct Turn {
    key: GroupKey,
    advance_ns: u64,
}

fn scaled(cpu_ns: u64, weight: u32) -> u128 {
    u128::from(cpu_ns) * UNIT_WEIGHT / u128::from(weight)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    /// Runs `turns` turns on one lane: each task costs `cost_ns`, and goes back in the queue.
    fn shares(queue: &mut Queue<usize>, keys: &[GroupKey], turns: usize, cost_ns: impl Fn(usize) -> u64) -> Vec<u64> {
        let mut cpu_ns = vec![0; keys.len()];
        for _ in 0..turns {
            let (turn, owner) = queue.pop().unwrap();
            cpu_ns[owner] += cost_ns(owner);
            queue.charge(turn, cost_ns(owner));
            queue.put_back(keys[owner], owner).unwrap();
        }
        cpu_ns
    }

    #[test]
    fn equal_groups_get_equal_shares_whatever_their_slices_cost() {
        let mut queue = Queue::new();
        let keys: Vec<_> = (0..10).map(|_| queue.add_group(100)).collect();
        for (owner, key) in keys.iter().enumerate() {
            queue.push(*key, owner).unwrap();
        }
        let cpu_ns = shares(&mut queue, &keys, 100_000, |owner| 10_000 * (owner as u64 + 1));
        let (least, most) = (cpu_ns.iter().min().unwrap(), cpu_ns.iter().max().unwrap());
        assert!(most - least <= 200_000, "{cpu_ns:?}");
    }

    #[test]
    fn weights_are_shares() {
        let mut queue = Queue::new();
        let keys = [queue.add_group(100), queue.add_group(200), queue.add_group(400)];
        for (owner, key) in keys.iter().enumerate() {
            queue.push(*key, owner).unwrap();
        }
        let cpu_ns = shares(&mut queue, &keys, 70_000, |_| 60_000);
        let unit = cpu_ns[0] as f64;
        assert!(
            (cpu_ns[1] as f64 / unit - 2.0).abs() < 0.01 && (cpu_ns[2] as f64 / unit - 4.0).abs() < 0.01,
            "{cpu_ns:?}"
        );
    }

    #[test]
    fn a_hundred_tasks_of_one_group_share_what_one_gets() {
        let mut queue = Queue::new();
        let (many, one) = (queue.add_group(100), queue.add_group(100));
        let keys = [many, one];
        for _ in 0..100 {
            queue.push(many, 0).unwrap();
        }
        queue.push(one, 1).unwrap();
        let cpu_ns = shares(&mut queue, &keys, 10_000, |_| 60_000);
        assert!(cpu_ns[0].abs_diff(cpu_ns[1]) <= 2 * 60_000, "{cpu_ns:?}");
    }

    #[test]
    fn a_newcomer_and_a_sleeper_start_at_the_present() {
        let mut queue = Queue::new();
        let old = queue.add_group(100);
        let sleeper = queue.add_group(100);
        queue.push(old, 0).unwrap();
        shares(&mut queue, &[old], 1_000, |_| 60_000);
        let newcomer = queue.add_group(100);
        queue.push(newcomer, 1).unwrap();
        queue.push(sleeper, 2).unwrap();
        let cpu_ns = shares(&mut queue, &[old, newcomer, sleeper], 300, |_| 60_000);
        assert!(cpu_ns.iter().all(|ns| ns.abs_diff(100 * 60_000) <= 2 * 60_000), "{cpu_ns:?}");
    }

    /// How many turns of a crowd go by until each of `times` short turns of one more group, which sleeps in between, is over.
    fn waits_beside_a_crowd_that_begins(weight: u32, times: usize) -> Vec<usize> {
        let mut queue = Queue::new();
        let crowd: Vec<_> = (0..1_000).map(|_| queue.add_group(100)).collect();
        let short = queue.add_group(weight);
        for key in &crowd {
            queue.push(*key, *key).unwrap();
        }
        let mut waits = Vec::new();
        for _ in 0..times {
            queue.push(short, short).unwrap();
            let mut waited = 0;
            loop {
                let (turn, key) = queue.pop().unwrap();
                if key == short {
                    queue.charge(turn, 100_000);
                    break;
                }
                waited += 1;
                queue.charge(turn, FULL_TURN_NS);
                queue.put_back(key, key).unwrap();
            }
            waits.push(waited);
        }
        waits
    }

    #[test]
    fn beside_a_thousand_that_begin_short_turns_and_heavy_groups_go_first() {
        // The first one is not known to be short: it waits as all do. Then it has all that it wants of its share.
        let waits = waits_beside_a_crowd_that_begins(100, 8);
        assert_eq!(waits[0], 1_000);
        assert!(waits[1..].iter().all(|waited| *waited == 0), "{waits:?}");
        let waits = waits_beside_a_crowd_that_begins(1_000, 45);
        assert!(waits.iter().all(|waited| *waited == 0), "{waits:?}");
    }

    #[test]
    fn one_that_seldom_wants_a_whole_turn_does_not_wait_for_a_thousand_that_spin() {
        let mut queue = Queue::new();
        let crowd: Vec<_> = (0..1_000).map(|_| queue.add_group(100)).collect();
        let seldom = queue.add_group(100);
        for (owner, key) in crowd.iter().enumerate() {
            queue.push(*key, owner).unwrap();
        }
        for _ in 0..5 {
            shares(&mut queue, &crowd, 2_345, |owner| FULL_TURN_NS - owner as u64 * 100);
            queue.push(seldom, 1_000).unwrap();
            let before = (0..).find(|_| {
                let (turn, owner) = queue.pop().unwrap();
                queue.charge(turn, FULL_TURN_NS);
                if let Some(key) = crowd.get(owner) {
                    queue.put_back(*key, owner).unwrap();
                }
                owner == 1_000
            });
            assert!(before.unwrap() <= 1, "{before:?}");
        }
    }

    #[test]
    fn two_lanes_that_pick_at_once_pick_different_groups() {
        let mut queue = Queue::new();
        let (a, b) = (queue.add_group(100), queue.add_group(100));
        for _ in 0..2 {
            queue.push(a, 'a').unwrap();
            queue.push(b, 'b').unwrap();
        }
        // Both have cost something before, so that picking one is expected to cost something again.
        let (first, _) = queue.pop().unwrap();
        let (second, _) = queue.pop().unwrap();
        queue.charge(first, 60_000);
        queue.charge(second, 60_000);
        queue.push(a, 'a').unwrap();
        queue.push(b, 'b').unwrap();
        let (turn_one, one) = queue.pop().unwrap();
        let (turn_two, two) = queue.pop().unwrap();
        assert_ne!(one, two);
        queue.charge(turn_one, 60_000);
        queue.charge(turn_two, 60_000);
    }

    #[test]
    fn a_removed_group_gives_its_tasks_back_and_takes_no_more() {
        let mut queue = Queue::new();
        let gone = queue.add_group(100);
        queue.push(gone, 7).unwrap();
        assert_eq!(queue.remove_group(gone), [7]);
        assert_eq!(queue.push(gone, 8), Err(8));
        assert!(queue.pop().is_none());
    }
}
