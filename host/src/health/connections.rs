//! Who is connected: bounded by closing the connection that has waited longest without a complete request, never by refusing the
//! newest. Else any client could keep the kubelet out.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::oneshot;

/// How many connections there may be at once.
pub(super) const MOST: usize = 512;

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
    /// Makes room if there is none, and takes a place. The receiver resolves when the connection has to go.
    pub(super) fn enter(all: &Rc<RefCell<Connections>>, now: Instant) -> (Place, oneshot::Receiver<()>) {
        let mut connections = all.borrow_mut();
        if connections.open.len() >= MOST {
            // Whoever is being answered goes last.
            let longest = connections
                .open
                .iter()
                .min_by_key(|(_, open)| (open.waiting.is_none(), open.waiting.unwrap_or(open.since)));
            if let Some(number) = longest.map(|(number, _)| *number) {
                connections.open.remove(&number);
            }
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
        places[0].0.answering();
        let (_newest, mut newest_closed) = Connections::enter(&all, start + Duration::from_secs(9));
        assert_eq!(all.borrow().open.len(), MOST);
        assert!(places[0].1.try_recv() == Err(oneshot::error::TryRecvError::Empty), "it is being answered");
        assert!(places[1].1.try_recv() == Err(oneshot::error::TryRecvError::Closed), "it waited longest");
        assert!(newest_closed.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        drop(places);
        assert_eq!(all.borrow().open.len(), 1);
    }
}
