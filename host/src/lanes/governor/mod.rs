//! The governor: keeps what the process burns under its CPU limit, so that the kernel never stops health with everything else.

use std::sync::Arc;

use rustix::process::Pid;

/// Paces lanes and compile children under the container's CPU limit.
#[derive(Debug, Default)]
pub struct Governor {}

/// A child process whose CPU time is charged and paced. Let go when it is dropped; do that before the child is reaped.
#[derive(Debug)]
#[must_use]
pub struct Adopted {
    _governor: Arc<Governor>,
}

impl Governor {
    /// A governor that paces nothing yet.
    pub fn new() -> Arc<Governor> {
        Arc::new(Governor::default())
    }

    /// Charges a child process to the same bucket as the lanes, and paces it like them.
    pub fn adopt(self: &Arc<Governor>, _child: Pid) -> Adopted {
        Adopted { _governor: self.clone() }
    }
}
