//! One number for host, image and chart: every place that says it says the same.

use std::fs;

use crate::steps::root;
use crate::{Result, chart};

const UNRELEASED: &str = "## Unreleased";

/// Checks them. With a tag, which a real release has, the changelog must tell of that version; before, what is unreleased is its place.
pub(super) fn check(tag: Option<&str>) -> Result<String> {
    let version = chart::version()?;
    if let Some(tag) = tag
        && tag != format!("v{version}")
    {
        return Err(format!("the tag is {tag}, and Cargo.toml says {version}: it should be v{version}"));
    }
    let read = |path: &str| fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}"));
    let places = [
        ("Cargo.toml", format!("windlass-sdk = {{ path = \"guest-sdk\", version = \"{version}\" }}")),
        ("Cargo.lock", format!("name = \"windlass\"\nversion = \"{version}\"\n")),
        ("charts/windlass/Chart.yaml", format!("\nversion: {version}\n")),
        ("charts/windlass/Chart.yaml", format!("\nappVersion: \"{version}\"\n")),
        ("Dockerfile", format!("org.opencontainers.image.version=\"{version}\"")),
        ("docs/aks/settings.sh", format!("VERSION:-{version}}}")),
        ("docs/aks.md", format!("release.yml@refs/tags/v{version} #")),
        ("docs/aks.md", format!("cosign verify ghcr.io/windlass-run/windlass:{version} ")),
    ];
    for (path, wanted) in places {
        if !read(path)?.contains(&wanted) {
            return Err(format!("{path} does not say {:?}", wanted.trim()));
        }
    }
    changes(&read("CHANGELOG.md")?, &version, tag.is_some())?;
    Ok(version)
}

/// What the changelog says of a version: the text for the release's page. Without one, what is unreleased will be that.
fn changes(changelog: &str, version: &str, is_release: bool) -> Result<String> {
    let heads = [format!("## {version}"), UNRELEASED.to_owned()];
    let is_head =
        |line: &str, head: &str| line.strip_prefix(head).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    let allowed = if is_release { &heads[..1] } else { &heads[..] };
    let found = changelog.lines().skip_while(|line| !allowed.iter().any(|head| is_head(line, head)));
    let text: Vec<&str> = found.skip(1).take_while(|line| !line.starts_with("## ")).collect();
    let text = text.join("\n").trim().to_owned();
    if text.is_empty() {
        return Err(format!("CHANGELOG.md tells nothing of {}", heads[0].trim_start_matches("## ")));
    }
    Ok(text)
}

/// The text for the release's page.
pub(super) fn notes(version: &str) -> Result<String> {
    let changelog =
        fs::read_to_string(root().join("CHANGELOG.md")).map_err(|error| format!("CHANGELOG.md: {error}"))?;
    changes(&changelog, version, false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn a_release_needs_its_own_changes() {
        let text = "# Changelog\n\n## Unreleased\n\n- new\n\n## 1.2.0 - 2026-01-01\n\n- old\n\n## 1.2\n";
        assert_eq!(changes(text, "1.2.0", true).unwrap(), "- old");
        assert_eq!(changes(text, "1.3.0", false).unwrap(), "- new");
        assert!(changes(text, "1.3.0", true).unwrap_err().contains("1.3.0"));
        // A version that another begins with, and one that tells nothing.
        assert!(changes(text, "1", true).is_err());
        assert!(changes(text, "1.2", true).is_err());
    }

    #[test]
    fn the_tag_is_the_version() {
        let version = check(None).unwrap();
        assert!(check(Some("v0.0.0-none")).unwrap_err().contains(&format!("v{version}")));
    }
}
