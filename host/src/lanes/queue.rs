//! Which group's task is next: weighted fair queueing over virtual time. Pure; the lanes hold it under a mutex.
//!
//! Start-time fair queueing as in Goyal, Vin and Cheng, "Start-time Fair Queueing" (SIGCOMM 1996), with the placement rule of
//! Linux' CFS (`min_vruntime`). Virtual time belongs to the group and advances by CPU time over weight, so a group's share does
//! not depend on how many tasks it has or how short they are. A group that becomes runnable starts at the larger of its own
//! virtual time and the smallest now runnable, so that sleeping earns no credit and neither does being new.

use std::collections::{BTreeSet, VecDeque};

/// The weight that stands for one full share.
const UNIT_WEIGHT: u128 = 100;

/// Stands for a group in one [`Queue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupKey(u32);

#[derive(Debug)]
struct Group<T> {
    weight: u32,
    /// CPU nanoseconds × 100 / weight.
    virtual_time: u128,
    /// What the last poll of this group cost: charged in advance when the next one begins, and set right when it ends, so that
    /// lanes that pick at the same moment do not all pick the same group.
    expected_ns: u64,
    /// Its place in `runnable`, while it has tasks that wait.
    place: Option<(u128, u64)>,
    ready: VecDeque<T>,
}

/// Groups of runnable tasks, the one with the least virtual time first.
#[derive(Debug)]
pub(super) struct Queue<T> {
    groups: Vec<Option<Group<T>>>,
    vacant: Vec<u32>,
    runnable: BTreeSet<(u128, u64, GroupKey)>,
    /// The largest virtual time at which a group was picked: what newcomers start at.
    floor: u128,
    /// Makes groups of equal virtual time take turns.
    turn: u64,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Queue<T> {
        Queue { groups: Vec::new(), vacant: Vec::new(), runnable: BTreeSet::new(), floor: 0, turn: 0 }
    }

    /// Adds a group. A `weight` of 100 is one full share; 0 counts as 1.
    pub(super) fn add_group(&mut self, weight: u32) -> GroupKey {
        let group =
            Group { weight: weight.max(1), virtual_time: 0, expected_ns: 0, place: None, ready: VecDeque::new() };
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
        if let Some((time, turn)) = group.place {
            self.runnable.remove(&(time, turn, key));
        }
        self.vacant.push(key.0);
        group.ready
    }

    /// Makes a task of `key` runnable. Gives the task back if the group is gone.
    pub(super) fn push(&mut self, key: GroupKey, task: T) -> Result<(), T> {
        let floor = self.floor;
        let Some(group) = self.groups.get_mut(key.0 as usize).and_then(Option::as_mut) else { return Err(task) };
        group.ready.push_back(task);
        if group.place.is_none() {
            group.virtual_time = group.virtual_time.max(floor);
            self.turn += 1;
            group.place = Some((group.virtual_time, self.turn));
            self.runnable.insert((group.virtual_time, self.turn, key));
        }
        Ok(())
    }

    /// Takes the first task of the group with the least virtual time, and what to give back to [`Queue::charge`].
    pub(super) fn pop(&mut self) -> Option<(Turn, T)> {
        loop {
            let (time, _, key) = self.runnable.pop_first()?;
            let Some(group) = self.groups.get_mut(key.0 as usize).and_then(Option::as_mut) else { continue };
            group.place = None;
            let Some(task) = group.ready.pop_front() else { continue };
            self.floor = self.floor.max(time);
            let advance_ns = group.expected_ns;
            group.virtual_time += scaled(advance_ns, group.weight);
            if !group.ready.is_empty() {
                self.turn += 1;
                group.place = Some((group.virtual_time, self.turn));
                self.runnable.insert((group.virtual_time, self.turn, key));
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
        group.expected_ns = cpu_ns;
        if let Some((time, nth)) = group.place {
            self.runnable.remove(&(time, nth, turn.key));
            group.place = Some((group.virtual_time, nth));
            self.runnable.insert((group.virtual_time, nth, turn.key));
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
            queue.push(keys[owner], owner).unwrap();
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
