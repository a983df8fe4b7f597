//! What the container may use: its CPU and memory limits, as the kernel's control groups state them.
//!
//! Version 2 (`cpu.max`, `memory.max`) and version 1 (`cpu.cfs_quota_us`, `memory.limit_in_bytes`). The smallest limit on the way
//! from the process's own group to the root counts. Where the mount shows only the container's own group, as it does in most
//! containers, the files at the root of the mount are looked at as well.

mod cpu;

use std::fs;
use std::path::{Path, PathBuf};

pub use cpu::{CpuGroups, CpuLimit, Throttling};

/// Limits above this are how version 1 says "none".
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// Where to look. The defaults are the kernel's; tests use a folder of their own.
#[derive(Debug, Clone)]
pub struct Roots {
    /// The mount of the control groups: `/sys/fs/cgroup`.
    pub groups: PathBuf,
    /// The process's own membership: `/proc/self/cgroup`.
    pub membership: PathBuf,
}

impl Default for Roots {
    fn default() -> Roots {
        Roots { groups: PathBuf::from("/sys/fs/cgroup"), membership: PathBuf::from("/proc/self/cgroup") }
    }
}

/// The memory limit in bytes; none if there is none.
pub fn memory_limit(roots: &Roots) -> Option<u64> {
    let membership = fs::read_to_string(&roots.membership).unwrap_or_default();
    let read = |folder: PathBuf, file: &str| -> Option<u64> {
        let bytes = fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()?;
        (bytes < NO_LIMIT_BYTES).then_some(bytes)
    };
    let v2 = v2_folders(roots, &membership).into_iter().filter_map(|folder| read(folder, "memory.max"));
    let v1 =
        v1_folders(roots, &membership, "memory").into_iter().filter_map(|folder| read(folder, "memory.limit_in_bytes"));
    v2.chain(v1).min()
}

/// The machine's memory in bytes.
pub fn machine_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// What may still be used of the container's memory, in bytes: the smallest difference between limit and use on the way up; none
/// if there is no limit. Files that the kernel would drop first do not count as used.
pub fn memory_left(roots: &Roots) -> Option<u64> {
    let membership = fs::read_to_string(&roots.membership).unwrap_or_default();
    let left = |folder: PathBuf, limit: &str, usage: &str, idle: &str| -> Option<u64> {
        let number = |file: &str| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
        let limit = number(limit).filter(|bytes| *bytes < NO_LIMIT_BYTES)?;
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let idle = stat.lines().find_map(|line| line.strip_prefix(idle)?.trim().parse::<u64>().ok()).unwrap_or(0);
        Some(limit.saturating_sub(number(usage)?.saturating_sub(idle)))
    };
    let v2 = v2_folders(roots, &membership).into_iter();
    let v2 = v2.filter_map(|folder| left(folder, "memory.max", "memory.current", "inactive_file "));
    let v1 = v1_folders(roots, &membership, "memory").into_iter();
    let v1 =
        v1.filter_map(|folder| left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "));
    v2.chain(v1).min()
}

/// What the machine can still give, in bytes.
pub fn machine_memory_left() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Whether the group in which the process competes for the CPU holds nobody else: then niceness is between its own threads. Whoever
/// started it may be there too, such as a container's init or a shell, since they wait.
pub fn is_own(roots: &Roots) -> bool {
    holds_only(roots, &self_and_ancestors())
}

fn holds_only(roots: &Roots, ours: &[u32]) -> bool {
    let membership = fs::read_to_string(&roots.membership).unwrap_or_default();
    let is_held = |folder: Option<PathBuf>, weight: &str| {
        // The root of version 2 and a group without the controller have no weight: there the CPU is shared further up.
        let folder = folder.filter(|folder| folder.join(weight).exists())?;
        let members = fs::read_to_string(folder.join("cgroup.procs")).ok()?;
        Some(!members.trim().is_empty() && members.lines().all(|pid| pid.parse().is_ok_and(|pid| ours.contains(&pid))))
    };
    let v2 = || is_held(v2_folders(roots, &membership).into_iter().next(), "cpu.weight");
    let v1 = || is_held(v1_folders(roots, &membership, "cpu").into_iter().next(), "cpu.shares");
    v2().or_else(v1).unwrap_or(false)
}

fn self_and_ancestors() -> Vec<u32> {
    let parent = |pid: &u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything; state and parent come after its last bracket.
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok().filter(|parent| *parent != 0)
    };
    std::iter::successors(Some(std::process::id()), parent).collect()
}

fn v2_folders(roots: &Roots, membership: &str) -> Vec<PathBuf> {
    let own = membership.lines().find_map(|line| line.strip_prefix("0::"));
    upwards(&roots.groups, own.unwrap_or("/"))
}

