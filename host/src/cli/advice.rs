//! From measured probes to what to set for them: pure.
//!
//! Where the measurement shows nothing bad, the advice is the chart's own defaults: smaller values would gain nothing that anyone notices,
//! and give a node's hiccup, which no short measurement holds, the power to restart a pod.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

/// What the timeout is at least, times the 99th percentile: a node that is ten times as slow as now still gets its answer through.
const SAFETY: u32 = 10;

/// What the timeout is at least, times the slowest answer that was seen.
const SAFETY_OVER_MAX: u32 = 3;

/// Fewer answers than this say little about one in a hundred.
const FEW: usize = 200;

/// Which of the three probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Liveness,
    Readiness,
    Startup,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::Liveness, Kind::Readiness, Kind::Startup];

    /// What it asks for.
    pub(super) fn path(self) -> &'static str {
        match self {
            Kind::Liveness => "/health/live",
            Kind::Readiness => "/health/ready",
            Kind::Startup => "/health/startup",
        }
    }

    /// Its key in a container, and in the chart's values.
    pub(super) fn key(self) -> &'static str {
        match self {
            Kind::Liveness => "livenessProbe",
            Kind::Readiness => "readinessProbe",
            Kind::Startup => "startupProbe",
        }
    }

    /// The chart's defaults: period, timeout, failures in a row.
    fn defaults(self) -> Values {
        let (period_seconds, timeout_seconds, failure_threshold) = match self {
            Kind::Liveness => (10, 2, 3),
            Kind::Readiness => (5, 2, 1),
            Kind::Startup => (1, 2, 60),
        };
        Values { period_seconds, timeout_seconds, failure_threshold }
    }

    /// How seldom as many failures in a row as the threshold may come by chance, as a share of all probes.
    fn by_chance(self) -> f64 {
        match self {
            // Ten seconds apart, one in a million is one in four months.
            Kind::Liveness => 1e-6,
            Kind::Readiness | Kind::Startup => 1e-3,
        }
    }
}

/// What asking for one path showed.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    /// How long each answer took, whatever it was, in any order.
    pub(super) answered: Vec<Duration>,
    /// Answers other than 200.
    pub(super) not_ok: usize,
    /// What the last of them said.
    pub(super) last_refusal: Option<(u16, String)>,
    /// Probes that got no answer in time.
    pub(super) timeouts: usize,
    /// Probes that failed otherwise.
    pub(super) broken: usize,
    /// How the last of them failed.
    pub(super) last_error: Option<String>,
}

/// All that was measured.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    /// In the order of [`Kind::ALL`].
    pub(super) series: [Series; 3],
    /// How long a probe was waited for.
    pub(super) patience: Duration,
    /// How long the host took to start up, if it tells.
    pub(super) startup: Option<Duration>,
    /// Kernel periods in which the container was throttled meanwhile, if the host tells.
    pub(super) throttled_periods: Option<u64>,
}

/// What to set for one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Values {
    pub(super) period_seconds: u64,
    pub(super) timeout_seconds: u64,
    pub(super) failure_threshold: u64,
}

/// What one series amounts to, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    pub(super) probes: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    /// Timeouts and broken answers.
    pub(super) failed: usize,
    /// Answers other than 200.
    pub(super) not_ok: usize,
}

/// The advice for one probe.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Probe {
    pub(super) probe: &'static str,
    pub(super) path: &'static str,
    pub(super) measured: Figures,
    pub(super) values: Values,
    /// A line for each of timeout, and period with threshold.
    pub(super) reasons: Vec<String>,
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Advice {
    pub(super) probes: Vec<Probe>,
    /// What the measurement shows that no value of a probe mends.
    pub(super) warnings: Vec<String>,
    /// Whether liveness is red at this moment.
    #[serde(rename = "liveIsRed")]
    pub(super) is_red: bool,
}

impl Series {
    fn probes(&self) -> usize {
        self.answered.len() + self.failed()
    }

    fn failed(&self) -> usize {
        self.timeouts + self.broken
    }

    fn figures(&self) -> Figures {
        let ms = |share| self.at(share).as_secs_f64() * 1e3;
        Figures {
            probes: self.probes(),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            max_ms: ms(1.0),
            failed: self.failed(),
            not_ok: self.not_ok,
        }
    }

    /// The time within which this share of the answers came; zero without answers.
    fn at(&self, share: f64) -> Duration {
        let mut sorted = self.answered.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
    }
}

