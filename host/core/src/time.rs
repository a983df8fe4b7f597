//! The two times that the core is told: one that never jumps and one that people read.

use std::ops::{Add, Sub};
use std::time::Duration;

pub use jiff::Timestamp;

/// Time since the host started, in whole nanoseconds: never goes backwards and never jumps with the wall clock.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// The moment the host started.
    pub const START: Mono = Mono(0);

    /// The moment that lies `since_start` after the host's start; saturates after 584 years.
    pub fn from_start(since_start: Duration) -> Mono {
        Mono(u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX))
    }

    /// How long the host had been running at this moment.
    pub fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// How long after `earlier` this is; zero if it is before.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, by: Duration) -> Mono {
        Mono::from_start(self.since_start().saturating_add(by))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;
    fn sub(self, by: Duration) -> Mono {
        Mono::from_start(self.since_start().saturating_sub(by))
    }
}

/// What time it is, as the shell tells the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For every interval and deadline.
    pub mono: Mono,
    /// For what people read, and for schedules.
    pub wall: Timestamp,
}
