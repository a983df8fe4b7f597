//! Wedges: how a test stops a thread of the host for real, to see what health says. Nothing at all without the feature `wedge`, which
//! no release has.
//!
//! A test names points, kinds and times in an environment variable, such as `lane=block@2s,clock=+1h@500ms`: the first thread that
//! passes the point after so long (counted from the first point that any thread passed) blocks, spins or panics there; `clock` makes
//! the host's wall clock jump. The points are passed outside of whatever catches panics.

/// Where a thread can be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// A lane, within a poll.
    Lane,
    /// The scheduler, within a turn.
    Scheduler,
    /// The scheduler, where it waits for messages.
    SchedulerWait,
    /// A loader, with a plugin in its hands.
    Loader,
    /// The reaper, with the dead in its hands.
    Reaper,
    /// The guests' runtime.
    GuestIo,
    /// The thread that writes log lines.
    Log,
}

/// Passes a point.
#[cfg(not(feature = "wedge"))]
#[inline(always)]
pub(crate) fn pass(_: Point) {}

/// What the host's wall clock says.
#[cfg(not(feature = "wedge"))]
#[inline(always)]
pub(crate) fn wall(now: jiff::Timestamp) -> jiff::Timestamp {
    now
}

#[cfg(feature = "wedge")]
pub(crate) use real::{pass, wall};

#[cfg(feature = "wedge")]
mod real {
    #![allow(clippy::panic, reason = "to panic is what is asked for")]
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use jiff::{SignedDuration, Timestamp};

    use super::Point;

    const VARIABLE: &str = "WINDLASS_WEDGE";

    #[derive(Debug, Clone, Copy)]
    enum Kind {
        Block,
        Spin,
        Panic,
    }

    struct Wedge {
        point: Point,
        kind: Kind,
        after: Duration,
        /// A wedge holds one thread.
        is_taken: AtomicBool,
    }

    struct Plan {
        began: Instant,
        wedges: Vec<Wedge>,
        /// How far the wall clock jumps, and when.
        jumps: Vec<(SignedDuration, Duration)>,
    }

    /// Passes a point: does not return if a wedge is due there.
    pub(crate) fn pass(point: Point) {
        let plan = plan();
        let is_due = |wedge: &&Wedge| wedge.point == point && plan.began.elapsed() >= wedge.after;
        let Some(wedge) = plan.wedges.iter().filter(is_due).find(|wedge| !wedge.is_taken.swap(true, Ordering::Relaxed))
        else {
            return;
        };
        // Past the log, which may be what is held.
        eprintln!("a wedge holds {point:?}");
        match wedge.kind {
            Kind::Block => loop {
                std::thread::sleep(Duration::from_secs(3_600));
            },
            Kind::Spin => loop {
                std::hint::spin_loop();
            },
            Kind::Panic => panic!("a wedge at {point:?}"),
        }
    }

    /// What the host's wall clock says, with the jumps that are due.
    pub(crate) fn wall(now: Timestamp) -> Timestamp {
        let plan = plan();
        let uptime = plan.began.elapsed();
        let due = plan.jumps.iter().filter(|(_, after)| uptime >= *after);
        due.fold(now, |now, (by, _)| now.checked_add(*by).unwrap_or(now))
    }

    fn plan() -> &'static Plan {
        static PLAN: OnceLock<Plan> = OnceLock::new();
        PLAN.get_or_init(|| {
            let text = std::env::var(VARIABLE).unwrap_or_default();
            let mut plan = Plan { began: Instant::now(), wedges: Vec::new(), jumps: Vec::new() };
            for part in text.split(',').filter(|part| !part.is_empty()) {
                if read(part, &mut plan).is_none() {
                    eprintln!("{VARIABLE}: `{part}` is no wedge; write it like lane=block@2s or clock=-1h@2s");
                    std::process::exit(2);
                }
            }
            plan
        })
    }

    fn read(part: &str, plan: &mut Plan) -> Option<()> {
        let (point, rest) = part.split_once('=')?;
        let (kind, after) = rest.split_once('@')?;
        let after = duration(after)?;
        if point == "clock" {
            let by = match (kind.strip_prefix('+'), kind.strip_prefix('-')) {
                (Some(ahead), _) => SignedDuration::try_from(duration(ahead)?).ok()?,
                (None, Some(back)) => -SignedDuration::try_from(duration(back)?).ok()?,
                (None, None) => return None,
            };
            plan.jumps.push((by, after));
            return Some(());
        }
        let point = match point {
            "lane" => Point::Lane,
            "scheduler" => Point::Scheduler,
            "scheduler-wait" => Point::SchedulerWait,
            "loader" => Point::Loader,
            "reaper" => Point::Reaper,
            "guest-io" => Point::GuestIo,
            "log" => Point::Log,
            _ => return None,
        };
        let kind = match kind {
            "block" => Kind::Block,
            "spin" => Kind::Spin,
            "panic" => Kind::Panic,
            _ => return None,
        };
        plan.wedges.push(Wedge { point, kind, after, is_taken: AtomicBool::new(false) });
        Some(())
    }

    /// `500ms`, `2s` or `1h`.
    fn duration(text: &str) -> Option<Duration> {
        let (number, unit_ms) = match (text.strip_suffix("ms"), text.strip_suffix('s'), text.strip_suffix('h')) {
            (Some(number), _, _) => (number, 1),
            (None, Some(number), _) => (number, 1_000),
            (None, None, Some(number)) => (number, 3_600_000),
            (None, None, None) => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(unit_ms).map(Duration::from_millis)
    }
}
