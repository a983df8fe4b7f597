//! How a file looks from outside, without opening it.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What can be told of a file by its name, symbolic links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// There is none.
    Absent,
    /// There is something: another one if any of these differs.
    Present { device: u64, inode: u64, size: u64, modified_ns: i128, changed_ns: i128 },
    /// It cannot be told, and the system's number for why.
    Unknown(i32),
}

impl Look {
    pub(super) fn at(path: &Path) -> Look {
        match std::fs::metadata(path) {
            Ok(about) => {
                let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
                Look::Present {
                    device: about.dev(),
                    inode: about.ino(),
                    size: about.size(),
                    modified_ns: ns(about.mtime(), about.mtime_nsec()),
                    changed_ns: ns(about.ctime(), about.ctime_nsec()),
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Look::Absent,
            Err(error) => Look::Unknown(error.raw_os_error().unwrap_or(0)),
        }
    }

    /// Which folder it is, if it is there: the device and the inode.
    pub(super) fn identity(&self) -> Option<(u64, u64)> {
        match self {
            Look::Present { device, inode, .. } => Some((*device, *inode)),
            Look::Absent | Look::Unknown(_) => None,
        }
    }
}
