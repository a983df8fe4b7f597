//! `docs/faults.md`: the table as a page.

use std::fs;

use windlass_tests::root;

use super::runner::{MEDIAN, PERIOD, PROBE, WORST};
use super::{Row, all};

const HEAD: &str = "\
# What goes wrong, and what comes of it

Every row is a test of the real binary, and every cell of it is asserted there: `cargo xtask test -- faults`. Measured values are in what the
test prints (`-- faults --nocapture`). This page is made from the tests' own table: `UPDATE_DOCS=1 cargo xtask test -- faults::page`.

";

fn page() -> String {
    let mut page = HEAD.to_owned();
    page += &format!(
        "In every row three other plugins run each {} ms. *Punctual* means: each run that was due took place, none was skipped but while the host itself was stopped, half of them \
         were over within {} ms of when they were due and every one within {} s, on a machine that does other things as well. \
         All the while `/health/live` is probed over fresh connections, and every probe was answered with 200 within {} s. \
         *Well again* is how long it takes at most from when the fault begins (or, for what is done to the host, ends) until the run \
         is gone and everything is as before.\n",
        PERIOD.as_millis(),
        MEDIAN.as_millis(),
        WORST.as_secs_f64(),
        PROBE.as_secs()
    );
    for (title, rows) in all() {
        page += &format!(
            "\n## {title}\n\n| fault | outcome | status | reason shown | other plugins | `/health/live` | well again within |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n"
        );
        rows.iter().for_each(|(_, row)| page += &line(row));
    }
    page + "\n## A thread of the host is stuck\n\nThis is what a restart heals: `/health/live` turns red within `stuckSeconds` and one more \
            second, and says which thread and how (`tests/it/liveness.rs`, with threads that are really stopped).\n\n\
            | thread | `/health/live` | what it costs |\n| --- | --- | --- |\n\
            | a lane, blocked in a poll, spinning in one, or gone | red | the run on it; the other lanes go on |\n\
            | the scheduler, blocked or spinning, in a turn or where it waits | red | everything: nothing starts |\n\
            | the scheduler, by a panic | | the host ends with exit code 1 |\n\
            | a loader | 200 | the plugin that it loads stays `Loading` |\n\
            | the log's writer | 200 | log lines, which are counted |\n\
            | the reaper | 200 | memory of runs that were killed |\n\
            | the guests' runtime | 200 | the runs that wait in a host call, up to their deadlines |\n"
}

fn line(row: &Row) -> String {
    let code = |text: Option<&str>| text.map_or_else(|| "–".to_owned(), |text| format!("`{text}`"));
    format!(
        "| {} | {} | {} | {} | punctual | 200 | {} s |\n",
        row.fault,
        code(row.outcome),
        row.status,
        code(row.reason),
        row.well_within.as_secs_f64()
    )
}

#[test]
fn the_page_is_the_tables_own() {
    let path = root().join("docs/faults.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page()).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == page(),
        "docs/faults.md is old: UPDATE_DOCS=1 cargo xtask test -- faults::page"
    );
}
