//! How much memory a compile may have: what the container has left, so that no compile is ever a kill of the container.
//!
//! Guests may grow up to the host's `limits.memory` at any moment, so that what they do not use yet is not left over. Where the
//! rest is too little for a compile, a part of what guests do not use is taken out of their ledger for as long as the compile lasts.

use std::sync::{Arc, Mutex, PoisonError};

use crate::guest::{Ledger, SetAside};
use crate::lanes::cgroup;

/// Kept free beside every claim: what the host itself may need meanwhile.
const RESERVE_BYTES: u64 = 16 << 20;

/// The most that one compile may have. The largest that was measured, Python's interpreter, mapped 405 MiB.
const MOST_BYTES: u64 = 2 << 30;

/// The memory that compiles share.
pub struct Room {
    roots: cgroup::Roots,
    ledger: Option<Arc<Ledger>>,
    most_bytes: u64,
    claimed: Mutex<u64>,
}

/// Memory for one compile. Given back when it is dropped.
pub(super) struct Claim<'a> {
    room: &'a Room,
    bytes: u64,
    _set_aside: Option<SetAside>,
    /// What there would have to be more of.
    pub(super) remedy: &'static str,
}

impl Room {
    /// What the container (or the machine) has left besides what `ledger` promises to guests. `most_bytes` bounds one compile
    /// (none: 2 GiB).
    pub fn new(roots: cgroup::Roots, ledger: Option<Arc<Ledger>>, most_bytes: Option<u64>) -> Room {
        Room { roots, ledger, most_bytes: most_bytes.unwrap_or(MOST_BYTES), claimed: Mutex::new(0) }
    }

    /// Claims up to `want` bytes, or all there is.
    pub(super) fn claim(&self, want: Option<u64>) -> Claim<'_> {
        let want = want.unwrap_or(self.most_bytes).min(self.most_bytes);
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        let by_container = cgroup::memory_left(&self.roots);
        let machine = cgroup::machine_memory_left().unwrap_or(u64::MAX);
        let left = by_container.unwrap_or(machine).min(machine).saturating_sub(RESERVE_BYTES + *claimed);
        // Without a limit nothing is killed for the guests' sake that might grow: the machine's own memory is shared with others
        // in any case, and the child is the first that the kernel would take.
        let promised = match (&self.ledger, by_container) {
            (Some(ledger), Some(_)) => ledger.memory_limit_bytes().saturating_sub(ledger.memory_bytes()),
            _ => 0,
        };
        let free = left.saturating_sub(promised);
        let mut bytes = want.min(free);
        let mut set_aside = None;
        if let (true, Some(ledger), true) = (bytes < want, &self.ledger, promised > 0) {
            // Half of it, so that guests can still grow while this lasts.
            let from_guests = ledger.set_aside((want - bytes).min(promised / 2).min(left - bytes));
            bytes += from_guests.bytes();
            set_aside = Some(from_guests);
        }
        let remedy = match (bytes < want, by_container) {
            (false, _) => "the most that one artifact may take: make it smaller, or look for one huge function in it",
            (true, Some(_)) => {
                "all that is left of the container's memory: raise the container's memory limit, or lower limits.memory"
            }
            (true, None) => "all that is left of the machine's memory: give it more, or make the artifact smaller",
        };
        *claimed += bytes;
        Claim { room: self, bytes, _set_aside: set_aside, remedy }
    }
}

impl Claim<'_> {
    /// What the child may have. The rest of the claim is for the code on its way from there to here.
    pub(super) fn child_bytes(&self) -> u64 {
        self.bytes - self.bytes / 4
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claimed = self.room.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        *claimed = claimed.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    const MIB: u64 = 1 << 20;

    fn container(limit: u64, used: u64) -> (tempfile::TempDir, cgroup::Roots) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("memory.max"), limit.to_string()).unwrap();
        std::fs::write(folder.path().join("memory.current"), used.to_string()).unwrap();
        let roots = cgroup::Roots { groups: folder.path().to_owned(), membership: folder.path().join("none") };
        (folder, roots)
    }

    #[test]
    fn a_claim_is_what_is_left_besides_what_guests_were_promised() {
        let (_folder, roots) = container(1_000 * MIB, 100 * MIB);
        let ledger = Ledger::new(600 * MIB, 8, 8);
        let room = Room::new(roots, Some(ledger.clone()), None);
        // 1000 − 100 − 16 − 600
        let first = room.claim(Some(100 * MIB));
        assert_eq!((first.bytes, ledger.memory_bytes()), (100 * MIB, 0));
        let second = room.claim(Some(300 * MIB));
        assert_eq!((second.bytes, ledger.memory_bytes()), (300 * MIB, 116 * MIB), "the rest comes from guests");
        drop((first, second));
        assert_eq!((*room.claimed.lock().unwrap(), ledger.memory_bytes()), (0, 0));
    }

    #[test]
    fn guests_keep_half_and_claims_never_exceed_the_container() {
        let (_folder, roots) = container(512 * MIB, 96 * MIB);
        let ledger = Ledger::new(400 * MIB, 8, 8);
        let room = Room::new(roots, Some(ledger.clone()), None);
        let all = room.claim(None);
        assert_eq!((all.bytes, ledger.memory_bytes()), (200 * MIB, 200 * MIB));
        assert!(all.remedy.contains("raise the container's memory limit"));
        assert!(room.claim(None).bytes <= 100 * MIB);
        // Used by others than guests, although promised to them.
        let (_folder, roots) = container(512 * MIB, 500 * MIB);
        assert_eq!(Room::new(roots, Some(Ledger::new(400 * MIB, 8, 8)), None).claim(None).bytes, 0);
    }

    #[test]
    fn without_a_limit_one_compile_is_bounded_all_the_same() {
        let nowhere = std::path::PathBuf::from("/nonexistent");
        let roots = cgroup::Roots { groups: nowhere.clone(), membership: nowhere };
        let room = Room::new(roots, None, Some(64 * MIB));
        let claim = room.claim(None);
        assert_eq!((claim.bytes, claim.child_bytes()), (64 * MIB, 48 * MIB));
        assert!(claim.remedy.contains("make it smaller"));
    }
}