/// Weighs what was measured.
pub(super) fn advise(measured: &Measured) -> Advice {
    let mut warnings = Vec::new();
    let probes: Vec<_> = Kind::ALL
        .iter()
        .zip(&measured.series)
        .map(|(kind, series)| {
            let probe = one(*kind, series, measured);
            warn(*kind, series, &probe, measured, &mut warnings);
            probe
        })
        .collect();
    if let Some(periods) = measured.throttled_periods.filter(|periods| *periods > 0) {
        warnings.push(format!(
            "the kernel throttled the container in {periods} periods meanwhile: it stops health as well. \
             Raise or remove the CPU limit"
        ));
    }
    let [live, ..] = &measured.series;
    Advice { probes, warnings, is_red: live.not_ok > 0 }
}

fn one(kind: Kind, series: &Series, measured: &Measured) -> Probe {
    let figures = series.figures();
    let (timeout_seconds, timeout_reason) = timeout(kind, series, measured.patience);
    let defaults = kind.defaults();
    let by_failures = threshold(series, kind.by_chance());
    let mut failure_threshold = defaults.failure_threshold.max(by_failures);
    // A probe that may take longer than the period would be late for its own successor.
    let period_seconds = defaults.period_seconds.max(if kind == Kind::Startup { 1 } else { timeout_seconds });
    let mut reason = match kind {
        Kind::Liveness => format!(
            "a wedge turns it red after health.stuckSeconds (15 unless set), and {failure_threshold} probes \
             {period_seconds} s apart restart the pod at most {} s later; one slow answer restarts nothing",
            failure_threshold * period_seconds + timeout_seconds
        ),
        Kind::Readiness => format!(
            "nothing is restarted for it: {failure_threshold} failure{} take{} the pod out of its Service, within {} s",
            if failure_threshold == 1 { "" } else { "s" },
            if failure_threshold == 1 { "s" } else { "" },
            failure_threshold * period_seconds + timeout_seconds
        ),
        Kind::Startup => {
            if let Some(took) = measured.startup {
                failure_threshold = failure_threshold.max((took * SAFETY).as_secs_f64().ceil() as u64);
            }
            let took = measured.startup.map_or_else(String::new, |took| {
                format!("it took {:.1} s this time, and may take {SAFETY} times that; ", took.as_secs_f64())
            });
            format!(
                "{took}{} s until the container is given up; it never waits for a plugin, so asking each second is cheap",
                failure_threshold * period_seconds
            )
        }
    };
    if by_failures > defaults.failure_threshold {
        let _ = write!(
            reason,
            "; raised from {}, since {} of {} probes failed",
            defaults.failure_threshold,
            series.failed(),
            series.probes()
        );
    }
    Probe {
        probe: kind.key(),
        path: kind.path(),
        measured: figures,
        values: Values { period_seconds, timeout_seconds, failure_threshold },
        reasons: vec![timeout_reason, reason],
    }
}

/// Whole seconds, and why.
fn timeout(kind: Kind, series: &Series, patience: Duration) -> (u64, String) {
    let least = kind.defaults().timeout_seconds;
    let (p99, max) = (series.at(0.99), series.at(1.0));
    let wanted = (p99 * SAFETY).max(max * SAFETY_OVER_MAX);
    let measured = format!(
        "{SAFETY} times the measured p99 of {:.1} ms and {SAFETY_OVER_MAX} times the slowest of {:.1} ms",
        p99.as_secs_f64() * 1e3,
        max.as_secs_f64() * 1e3
    );
    if series.timeouts > 0 {
        let seconds = (patience.as_secs_f64().ceil() as u64).max(wanted.as_secs_f64().ceil() as u64).max(least);
        return (
            seconds,
            format!("some probes got no answer within {seconds} s, which is as long as they were waited for"),
        );
    }
    let seconds = wanted.as_secs_f64().ceil() as u64;
    match seconds <= least {
        true => (least, format!("{measured} are within it")),
        false => (seconds, format!("{measured}, in whole seconds")),
    }
}

/// How many failures in a row come by chance less often than `by_chance`, at the share of failures that was measured; at most ten.
fn threshold(series: &Series, by_chance: f64) -> u64 {
    let failed = series.failed();
    if failed == 0 {
        return 1;
    }
    let share = failed as f64 / series.probes() as f64;
    // A power of a decimal share misses its round value by a few of the last digits.
    let by_chance = by_chance * (1.0 + 1e-9);
    (1..10).find(|in_a_row| share.powi(*in_a_row) <= by_chance).map_or(10, i32::unsigned_abs).into()
}

