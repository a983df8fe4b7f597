//! How many lanes there are to be. Pure.

use crate::lanes::cgroup::CpuLimit;

/// What the number of lanes follows from, besides the CPU limit of the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanePlan {
    /// `limits.lanes`, where it is set.
    pub configured: Option<usize>,
    /// The CPU request in thousandths of a CPU, where it is passed in.
    pub request_milli: Option<u64>,
    /// Cores that the process may use.
    pub cores: usize,
}

impl LanePlan {
    /// The number of lanes under this limit: what is configured, else the cores or the request, and never more than the limit
    /// rounded up. At least one.
    pub fn lanes(&self, limit: Option<CpuLimit>) -> usize {
        let ceiling = limit.map(|limit| (limit.cpus.ceil() as usize).max(1));
        let by_request = self.request_milli.map(|milli| usize::try_from(milli.div_ceil(1000)).unwrap_or(usize::MAX));
        let lanes = match (self.configured, ceiling, by_request) {
            (Some(configured), ceiling, _) => configured.min(ceiling.unwrap_or(configured)),
            (None, Some(ceiling), _) => ceiling.min(self.cores),
            (None, None, Some(request)) => request.min(self.cores),
            (None, None, None) => self.cores,
        };
        lanes.max(1)
    }

    /// The most there can be, whatever becomes of the limit.
    pub fn most(&self) -> usize {
        self.configured.unwrap_or(self.cores).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lanes_follow_the_limit_then_the_configuration_then_the_request_then_the_cores() {
        let lanes = |configured, request_milli, cpus: Option<f64>| {
            let plan = LanePlan { configured, request_milli, cores: 4 };
            let lanes = plan.lanes(cpus.map(|cpus| CpuLimit { cpus, period: Duration::from_millis(100) }));
            assert!(lanes <= plan.most());
            lanes
        };
        assert_eq!(lanes(None, None, None), 4);
        assert_eq!(lanes(None, Some(250), None), 1);
        assert_eq!(lanes(None, Some(1_001), None), 2);
        assert_eq!(lanes(None, Some(64_000), None), 4);
        assert_eq!(lanes(None, Some(250), Some(2.5)), 3, "a limit is worth more than a request");
        assert_eq!(lanes(None, None, Some(0.1)), 1);
        assert_eq!(lanes(None, None, Some(16.0)), 4);
        assert_eq!(lanes(Some(8), None, None), 8);
        assert_eq!(lanes(Some(8), Some(250), Some(1.5)), 2, "never more than the limit rounded up");
        assert_eq!(lanes(Some(1), None, Some(3.0)), 1);
        assert_eq!(lanes(None, Some(0), None), 1);
    }
}
