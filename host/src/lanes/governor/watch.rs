//! What the governor's thread does at each of its turns: read, compare, and bring everything in line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bucket::Rate;
use super::cores::Cores;
use super::gauges::Pacing;
use super::share::Share;
use super::{Inner, Options};
use crate::lanes::cgroup::{CpuGroups, CpuLimit, Throttling};
use crate::lanes::clock;

/// How often limits are read where there is none: a few small files.
const LOOK_UNLIMITED: Duration = Duration::from_secs(3);
/// The same where there is one, and how often the run queues are looked at.
const LOOK_LIMITED: Duration = Duration::from_secs(1);
/// Counters are read about once a period, but within these bounds.
const COUNT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// See the module.
pub(super) struct Watch {
    options: Options,
    inner: Arc<Inner>,
    groups: CpuGroups,
    share: Share,
    cores: Cores,
    /// The counters at the last look, and a second ago.
    counted: Throttling,
    counted_before: Throttling,
    /// Ticks of the health thread's timer that have been taken in.
    ticks: u64,
    limits_due: Option<Instant>,
    counters_due: Option<Instant>,
}

impl Watch {
    pub(super) fn new(options: Options, inner: Arc<Inner>) -> Watch {
        options.lanes.set(options.plan.lanes(None));
        options.gauges.set_lanes(options.plan.lanes(None));
        Watch {
            options,
            inner,
            groups: CpuGroups::default(),
            share: Share::new(),
            cores: Cores::find(),
            counted: Throttling::default(),
            counted_before: Throttling::default(),
            ticks: 0,
            limits_due: None,
            counters_due: None,
        }
    }

    /// Does what is due, and returns how long until something else is.
    pub(super) fn turn(&mut self) -> Duration {
        let now = Instant::now();
        if self.limits_due.is_none_or(|due| due <= now) {
            self.look_at_limits();
            let next = if self.groups.limit().is_some() { LOOK_LIMITED } else { LOOK_UNLIMITED };
            self.limits_due = Some(now + next);
        }
        let until_limits = self.limits_due.map_or(LOOK_LIMITED, |due| due.saturating_duration_since(now));
        let Some(limit) = self.groups.limit() else { return until_limits };
        if self.counters_due.is_none_or(|due| due <= now) {
            self.look_at_counters(limit);
            self.counters_due = Some(now + limit.period.clamp(COUNT.0, COUNT.1));
        }
        let until_counters = self.counters_due.map_or(COUNT.0, |due| due.saturating_duration_since(now));
        let rate = rate(limit, self.share.value()).cpus();
        let until_children = self.inner.children.turn(&self.inner.pacer, rate, clock::uptime_ns(now));
        let naps = [until_limits, until_counters, until_children.map_or(until_limits, Duration::from_nanos)];
        naps.into_iter().min().unwrap_or(until_limits)
    }

    /// Gives all cores back.
    pub(super) fn end(&mut self) {
        self.cores.use_only(None, &self.inner.children.pids(), self.options.gauges.health_thread());
    }

    fn look_at_limits(&mut self) {
        let found = CpuGroups::find(&self.options.roots);
        if found == self.groups {
            if self.groups.limit().is_some() {
                self.look_at_cores();
            }
            return;
        }
        let was = std::mem::replace(&mut self.groups, found).limit();
        self.counted = self.groups.throttling();
        self.counted_before = self.counted;
        if was != self.groups.limit() {
            self.limit_changed(was, self.groups.limit());
        }
    }

    fn limit_changed(&mut self, was: Option<CpuLimit>, limit: Option<CpuLimit>) {
        self.share = Share::new();
        let pacer = &self.inner.pacer;
        match (was, limit) {
            (None, Some(limit)) => pacer.begin(rate(limit, self.share.value())),
            (Some(_), Some(limit)) => pacer.set_rate(rate(limit, self.share.value())),
            (_, None) => {
                pacer.end();
                self.inner.children.release();
            }
        }
        let lanes = self.options.plan.lanes(limit);
        self.options.lanes.set(lanes);
        self.options.gauges.set_lanes(lanes);
        let cores = limit.map(|limit| limit.cpus.ceil() as usize);
        let cores = self.cores.use_only(cores, &self.inner.children.pids(), self.options.gauges.health_thread());
        self.tell(limit);
        match limit {
            Some(CpuLimit { cpus, period }) => tracing::info!(
                cpu_limit = cpus,
                period_ms = period.as_millis() as u64,
                lanes,
                cores = cores.map(|cores| format!("{cores:?}")),
                "pacing under the CPU limit"
            ),
            None => tracing::info!(lanes, "the CPU limit is gone: pacing no more"),
        }
    }

    fn look_at_counters(&mut self, limit: CpuLimit) {
        let now = self.groups.throttling();
        let periods = now.periods.saturating_sub(self.counted.periods);
        let throttled = now.throttled_periods.saturating_sub(self.counted.throttled_periods);
        self.counted = now;
        let before = self.share.value();
        let (lanes_ns, all_ns) = self.inner.pacer.with_bucket(|bucket, _| bucket.take_used());
        if periods > 0 || throttled > 0 {
            self.share.periods_passed(periods, throttled, lanes_ns * 2 >= all_ns);
        }
        let (ticks, late) = self.options.gauges.ticks();
        if ticks != std::mem::replace(&mut self.ticks, ticks) && self.share.ticked(late) {
            tracing::debug!(share = self.share.value(), "timers are late though the kernel's counters stand still");
        }
        if self.share.value() != before {
            self.inner.pacer.set_rate(rate(limit, self.share.value()));
        }
        if throttled > 0 {
            tracing::debug!(throttled, share = self.share.value(), "the kernel throttled");
        }
        self.tell(Some(limit));
    }

    fn look_at_cores(&mut self) {
        let throttled = self.counted.throttled_periods != self.counted_before.throttled_periods;
        self.counted_before = self.counted;
        let children = self.inner.children.pids();
        let health = self.options.gauges.health_thread();
        if let Some(cores) = self.cores.look(throttled || !children.is_empty(), &children, health) {
            tracing::info!(cores = format!("{cores:?}"), "moved: others crowded the core");
        }
    }

    fn tell(&self, limit: Option<CpuLimit>) {
        self.options.gauges.set_pacing(limit.map(|limit| Pacing {
            limit_cpus: limit.cpus,
            share: self.share.value(),
            paced: self.inner.pacer.paced(),
            kernel: self.counted,
        }));
    }
}

fn rate(limit: CpuLimit, share: f64) -> Rate {
    Rate::new(limit.quota().as_nanos() as f64, limit.period.as_nanos() as f64, share)
}
