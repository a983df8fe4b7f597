//! How far a plugin's schedule has come, by what its report says: for tests that hold what happened against what was due.

use serde_json::Value;
use windlass_core::time::Timestamp;

/// A look at one plugin's sums.
pub struct Count {
    /// Runs that ended or go on, and starts that were skipped.
    pub accounted: f64,
    /// Starts that were skipped.
    pub skipped: f64,
    /// When the next run is due, in milliseconds since 1970.
    pub next_due_ms: f64,
}

impl Count {
    /// By its report, `/health/plugins/NAME`.
    pub fn of(plugin: &Value) -> Count {
        let sum = |of: &Value| of.as_object().unwrap().values().filter_map(Value::as_f64).sum::<f64>();
        let skipped = sum(&plugin["totals"]["skipped"]);
        let running = plugin["running"].as_array().unwrap().len() as f64;
        let accounted = sum(&plugin["totals"]["runs"]) + running + skipped;
        Count { accounted, skipped, next_due_ms: millis(&plugin["nextRun"]) as f64 }
    }

    /// How many runs have fallen due since an earlier look.
    pub fn due_since(&self, first: &Count, period_ms: f64) -> f64 {
        ((self.next_due_ms - first.next_due_ms) / period_ms).round()
    }
}

/// Milliseconds since 1970 of a moment in a report.
pub fn millis(at: &Value) -> i64 {
    at.as_str().unwrap().parse::<Timestamp>().unwrap().as_millisecond()
}
