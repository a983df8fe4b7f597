//! A CPU limit by the kernel, where the machine lets us have one: a group of the `cpu` controller of version 1.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::groups::Group;

const PERIOD_US: u32 = 100_000;

/// A group with a CPU limit. Drop the host that runs in it first.
pub struct CpuGroup(Group);

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
        let group = CpuGroup(Group::new("cpu")?);
        group.0.set("cpu.cfs_period_us", &PERIOD_US.to_string());
        group.limit(Some(cpus));
        Some(group)
    }

    /// Sets another limit, or none.
    pub fn limit(&self, cpus: Option<f64>) {
        let quota_us = cpus.map_or(-1, |cpus| (f64::from(PERIOD_US) * cpus) as i64);
        self.0.set("cpu.cfs_quota_us", &quota_us.to_string());
    }

    /// A command that enters the group before it becomes `program`.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.0.members()).arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// The kernel's counters.
    pub fn counted(&self) -> Counted {
        let text = self.0.get("cpu.stat");
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            line.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        Counted { periods: value("nr_periods"), throttled: value("nr_throttled") }
    }
}
