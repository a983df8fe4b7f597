//! When something that changes has come to rest: seen twice alike, long enough apart. Pure.

use std::time::Duration;

/// A thing that is looked at now and then, and what it was when it last lay still.
#[derive(Debug)]
pub(super) struct Settle<T> {
    settled: T,
    /// What it seems to become, and since when.
    coming: Option<(T, Duration)>,
}

impl<T: PartialEq> Settle<T> {
    /// Begins with something that is taken as it is.
    pub(super) fn new(settled: T) -> Settle<T> {
        Settle { settled, coming: None }
    }

    /// What it was when it last lay still.
    pub(super) fn settled(&self) -> &T {
        &self.settled
    }

    /// Whether it is on the way to be something else.
    pub(super) fn is_moving(&self) -> bool {
        self.coming.is_some()
    }

    /// Takes in how it looks at `now`. True if it has come to rest as something else than before: it has been the same for `quiet`.
    pub(super) fn look(&mut self, now: Duration, seen: T, quiet: Duration) -> bool {
        if seen == self.settled {
            self.coming = None;
            return false;
        }
        match self.coming.take() {
            Some((coming, since)) if coming == seen => {
                if now.saturating_sub(since) >= quiet {
                    self.settled = seen;
                    return true;
                }
                self.coming = Some((coming, since));
            }
            Some(_) | None => self.coming = Some((seen, now)),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_still_changes_is_not_taken() {
        let at = Duration::from_millis;
        let mut file = Settle::new(1);
        let quiet = at(100);
        assert!(!file.look(at(0), 1, quiet) && !file.is_moving());
        assert!(!file.look(at(10), 2, quiet) && file.is_moving());
        assert!(!file.look(at(90), 3, quiet), "it grew");
        assert!(!file.look(at(180), 3, quiet), "not long enough alike");
        assert!(file.look(at(190), 3, quiet));
        assert_eq!((*file.settled(), file.is_moving()), (3, false));
        assert!(!file.look(at(400), 4, quiet));
        assert!(!file.look(at(600), 3, quiet) && !file.is_moving(), "it went back to what it was");
    }
}
