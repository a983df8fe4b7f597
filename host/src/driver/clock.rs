//! The host's clock.

use std::time::Instant;

use crate::core::time::{Mono, Now, Timestamp};
use crate::wedge;

/// The host's clock: monotonic from its own start, and the wall clock beside it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub(super) epoch: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock { epoch: Instant::now() }
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        Now { mono: Mono::from_start(self.epoch.elapsed()), wall: wedge::wall(Timestamp::now()) }
    }
}
