//! The slice that the calling lane is in: when it began, and whether it has lasted long enough.
//!
//! Fuel ends a slice that computes. Host calls burn next to no fuel, so a guest that makes nothing but host calls has to be
//! asked after each one whether its time is up.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a slice may last in wall-clock time before the guest yields at the end of a host call.
pub const SLICE: Duration = Duration::from_micros(1_500);

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Notes that a slice begins now on this thread.
#[inline(never)]
pub(super) fn begin(now: Instant) {
    BEGAN.set(Some(now));
}

/// Notes that no slice is going on.
#[inline(never)]
pub(super) fn end() {
    BEGAN.set(None);
}

/// Whether the present slice has lasted for [`SLICE`]; false on a thread that is no lane.
///
/// Never inlined: the caller runs on a fiber that may move to another thread while it is suspended, and must not keep the
/// address of this thread's variable over that.
#[inline(never)]
pub fn is_over() -> bool {
    BEGAN.get().is_some_and(|began| began.elapsed() >= SLICE)
}
