//! Who is connected: bounded by closing the connection that has waited longest without a complete request, never by refusing the
//! newest. Else any client could keep the kubelet out.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How many connections there may be at once.
pub(super) const MOST: usize = 512;

/// How long a connection has at least to bring its request before it makes room. While a crowd comes faster than this allows, it waits in
/// the kernel's queue: one of it may be the kubelet, which would else be closed before it has said a word.
const GRACE: Duration = Duration::from_millis(50);

/// All connections. The health thread is the only one that touches it.
#[derive(Default)]
pub(super) struct Connections {
    next: u64,
    open: HashMap<u64, Open>,
}

struct Open {
    /// Since when it has not completed a request; none while one is being answered.
    waiting: Option<Instant>,
    since: Instant,
    /// Dropped to close it.
    _close: oneshot::Sender<()>,
}

/// One connection's place. Gives it up when it is dropped.
pub(super) struct Place {
    number: u64,
    all: Rc<RefCell<Connections>>,
}

impl Connections {
    /// When the next one may enter; none if at once.
    pub(super) fn full_until(&self, now: Instant) -> Option<Instant> {
        let (_, since) = self.longest().filter(|_| self.open.len() >= MOST)?;
        Some(since + GRACE).filter(|until| *until > now)
    }

    /// Who makes room, and since when it has waited. Whoever is being answered goes last.
    fn longest(&self) -> Option<(u64, Instant)> {
        let waits = |open: &Open| (open.waiting.is_none(), open.waiting.unwrap_or(open.since));
        let (number, open) = self.open.iter().min_by_key(|(_, open)| waits(open))?;
        Some((*number, waits(open).1))
    }

    /// Makes room if there is none, and takes a place. The receiver resolves when the connection has to go.
    pub(super) fn enter(all: &Rc<RefCell<Connections>>, now: Instant) -> (Place, oneshot::Receiver<()>) {
        let mut connections = all.borrow_mut();
        if connections.open.len() >= MOST
            && let Some((number, _)) = connections.longest()
        {
            connections.open.remove(&number);
        }
        connections.next += 1;
        let number = connections.next;
        let (close, closed) = oneshot::channel();
        connections.open.insert(number, Open { waiting: Some(now), since: now, _close: close });
        (Place { number, all: all.clone() }, closed)
    }
}

impl Place {
    /// A complete request has come.
    pub(super) fn answering(&self) {
        self.set(None);
    }

    /// It has been answered.
    pub(super) fn waiting(&self) {
        self.set(Some(Instant::now()));
    }

    fn set(&self, waiting: Option<Instant>) {
        if let Some(open) = self.all.borrow_mut().open.get_mut(&self.number) {
            open.waiting = waiting;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.borrow_mut().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_longest_without_a_request_makes_room_for_the_newest() {
        let all = Rc::new(RefCell::new(Connections::default()));
        let start = Instant::now();
        let mut places: Vec<_> =
            (0..MOST as u64).map(|n| Connections::enter(&all, start + Duration::from_millis(n))).collect();
        let first_ms = |ms| Some(start + Duration::from_millis(ms) + GRACE);
        assert_eq!(all.borrow().full_until(start), first_ms(0));
        places[0].0.answering();
        assert_eq!(all.borrow().full_until(start), first_ms(1), "a moment for each to say what it wants");
        assert_eq!(all.borrow().full_until(start + Duration::from_secs(1)), None);
        let (_newest, mut newest_closed) = Connections::enter(&all, start + Duration::from_secs(9));
        assert_eq!(all.borrow().open.len(), MOST);
        assert!(places[0].1.try_recv() == Err(oneshot::error::TryRecvError::Empty), "it is being answered");
        assert!(places[1].1.try_recv() == Err(oneshot::error::TryRecvError::Closed), "it waited longest");
        assert!(newest_closed.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        drop(places);
        assert_eq!(all.borrow().open.len(), 1);
    }
}
