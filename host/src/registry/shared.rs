//! What many want and one fetches: a value is kept until shortly before it expires, and whoever asks while it is on its way waits for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::fault::Fault;

/// The most values that are kept at once. Beyond them those go that nobody waits for.
const MOST: usize = 1_000;

/// Values by what they are for. Dropping it drops them.
pub(super) struct Shared<K, V> {
    cells: Mutex<HashMap<K, Arc<OnceCell<Kept<V>>>>>,
}

struct Kept<V> {
    value: V,
    until: Instant,
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Shared<K, V> {
        Shared { cells: Mutex::default() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone + PartialEq> Shared<K, V> {
    /// The value for `key` if it is there and will not expire soon.
    pub(super) fn peek(&self, key: &K) -> Option<V> {
        let cells = self.cells();
        let kept = cells.get(key)?.get().filter(|kept| kept.until > Instant::now())?;
        Some(kept.value.clone())
    }

    /// The value for `key`: the kept one, or that which `fetch` brings with the time for which it may be kept. Of those who ask at
    /// once, one fetches; if it fails, or is dropped, the next one does.
    ///
    /// # Errors
    /// Those of `fetch`, which are not kept.
    pub(super) async fn get(
        &self,
        key: &K,
        fetch: impl Future<Output = Result<(V, Duration), Fault>>,
    ) -> Result<V, Fault> {
        let cell = self.cell(key);
        let fetched = cell.get_or_try_init(|| async {
            fetch.await.map(|(value, time)| Kept { value, until: Instant::now() + time })
        });
        Ok(fetched.await?.value.clone())
    }

    /// Forgets a value that turned out to be of no use, unless there is another one by now.
    pub(super) fn forget(&self, key: &K, value: &V) {
        let mut cells = self.cells();
        if cells.get(key).and_then(|cell| cell.get()).is_some_and(|kept| kept.value == *value) {
            cells.remove(key);
        }
    }

    fn cell(&self, key: &K) -> Arc<OnceCell<Kept<V>>> {
        let now = Instant::now();
        let is_of_use = |cell: &OnceCell<Kept<V>>| cell.get().is_none_or(|kept| kept.until > now);
        let mut cells = self.cells();
        if cells.len() >= MOST {
            cells.retain(|_, cell| is_of_use(cell) && Arc::strong_count(cell) > 1);
        }
        let cell = cells.entry(key.clone()).or_default();
        if !is_of_use(cell) {
            *cell = Arc::default();
        }
        cell.clone()
    }

    fn cells(&self) -> MutexGuard<'_, HashMap<K, Arc<OnceCell<Kept<V>>>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn one_fetches_and_all_who_ask_meanwhile_have_it() {
        run(async {
            let (shared, fetches) = (Shared::<u8, u32>::default(), AtomicU32::new(0));
            let fetch = || async {
                tokio::task::yield_now().await;
                Ok((fetches.fetch_add(1, Ordering::Relaxed), LONG))
            };
            let all = futures::future::join_all((0..10).map(|_| shared.get(&1, fetch()))).await;
            assert!(all.iter().all(|got| *got == Ok(0)), "{all:?}");
            assert_eq!((shared.get(&1, fetch()).await, shared.peek(&1), shared.peek(&2)), (Ok(0), Some(0), None));
            assert_eq!(shared.get(&2, fetch()).await, Ok(1), "another key, another value");
            // Told of by one who had an older one, nothing is forgotten.
            shared.forget(&1, &7);
            assert_eq!(shared.peek(&1), Some(0));
            shared.forget(&1, &0);
            assert_eq!(shared.get(&1, fetch()).await, Ok(2));
        });
    }

    #[test]
    fn a_failure_is_not_kept_and_neither_is_what_has_expired() {
        run(async {
            let shared = Shared::<u8, u32>::default();
            let fault = Fault::Machine("no".to_owned());
            assert_eq!(shared.get(&1, async { Err(fault.clone()) }).await, Err(fault.clone()));
            assert_eq!(shared.get(&1, async { Ok((1, Duration::ZERO)) }).await, Ok(1));
            assert_eq!(shared.peek(&1), None);
            assert_eq!(shared.get(&1, async { Ok((2, LONG)) }).await, Ok(2));
            assert_eq!(shared.get(&1, async { Err(fault) }).await, Ok(2));
        });
    }

    #[test]
    fn what_nobody_waits_for_goes_when_there_is_too_much() {
        run(async {
            let shared = Shared::<usize, usize>::default();
            for number in 0..3 * MOST {
                assert_eq!(shared.get(&number, async { Ok((number, LONG)) }).await, Ok(number));
            }
            assert!(shared.cells().len() <= MOST);
        });
    }
}
