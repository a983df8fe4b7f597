//! The CPU limit of the groups that the process is in, and what the kernel counts of them: periods, and those in which it stopped us.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::{Roots, v1_folders, v2_folders};

/// How much CPU a group may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuLimit {
    /// In CPUs, such as 0.5.
    pub cpus: f64,
    /// The time over which the kernel counts; when its share of this is used up, the whole group stands still until the next.
    pub period: Duration,
}

impl CpuLimit {
    /// CPU time that may be used in one period.
    pub fn quota(&self) -> Duration {
        self.period.mul_f64(self.cpus)
    }
}

/// What the kernel has counted since the group was made; summed over all groups that carry a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which something ran.
    pub periods: u64,
    /// Those of them in which the group was stopped.
    pub throttled_periods: u64,
    /// For how long its CPUs were stopped, added up.
    pub throttled: Duration,
}

/// The groups on the way from the process's own to the root that carry a CPU limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CpuGroups {
    limit: Option<CpuLimit>,
    /// Each one's `cpu.stat`.
    stats: Vec<PathBuf>,
}

impl CpuGroups {
    /// Looks for them: a dozen small files, for now and then.
    pub fn find(roots: &Roots) -> CpuGroups {
        let membership = fs::read_to_string(&roots.membership).unwrap_or_default();
        let v2 = v2_folders(roots, &membership).into_iter().filter_map(|folder| {
            let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
            let (quota, period) = text.trim().split_once(' ')?;
            Some((limit(quota, period)?, folder))
        });
        let v1 = v1_folders(roots, &membership, "cpu").into_iter().filter_map(|folder| {
            let quota = fs::read_to_string(folder.join("cpu.cfs_quota_us")).ok()?;
            let period = fs::read_to_string(folder.join("cpu.cfs_period_us")).ok()?;
            Some((limit(quota.trim(), period.trim())?, folder))
        });
        let mut groups = CpuGroups::default();
        for (limit, folder) in v2.chain(v1) {
            if groups.limit.is_none_or(|least| limit.cpus < least.cpus) {
                groups.limit = Some(limit);
            }
            groups.stats.push(folder.join("cpu.stat"));
        }
        groups
    }

    /// The smallest limit; none if there is none.
    pub fn limit(&self) -> Option<CpuLimit> {
        self.limit
    }

    /// The counters as they are now. What cannot be read counts as zero.
    pub fn throttling(&self) -> Throttling {
        let mut sum = Throttling::default();
        for stat in &self.stats {
            let text = fs::read_to_string(stat).unwrap_or_default();
            for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
                let Ok(value) = value.trim().parse::<u64>() else { continue };
                match key {
                    "nr_periods" => sum.periods += value,
                    "nr_throttled" => sum.throttled_periods += value,
                    // Version 2.
                    "throttled_usec" => sum.throttled += Duration::from_micros(value),
                    // Version 1.
                    "throttled_time" => sum.throttled += Duration::from_nanos(value),
                    _ => {}
                }
            }
        }
        sum
    }
}

fn limit(quota: &str, period: &str) -> Option<CpuLimit> {
    // "max" and "-1" mean that there is no limit, and neither is a positive number.
    let (quota_us, period_us): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota_us > 0 && period_us > 0)
        .then(|| CpuLimit { cpus: quota_us as f64 / period_us as f64, period: Duration::from_micros(period_us) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::super::tests::roots;
    use super::*;

    fn cpus(roots: &Roots) -> Option<f64> {
        CpuGroups::find(roots).limit().map(|limit| limit.cpus)
    }

    #[test]
    fn version_two_takes_the_smallest_limit_on_the_way_up_and_counts_in_every_group_that_has_one() {
        let stat = |throttled: u32| {
            format!("usage_usec 7\nnr_periods 100\nnr_throttled {throttled}\nthrottled_usec 2500\nnr_bursts 0\n")
        };
        let (_folder, roots) = roots(
            "0::/pod/container\n",
            &[
                ("pod/container/cpu.max", "80000 50000\n"),
                ("pod/container/cpu.stat", &stat(3)),
                ("pod/cpu.max", "50000 100000\n"),
                ("pod/cpu.stat", &stat(4)),
                ("cpu.max", "max 100000\n"),
                ("cpu.stat", &stat(1000)),
            ],
        );
        let groups = CpuGroups::find(&roots);
        let limit = groups.limit().unwrap();
        assert_eq!(
            (limit.cpus, limit.period, limit.quota()),
            (0.5, Duration::from_millis(100), Duration::from_millis(50))
        );
        let counted = groups.throttling();
        assert_eq!((counted.periods, counted.throttled_periods), (200, 7));
        assert_eq!(counted.throttled, Duration::from_millis(5));
    }

    #[test]
    fn version_two_in_a_namespace_is_read_at_the_root_of_the_mount() {
        let (_folder, roots) = roots("0::/../../elsewhere\n", &[("cpu.max", "150000 100000\n")]);
        assert_eq!(cpus(&roots), Some(1.5));
    }

    #[test]
    fn version_one_is_nested_too_and_counts_nanoseconds() {
        let (_folder, roots) = roots(
            "4:memory:/job\n1:cpu,cpuacct:/pod/job\n",
            &[
                ("cpu/pod/job/cpu.cfs_quota_us", "-1\n"),
                ("cpu/pod/job/cpu.cfs_period_us", "100000\n"),
                ("cpu/pod/cpu.cfs_quota_us", "25000\n"),
                ("cpu/pod/cpu.cfs_period_us", "50000\n"),
                ("cpu/pod/cpu.stat", "nr_periods 10\nnr_throttled 2\nthrottled_time 1500000\n"),
                ("cpu/cpu.cfs_quota_us", "-1\n"),
                ("cpu/cpu.cfs_period_us", "100000\n"),
            ],
        );
        let groups = CpuGroups::find(&roots);
        assert_eq!(groups.limit(), Some(CpuLimit { cpus: 0.5, period: Duration::from_millis(50) }));
        let counted = Throttling { periods: 10, throttled_periods: 2, throttled: Duration::from_micros(1500) };
        assert_eq!(groups.throttling(), counted);
    }

    #[test]
    fn a_limit_appears_and_goes() {
        let (folder, roots) = roots("0::/\n", &[("cpu.max", "max 100000\n")]);
        assert_eq!(cpus(&roots), None);
        fs::write(folder.path().join("groups/cpu.max"), "20000 100000\n").unwrap();
        assert_eq!(cpus(&roots), Some(0.2));
        fs::write(folder.path().join("groups/cpu.max"), "max 100000\n").unwrap();
        assert_eq!(CpuGroups::find(&roots), CpuGroups::default());
        assert_eq!(CpuGroups::find(&roots).throttling(), Throttling::default());
    }
}
