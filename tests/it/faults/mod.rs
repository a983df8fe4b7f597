//! The fault matrix: what misbehaves, what becomes of it, and that nobody else notices. The table in `docs/faults.md` is made of it.
//!
//! Each row is a test, and each cell of it is asserted there. A row is added by adding it to a list below.

mod crowds;
mod guests;
mod hosts;
mod page;
mod ports;
mod runner;
mod swaps;

use std::time::Duration;

/// One fault, and what comes of it.
pub(crate) struct Row {
    /// What goes wrong.
    fault: &'static str,
    /// How the run of the culprit ends; none where no run is at fault.
    outcome: Option<&'static str>,
    /// The status of the culprit afterwards, or of the host where that is the culprit.
    status: &'static str,
    /// What is shown as the reason, or a part of it; none where nothing is.
    reason: Option<&'static str>,
    /// From when it begins until its run is gone and everything is as before.
    well_within: Duration,
    how: How,
}

/// How the fault is brought about.
pub(crate) enum How {
    /// By one plugin beside three bystanders: these guests, and this entry of the culprit.
    Plugin { guests: &'static [&'static str], entry: &'static str },
    /// By code of its own, which asserts the cells.
    Scene(fn(&Row)),
}

/// A list of rows: the table that the page is made of, and a test for each row.
macro_rules! rows {
    ($($name:ident: $row:expr;)*) => {
        pub(crate) fn rows() -> Vec<(&'static str, super::Row)> {
            vec![$((stringify!($name), $row)),*]
        }

        mod row {
            $(
                #[test]
                fn $name() {
                    let row = super::rows().into_iter().find(|(name, _)| *name == stringify!($name)).unwrap().1;
                    super::runner::check(&row);
                }
            )*
        }
    };
}
use rows;

fn all() -> Vec<(&'static str, Vec<(&'static str, Row)>)> {
    vec![
        ("A plugin misbehaves", guests::rows()),
        ("A newer version or its source is no good", swaps::rows()),
        ("Many at once", crowds::rows()),
        ("The host is mistreated", hosts::rows()),
        ("The health port is abused", ports::rows()),
    ]
}
