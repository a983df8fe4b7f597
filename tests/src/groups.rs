//! Control groups of version 1 for tests, where they can be made: a host in one has the kernel's real limits.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// One group of one controller. Removed when it is dropped: drop the host that runs in it first.
pub struct Group {
    folder: PathBuf,
}

impl Group {
    /// Makes a group. None, said loudly, where this machine has no groups of version 1 that we may write.
    pub fn new(controller: &str) -> Option<Group> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let parent = Path::new("/sys/fs/cgroup").join(controller);
        let folder = parent.join(format!("windlass-test-{}-{number}", std::process::id()));
        // Version 2 has no such file in each group, and its `cpu` is a file or nothing.
        if !parent.join("tasks").exists() {
            eprintln!("!! {} is no control group of version 1: this was NOT tested", parent.display());
            return None;
        }
        if let Err(error) = fs::create_dir(&folder) {
            eprintln!("!! {}: {error}: this was NOT tested", folder.display());
            return None;
        }
        Some(Group { folder })
    }

    /// Writes one of its files.
    pub fn set(&self, file: &str, value: &str) {
        let path = self.folder.join(file);
        fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Reads one of its files.
    pub fn get(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap_or_default()
    }

    /// Where a process is written to, to put it in.
    pub fn members(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process may still be on its way out.
        let until = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.folder).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
