//! A real control group of a test's own, where the machine lets us make one: version 1 of the `cpu` controller.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const CONTROLLER: &str = "/sys/fs/cgroup/cpu";
const PERIOD_US: u32 = 100_000;

/// Removed when it is dropped; what still runs in it is moved to the root.
pub struct CpuGroup {
    folder: PathBuf,
}

/// What the kernel counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// `nr_periods`
    pub periods: u64,
    /// `nr_throttled`
    pub throttled: u64,
}

impl CpuGroup {
    /// A group limited to so many CPUs with a period of 100 ms; none, and a word on stderr, where groups are not writable.
    pub fn limited(cpus: f64) -> Option<CpuGroup> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(CONTROLLER).join(format!("windlass-test-{}-{number}", std::process::id()));
        if !Path::new(CONTROLLER).join("cpu.cfs_quota_us").exists()
            && !Path::new(CONTROLLER).join("cpu.shares").exists()
        {
            eprintln!("SKIPPED: there is no version 1 of the cpu controller at {CONTROLLER}");
            return None;
        }
        if let Err(error) = fs::create_dir(&folder) {
            eprintln!("SKIPPED: {}: {error}: control groups are not writable", folder.display());
            return None;
        }
        let group = CpuGroup { folder };
        group.write("cpu.cfs_period_us", PERIOD_US);
        group.limit(Some(cpus));
        Some(group)
    }

    /// Sets another limit, or none.
    pub fn limit(&self, cpus: Option<f64>) {
        match cpus {
            Some(cpus) => self.write("cpu.cfs_quota_us", (f64::from(PERIOD_US) * cpus) as u32),
            None => self.write("cpu.cfs_quota_us", -1),
        }
    }

    /// A command that enters the group before it becomes `program`.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""]).arg(&self.folder).arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// The kernel's counters.
    pub fn counted(&self) -> Counted {
        let text = fs::read_to_string(self.folder.join("cpu.stat")).unwrap();
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            line.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        Counted { periods: value("nr_periods"), throttled: value("nr_throttled") }
    }

    fn write(&self, file: &str, value: impl ToString) {
        fs::write(self.folder.join(file), value.to_string()).unwrap();
    }
}

impl Drop for CpuGroup {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(5);
        // A process that was just killed takes a moment to leave.
        while fs::remove_dir(&self.folder).is_err() && Instant::now() < until {
            for process in fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default().lines() {
                // It may have ended meanwhile.
                let _ = fs::write(Path::new(CONTROLLER).join("cgroup.procs"), process);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