fn warn(kind: Kind, series: &Series, probe: &Probe, measured: &Measured, warnings: &mut Vec<String>) {
    let path = kind.path();
    let figures = probe.measured;
    if series.timeouts > 0 {
        warnings.push(format!(
            "{path}: {} of {} probes got no answer within {:.0} s: find out what holds the host up before you trust a longer timeout",
            series.timeouts,
            figures.probes,
            measured.patience.as_secs_f64()
        ));
    }
    if series.broken > 0 {
        let last = series.last_error.as_deref().unwrap_or_default();
        warnings.push(format!("{path}: {} of {} probes failed: {last}", series.broken, figures.probes));
    }
    if let Some((code, said)) = &series.last_refusal {
        let meaning = match kind {
            Kind::Liveness => "a kubelet would restart this pod",
            Kind::Readiness => "it is not ready now; measure once more when it is",
            Kind::Startup => "it has not started up yet; measure once more when it has",
        };
        warnings.push(format!("{path} answered {code} in {} probes ({said}): {meaning}", series.not_ok));
    }
    if figures.p99_ms > probe.values.timeout_seconds as f64 * 1e3 / 4.0 {
        warnings.push(format!(
            "{path}: the p99 of {:.0} ms is near the timeout; an answer takes less than a millisecond on a host that has CPU",
            figures.p99_ms
        ));
    }
    if series.answered.len() < FEW {
        warnings.push(format!("{path}: {} answers are few; a longer --seconds says more", series.answered.len()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    fn series(answers: usize, ms: u64) -> Series {
        Series { answered: vec![Duration::from_millis(ms); answers], ..Series::default() }
    }

    fn measured(live: Series) -> Measured {
        Measured {
            series: [live, series(300, 1), series(300, 1)],
            patience: Duration::from_secs(5),
            ..Measured::default()
        }
    }

    /// Period, timeout and threshold of the three.
    fn values(advice: &Advice) -> Vec<(u64, u64, u64)> {
        let values = advice.probes.iter().map(|probe| probe.values);
        values.map(|values| (values.period_seconds, values.timeout_seconds, values.failure_threshold)).collect()
    }

    #[test]
    fn a_host_that_is_well_gets_the_charts_defaults() {
        let advice = advise(&measured(series(300, 1)));
        assert_eq!(values(&advice), [(10, 2, 3), (5, 2, 1), (1, 2, 60)]);
        assert_eq!((advice.warnings.as_slice(), advice.is_red), (&[][..], false));
        assert!(advice.probes.iter().all(|probe| probe.reasons.len() == 2));
        assert!(advice.probes[0].reasons[1].contains("at most 32 s later"), "{:?}", advice.probes[0].reasons);
    }

    #[test]
    fn the_liveness_values_follow_what_was_measured() {
        let mut spike = series(999, 1);
        spike.answered.push(Duration::from_millis(900));
        let failing = |answers, timeouts| Series { timeouts, ..series(answers, 1) };
        for (live, expected, warning) in [
            // Ten times the p99.
            (series(300, 450), (10, 5, 3), None),
            // Three times one slow answer that the p99 does not show.
            (spike, (10, 3, 3), None),
            // Slower than the period: probes do not overlap.
            (series(300, 1_500), (15, 15, 3), None),
            (series(300, 5_000), (50, 50, 3), None),
            // One in a thousand: three in a row are one in a billion. One in ten: six.
            (failing(999, 1), (10, 5, 3), Some("1 of 1000 probes got no answer within 5 s")),
            (failing(900, 100), (10, 5, 6), Some("100 of 1000")),
            (failing(0, 4), (10, 5, 10), Some("0 answers are few")),
            (series(5, 1), (10, 2, 3), Some("5 answers are few")),
        ] {
            let advice = advise(&measured(live));
            assert_eq!(values(&advice)[0], expected, "{advice:#?}");
            if let Some(warning) = warning {
                assert!(advice.warnings.iter().any(|said| said.contains(warning)), "{:?}", advice.warnings);
            }
        }
    }

    #[test]
    fn trouble_is_named() {
        let mut trouble = measured(Series {
            not_ok: 300,
            last_refusal: Some((503, "lane-0 is blocked".to_owned())),
            ..series(300, 1)
        });
        trouble.throttled_periods = Some(7);
        trouble.series[1].broken = 2;
        trouble.series[1].last_error = Some("the answer is no HTTP".to_owned());
        let advice = advise(&trouble);
        assert!(advice.is_red);
        for part in
            ["(lane-0 is blocked): a kubelet would restart", "in 7 periods", "2 of 302 probes failed: the answer"]
        {
            assert!(advice.warnings.iter().any(|said| said.contains(part)), "{part}: {:?}", advice.warnings);
        }
        trouble.throttled_periods = Some(0);
        assert!(!advise(&trouble).warnings.iter().any(|said| said.contains("periods")));
    }

    #[test]
    fn a_slow_start_is_given_its_time() {
        let mut slow = measured(series(300, 1));
        slow.startup = Some(Duration::from_secs(20));
        assert_eq!(values(&advise(&slow))[2], (1, 2, 200));
        slow.startup = Some(Duration::from_millis(40));
        assert_eq!(values(&advise(&slow))[2], (1, 2, 60));
    }
}
