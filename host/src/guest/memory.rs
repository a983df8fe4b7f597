//! Memory: what all guests hold together, what one instance may hold, and whom a refused growth is said to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::ResourceLimiterAsync;

use super::attempt::Probe;
use super::engine::TABLE_ELEMENTS;
use crate::core::outcome::MemoryLimit;

/// The memory, and the places in the pool, that all guests share.
#[derive(Debug)]
pub struct Ledger {
    memory_limit_bytes: u64,
    memory_bytes: AtomicU64,
    slots: u32,
    memories: u32,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    runs: u32,
    memories: u32,
    /// Who holds how many bytes, by the name that a report shows.
    holders: BTreeMap<Arc<str>, u64>,
}

/// Why a run cannot begin yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// The guests' memory is spent.
    Memory,
    /// As many runs are in progress as may be.
    Slots,
}

impl Ledger {
    /// A ledger for so many bytes, runs at once, and linear memories in the pool.
    pub fn new(memory_limit_bytes: u64, slots: u32, memories: u32) -> Arc<Ledger> {
        Arc::new(Ledger {
            memory_limit_bytes,
            memory_bytes: AtomicU64::new(0),
            slots,
            memories,
            places: Mutex::new(Places::default()),
        })
    }

    /// Takes a place in the pool and `bytes` of memory for a run of `holder`.
    pub fn admit(self: &Arc<Ledger>, holder: &Arc<str>, bytes: u64, memories: u32) -> Result<Reservation, Lack> {
        let memories = memories.max(1);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.runs >= self.slots || places.memories.saturating_add(memories) > self.memories {
            return Err(Lack::Slots);
        }
        if !self.take(bytes) {
            return Err(Lack::Memory);
        }
        places.runs += 1;
        places.memories += memories;
        *places.holders.entry(holder.clone()).or_default() += bytes;
        Ok(Reservation { ledger: self.clone(), holder: holder.clone(), bytes: AtomicU64::new(bytes), memories })
    }

    /// Takes up to `most` bytes away from guests for something that is none, such as a compile. Takes nothing that a guest holds.
    pub fn set_aside(self: &Arc<Ledger>, most: u64) -> SetAside {
        let mut taken = 0;
        let _ = self.memory_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            taken = most.min(self.memory_limit_bytes.saturating_sub(held));
            Some(held + taken)
        });
        SetAside { ledger: self.clone(), bytes: taken }
    }

    /// The bytes that all guests hold now, and what is set aside.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// The most that they may hold together.
    pub fn memory_limit_bytes(&self) -> u64 {
        self.memory_limit_bytes
    }

    /// The largest holders, the largest first, as a report names them: `A (512Mi), B (128Mi)`.
    pub fn largest_holders(&self, most: usize) -> String {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let mut holders: Vec<_> = places.holders.iter().filter(|(_, bytes)| **bytes > 0).collect();
        holders.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
        let named = holders.iter().take(most).map(|(name, bytes)| format!("{name} ({})", mebibytes(**bytes)));
        named.collect::<Vec<_>>().join(", ")
    }

    fn is_largest_holder(&self, holder: &Arc<str>) -> bool {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let own = places.holders.get(holder).copied().unwrap_or(0);
        places.holders.values().all(|bytes| *bytes <= own)
    }

    fn take(&self, bytes: u64) -> bool {
        let within = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.memory_limit_bytes);
        self.memory_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }
}

fn mebibytes(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{}Ki", bytes >> 10) } else { format!("{}Mi", bytes >> 20) }
}

/// Memory that guests cannot have for now. Theirs again when it is dropped.
#[derive(Debug)]
pub struct SetAside {
    ledger: Arc<Ledger>,
    bytes: u64,
}

impl SetAside {
    /// How much it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        self.ledger.memory_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A run's place and memory. Gives both back when it is dropped, which is when the run's store is gone.
#[derive(Debug)]
pub struct Reservation {
    ledger: Arc<Ledger>,
    holder: Arc<str>,
    bytes: AtomicU64,
    memories: u32,
}

impl Reservation {
    /// Takes more, up to `total` bytes in all. False if the guests' memory is spent.
    fn grow_to(&self, total: u64) -> bool {
        let held = self.bytes.load(Ordering::Relaxed);
        let Some(more) = total.checked_sub(held).filter(|more| *more > 0) else { return true };
        if !self.ledger.take(more) {
            return false;
        }
        self.bytes.store(total, Ordering::Relaxed);
        let mut places = self.ledger.places.lock().unwrap_or_else(PoisonError::into_inner);
        *places.holders.entry(self.holder.clone()).or_default() += more;
        true
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        self.ledger.memory_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let mut places = self.ledger.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.runs = places.runs.saturating_sub(1);
        places.memories = places.memories.saturating_sub(self.memories);
        if let Some(held) = places.holders.get_mut(&self.holder) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                places.holders.remove(&self.holder);
            }
        }
    }
}

/// Holds one store to its limits. Refuses by answering -1 to the guest, and notes that it did.
pub(super) struct Limiter {
    pub(super) limit_bytes: u64,
    pub(super) memory_bytes: u64,
    pub(super) table_elements: usize,
    pub(super) reservation: Reservation,
    pub(super) probe: Arc<Probe>,
}

#[async_trait::async_trait]
impl ResourceLimiterAsync for Limiter {
    async fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = u64::try_from(desired.saturating_sub(current))?;
        let total = self.memory_bytes.saturating_add(more);
        if total > self.limit_bytes {
            self.probe.refuse_memory(
                MemoryLimit::Plugin,
                format!("{} wanted, limits.memory is {}", mebibytes(total), mebibytes(self.limit_bytes)),
            );
            return Ok(false);
        }
        if !self.reservation.grow_to(total) {
            let ledger = &self.reservation.ledger;
            // The host's limit is held against whoever fills it, and against nobody else.
            let whose = match ledger.is_largest_holder(&self.reservation.holder) {
                true => MemoryLimit::LargestHolder,
                false => MemoryLimit::Host,
            };
            self.probe.refuse_memory(
                whose,
                format!(
                    "{} more wanted, and the host's limits.memory of {} is held by {}",
                    mebibytes(more),
                    mebibytes(ledger.memory_limit_bytes),
                    ledger.largest_holders(3)
                ),
            );
            return Ok(false);
        }
        self.memory_bytes = total;
        self.probe.memory(total);
        Ok(true)
    }

    async fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.table_elements.saturating_add(desired.saturating_sub(current));
        if total > TABLE_ELEMENTS {
            self.probe.refuse_memory(
                MemoryLimit::Plugin,
                format!("{total} table elements wanted, an instance may have {TABLE_ELEMENTS}"),
            );
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        256
    }

    fn tables(&self) -> usize {
        256
    }

    fn memories(&self) -> usize {
        32
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn what_is_taken_comes_back_when_the_run_is_gone() {
        let ledger = Ledger::new(1 << 20, 2, 4);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = ledger.admit(&a, 1 << 19, 1).unwrap();
        assert_eq!(ledger.admit(&b, 1 << 20, 1).unwrap_err(), Lack::Memory);
        assert!(first.grow_to(3 << 18) && !first.grow_to(2 << 20));
        let second = ledger.admit(&b, 1 << 18, 1).unwrap();
        assert_eq!(ledger.admit(&b, 0, 1).unwrap_err(), Lack::Slots);
        assert_eq!(ledger.largest_holders(1), "a (768Ki)");
        drop((first, second));
        assert_eq!((ledger.memory_bytes(), ledger.largest_holders(3)), (0, String::new()));
        assert!(ledger.admit(&b, 1 << 20, 4).is_ok());
    }
}
