//! The documentation as the bed and CI read it: relative links must lead to something, and marked blocks are run as they stand.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::steps::{self, command, root};

/// Checks every Markdown file that git knows.
pub(crate) fn check() -> Result<()> {
    let files = steps::output(command("git", &["ls-files", "*.md"]))?;
    let mut broken = Vec::new();
    for file in files.lines() {
        let path = root().join(file);
        let text = fs::read_to_string(&path).map_err(|error| format!("{file}: {error}"))?;
        for link in relative(&text) {
            let base = path.parent().unwrap_or(Path::new(""));
            if !base.join(&link).exists() {
                broken.push(format!("{file}: {link} leads nowhere"));
            }
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
}

/// The fenced block behind `<!-- test: NAME -->` in a page.
pub(crate) fn block(page: &str, name: &str) -> Result<String> {
    let text = fs::read_to_string(root().join(page)).map_err(|error| format!("{page}: {error}"))?;
    let behind = text.split(&format!("<!-- test: {name} -->")).nth(1);
    let fenced = behind.and_then(|behind| behind.split("```").nth(1)).and_then(|fenced| fenced.split_once('\n'));
    fenced.map(|(_, block)| block.to_owned()).ok_or_else(|| format!("{page} has no block `{name}`"))
}

/// The targets of a text's relative links, without anchors.
fn relative(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .map(|target| target.split(['#', ' ']).next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_and_others_left_alone() {
        let text = "see [a](docs/a.md#x), [b](https://example.com), [c](#here) and ![d](d.png \"title\")";
        assert_eq!(relative(text), ["docs/a.md", "d.png"]);
    }
}