fn v1_folders(roots: &Roots, membership: &str, controller: &str) -> Vec<PathBuf> {
    let own = membership.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    });
    upwards(&roots.groups.join(controller), own.unwrap_or("/"))
}

/// `base` with `path` under it, then each parent, down to `base` itself.
fn upwards(base: &Path, path: &str) -> Vec<PathBuf> {
    let mut folder = PathBuf::from(path.trim_start_matches('/'));
    // Outside of its own namespace a group is shown with `..`; only the mount's root can be read then.
    if folder.components().any(|part| matches!(part, std::path::Component::ParentDir)) {
        folder = PathBuf::new();
    }
    let mut folders = vec![base.join(&folder)];
    while folder.pop() {
        folders.push(base.join(&folder));
    }
    folders
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    pub(super) fn roots(membership: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Roots) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join("groups").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(folder.path().join("membership"), membership).unwrap();
        let roots = Roots { groups: folder.path().join("groups"), membership: folder.path().join("membership") };
        (folder, roots)
    }

    #[test]
    fn version_two_takes_the_smallest_limit_on_the_way_up() {
        let (_folder, roots) =
            roots("0::/pod/container\n", &[("pod/container/memory.max", "268435456\n"), ("pod/memory.max", "max\n")]);
        assert_eq!(memory_limit(&roots), Some(256 << 20));
    }

    #[test]
    fn version_one_is_read_per_controller() {
        let (_folder, roots) = roots(
            "4:memory:/job\n1:cpu,cpuacct:/job\n",
            &[("memory/job/memory.limit_in_bytes", "9223372036854771712\n")],
        );
        assert_eq!(memory_limit(&roots), None);
    }

    #[test]
    fn what_is_left_is_the_least_on_the_way_up_and_idle_files_are_not_used() {
        let (_folder, v2) = roots(
            "0::/pod/container\n",
            &[
                ("pod/container/memory.max", "1000\n"),
                ("pod/container/memory.current", "700\n"),
                ("pod/container/memory.stat", "anon 1\nfile 400\ninactive_file 300\n"),
                ("pod/memory.max", "800\n"),
                ("pod/memory.current", "750\n"),
            ],
        );
        assert_eq!(memory_left(&v2), Some(50));
        let (_folder, v1) = roots(
            "4:memory:/job\n",
            &[
                ("memory/job/memory.limit_in_bytes", "1000\n"),
                ("memory/job/memory.usage_in_bytes", "1200\n"),
                ("memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 400\n"),
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/memory.usage_in_bytes", "5\n"),
            ],
        );
        assert_eq!(memory_left(&v1), Some(200));
        let (_folder, none) = roots("0::/\n", &[("memory.max", "max\n"), ("memory.current", "5\n")]);
        assert_eq!(memory_left(&none), None);
        assert!(machine_memory_left().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn a_group_is_own_if_only_the_process_and_those_who_started_it_are_in_it() {
        let ours = [70, 1];
        let (_folder, container) = roots("0::/\n", &[("cpu.weight", "10\n"), ("cgroup.procs", "1\n70\n")]);
        assert!(holds_only(&container, &ours));
        let (_folder, shared) = roots("0::/\n", &[("cpu.weight", "10\n"), ("cgroup.procs", "1\n70\n71\n")]);
        assert!(!holds_only(&shared, &ours));
        // Of another namespace of processes: there is no telling who that is.
        let (_folder, hidden) = roots("0::/\n", &[("cpu.weight", "10\n"), ("cgroup.procs", "70\n0\n")]);
        assert!(!holds_only(&hidden, &ours));
        let (_folder, root) = roots("0::/\n", &[("cgroup.procs", "70\n")]);
        assert!(!holds_only(&root, &ours));
        let (_folder, no_controller) =
            roots("0::/slice/unit\n", &[("slice/unit/cgroup.procs", "70\n"), ("slice/cpu.weight", "10\n")]);
        assert!(!holds_only(&no_controller, &ours));
        let v1 = "3:cpu,cpuacct:/job\n0::/\n";
        let (_folder, old) = roots(v1, &[("cpu/job/cpu.shares", "1024\n"), ("cpu/job/cgroup.procs", "70\n")]);
        assert!(holds_only(&old, &ours));
        let (_folder, unreadable) = roots(v1, &[]);
        assert!(!holds_only(&unreadable, &ours));
    }

    #[test]
    fn ancestors_go_up_to_the_first_process() {
        let ours = self_and_ancestors();
        assert_eq!(ours.first(), Some(&std::process::id()));
        assert_eq!(ours.get(1), Some(&std::os::unix::process::parent_id()));
    }

    #[test]
    fn no_files_means_no_limit() {
        let (_folder, roots) = roots("0::/\n", &[]);
        assert_eq!(memory_limit(&roots), None);
        assert!(machine_memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
