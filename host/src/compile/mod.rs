//! Compiling, off to the side: an artifact is untrusted, and so is the work of compiling it.
//!
//! Each artifact is compiled by a child process of its own: the same binary, with bounds on memory, CPU time, wall-clock time and
//! output, at the guests' priority, without the host's environment and descriptors. Whatever an artifact does to the compiler
//! costs that child and is one line for that artifact's plugins. What was compiled is kept on disk where there is a `dataDir`. Nothing is linked or run here.

mod cache;
mod child;
mod entry;
mod frame;
mod parent;
mod room;
mod watch;

pub use cache::{CACHE_BYTES, Cache};
pub use child::{Args as ChildArgs, run as run_child};
pub use parent::{Compiler, Limits, Means, Options};
pub use room::Room;

use crate::artifact::Kind;

/// Native code for an artifact, made by this host's own compiler with this host's engine settings. Only this room makes one:
/// that is what makes it sound to load.
pub struct Compiled {
    kind: Kind,
    code: Vec<u8>,
    is_from_cache: bool,
}

impl Compiled {
    /// What it was compiled as.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it was there already.
    pub fn is_from_cache(&self) -> bool {
        self.is_from_cache
    }

    /// The code, as the engine serializes it.
    pub fn code(&self) -> &[u8] {
        &self.code
    }
}

/// Why there is no code for an artifact. One line for a person, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The compiler looked at it and said no.
    #[error("{0}")]
    Invalid(String),
    /// It wanted more memory than there is for it.
    #[error("it needs more than {limit_mib} MiB to compile, {remedy}")]
    Memory {
        /// What it could have had.
        limit_mib: u64,
        /// What to change.
        remedy: &'static str,
    },
    /// It wanted more CPU time than a compile may take.
    #[error(
        "it was still compiling after {0} s of CPU time, the most that one artifact may take: make it smaller, or look for one huge function in it"
    )]
    Cpu(u64),
    /// It took longer than a compile may take.
    #[error(
        "it was still compiling after {0} s, the most that one artifact may take: give the container more CPU, or make it smaller"
    )]
    Time(u64),
    /// Its code would be too large.
    #[error("its code would be larger than {0} MiB, the most that is loaded: make it smaller")]
    Size(u64),
    /// The compiler crashed on it.
    #[error("the compiler crashed on it ({0}); please report this")]
    Crashed(String),
    /// The host could not start a compiler, or did not understand it: no fault of the artifact.
    #[error("it could not be compiled: {0}")]
    Host(String),
}

#[cfg(test)]
mod tests;
