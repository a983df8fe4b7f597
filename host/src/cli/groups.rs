//! Where the control groups are, for the commands that keep to their limits. Hidden: the kernel's own place is the answer but in tests.

use std::path::PathBuf;

use crate::lanes::cgroup::Roots;

/// See the module.
#[derive(Debug, clap::Args)]
pub struct Groups {
    /// The mount of the control groups
    #[arg(long, value_name = "FOLDER", default_value = "/sys/fs/cgroup", hide = true)]
    cgroup_root: PathBuf,
    /// Which of them the process is in
    #[arg(long, value_name = "FILE", default_value = "/proc/self/cgroup", hide = true)]
    cgroup_membership: PathBuf,
}

impl Groups {
    /// As the lanes want it.
    pub(super) fn roots(&self) -> Roots {
        Roots { groups: self.cgroup_root.clone(), membership: self.cgroup_membership.clone() }
    }
}
