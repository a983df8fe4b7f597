//! What a benchmark found: figures, each with its target where it has one.

use serde_json::json;

pub(crate) struct Report {
    name: &'static str,
    figures: Vec<(String, f64, Option<Target>)>,
}

#[derive(Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Report {
    pub(crate) fn new(name: &'static str) -> Report {
        Report { name, figures: Vec::new() }
    }

    /// Adds a figure without a target.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64) {
        self.figures.push((name.into(), value, None));
    }

    /// Adds a figure that should be no larger than its target.
    pub(crate) fn at_most(&mut self, name: impl Into<String>, value: f64, target: f64) {
        self.figures.push((name.into(), value, Some(Target::AtMost(target))));
    }

    /// Adds a figure that should be no smaller than its target.
    pub(crate) fn at_least(&mut self, name: impl Into<String>, value: f64, target: f64) {
        self.figures.push((name.into(), value, Some(Target::AtLeast(target))));
    }

    pub(crate) fn print(&self, as_json: bool) {
        if as_json {
            let figures: serde_json::Map<_, _> =
                self.figures.iter().map(|(name, value, _)| (name.clone(), json!(rounded(*value)))).collect();
            println!("{}", json!({ "bench": self.name, "figures": figures }));
            return;
        }
        println!("{}", self.name);
        for (name, value, target) in &self.figures {
            let (met, against) = match target {
                Some(Target::AtMost(target)) => (value <= target, format!("  at most {target}: ")),
                Some(Target::AtLeast(target)) => (value >= target, format!("  at least {target}: ")),
                None => (true, String::new()),
            };
            let against = match (against.is_empty(), met) {
                (true, _) => against,
                (false, true) => against + "met",
                (false, false) => against + "MISSED",
            };
            println!("  {name:<28} {:>12}{against}", rounded(*value));
        }
    }
}

fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// The value at a share of a sorted list.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
}
