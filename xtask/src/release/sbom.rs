//! What a binary is made of, as CycloneDX by the OWASP project's own tool: it reads cargo's resolution for one target, so that crates of other
//! systems are not in it, and CycloneDX is what `cosign attest` and the scanners of registries take.

use std::fs;
use std::path::Path;

use serde_json::Value as Json;

use super::{commit_time, cross};
use crate::Result;
use crate::steps::{self, command, root};

/// The cargo-cyclonedx that makes it.
pub(super) const VERSION: &str = "0.5.9";

/// What must be in it, and what must not: crates of other systems.
const PRESENT: [&str; 3] = ["wasmtime", "rustls", "tokio"];
const ABSENT: [&str; 2] = ["windows-sys", "security-framework"];

/// Makes it for one target, and looks into it.
pub(super) fn make(tool: &Path, target: &str, version: &str, to: &Path) -> Result<String> {
    let name = "windlass-release";
    let manifest = cross::manifest();
    let mut make = command(&tool.display().to_string(), &["cyclonedx", "--format", "json", "--spec-version", "1.5"]);
    make.args(["--target", target, "--no-build-deps", "--override-filename", name]);
    make.arg("--manifest-path").arg(&manifest).env("SOURCE_DATE_EPOCH", commit_time()?);
    steps::output(make)?;
    // The tool puts one beside the manifest of every member.
    let mut text = None;
    for member in members()? {
        let made = root().join(&member).join(format!("{name}.json"));
        if let Ok(read) = fs::read_to_string(&made) {
            fs::remove_file(&made).map_err(|error| format!("{}: {error}", made.display()))?;
            text = if member == "host" { Some(read) } else { text };
        }
    }
    // Where the sources lay is nobody's business.
    let text = text.ok_or("cargo-cyclonedx made nothing")?.replace(&root().display().to_string(), "");
    let count = inspect(&text, version)?;
    fs::write(to, text).map_err(|error| format!("{}: {error}", to.display()))?;
    Ok(format!("SBOM: {count} crates for {target}"))
}

/// The folders of the workspace's members.
fn members() -> Result<Vec<String>> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).map_err(|error| format!("Cargo.toml: {error}"))?;
    let list = manifest.split("\nmembers = [").nth(1).and_then(|rest| rest.split(']').next());
    let list = list.ok_or("Cargo.toml has no members")?;
    Ok(list.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Says how many components there are. An error if it is not what it should be.
fn inspect(text: &str, version: &str) -> Result<usize> {
    let bom: Json = serde_json::from_str(text).map_err(|error| format!("the SBOM: {error}"))?;
    let field = |path: &str| bom.pointer(path).and_then(Json::as_str).unwrap_or_default();
    let head = (field("/bomFormat"), field("/metadata/component/name"), field("/metadata/component/version"));
    if head != ("CycloneDX", "windlass", version) {
        return Err(format!("the SBOM is of {head:?}"));
    }
    let components = bom["components"].as_array().ok_or("the SBOM has no components")?;
    let has = |name: &str| components.iter().any(|component| component["name"] == name);
    if let Some(name) = PRESENT.into_iter().find(|name| !has(name)) {
        return Err(format!("the SBOM lacks {name}"));
    }
    if let Some(name) = ABSENT.into_iter().find(|name| has(name)) {
        return Err(format!("the SBOM has {name}, which is for another system"));
    }
    if let Some(bare) = components.iter().find(|component| component["purl"].as_str().is_none()) {
        return Err(format!("the SBOM has a component without a purl: {bare}"));
    }
    Ok(components.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;
    use serde_json::json;

    #[test]
    fn the_members_are_those_of_the_workspace() {
        let members = members().unwrap();
        assert!(members.contains(&"host".to_owned()) && members.contains(&"xtask".to_owned()));
        assert!(members.iter().all(|member| root().join(member).join("Cargo.toml").exists()), "{members:?}");
    }

    #[test]
    fn an_sbom_of_something_else_is_refused() {
        let bom = |names: &[&str]| {
            let component = |name: &&str| json!({ "name": name, "purl": format!("pkg:cargo/{name}@1.0.0") });
            let components: Vec<_> = names.iter().map(component).collect();
            json!({
                "bomFormat": "CycloneDX",
                "metadata": { "component": { "name": "windlass", "version": "1.0.0" } },
                "components": components,
            })
        };
        let good = ["wasmtime", "rustls", "tokio", "other"];
        assert_eq!(inspect(&bom(&good).to_string(), "1.0.0"), Ok(4));
        assert!(inspect(&bom(&good).to_string(), "1.0.1").is_err());
        assert!(inspect(&bom(&good[1..]).to_string(), "1.0.0").unwrap_err().contains("wasmtime"));
        let foreign = [good.as_slice(), &["windows-sys"]].concat();
        assert!(inspect(&bom(&foreign).to_string(), "1.0.0").unwrap_err().contains("windows-sys"));
        let mut bare = bom(&good);
        bare["components"][3].as_object_mut().unwrap().remove("purl");
        assert!(inspect(&bare.to_string(), "1.0.0").unwrap_err().contains("purl"));
    }
}
