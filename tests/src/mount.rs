//! Small file systems of a test's own: full ones, and such as cannot be written.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system that is unmounted when this is dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// A tmpfs; none, said loudly, where that may not be made.
    pub fn tmpfs(at: &Path, options: &str) -> Option<Mount> {
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status();
        if status.is_ok_and(|status| status.success()) {
            return Some(Mount(at.to_owned()));
        }
        eprintln!("!! SKIPPED: no tmpfs can be mounted here, so this was not tried");
        None
    }

    /// From now on nobody can write there.
    #[must_use]
    pub fn read_only(&self) -> bool {
        Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status().is_ok_and(|status| status.success())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
