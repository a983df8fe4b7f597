//! The chart's own consistency, without helm: schema, versions, and the table of values. What helm and Kubernetes say is the test bed's.

use std::fs;

use windlass_tests::root;

#[path = "../../xtask/src/chart/schema.rs"]
mod schema;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_schema_of_the_charts_values_is_made_from_the_hosts_own() {
    let host = windlass_core::config::json_schema().to_string();
    let made = schema::render(&read("charts/windlass/values.schema.in.json"), &host).unwrap();
    let path = "charts/windlass/values.schema.json";
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join(path), &made).unwrap();
    }
    assert!(read(path) == made, "{path} is old: cargo xtask chart-schema");
}

#[test]
fn chart_image_and_host_have_one_version() {
    let workspace = read("Cargo.toml");
    let version = workspace.split("[workspace.package]\nversion = \"").nth(1).unwrap().split('"').next().unwrap();
    let places = [
        ("charts/windlass/Chart.yaml", format!("\nversion: {version}\n")),
        ("charts/windlass/Chart.yaml", format!("\nappVersion: \"{version}\"\n")),
        ("Dockerfile", format!("org.opencontainers.image.version=\"{version}\"")),
        ("docs/aks/settings.sh", format!("VERSION:-{version}}}")),
    ];
    for (path, wanted) in places {
        assert!(read(path).contains(&wanted), "{path} does not say {wanted:?}");
    }
}

/// The values by path: default and comment. Each has a comment, which the first assertion keeps.
fn values() -> Vec<(String, String, String)> {
    let (mut values, mut comment, mut path) = (Vec::new(), String::new(), Vec::<(usize, String)>::new());
    for line in read("charts/windlass/values.yaml").lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(said) = text.strip_prefix("# ") {
            comment = format!("{comment} {}", said.trim());
        } else if let Some((key, value)) = text.split_once(':') {
            path.retain(|(at, _)| *at < indent);
            path.push((indent, key.to_owned()));
            let name: Vec<_> = path.iter().map(|(_, key)| key.as_str()).collect();
            let name = name.join(".");
            if !value.is_empty() {
                assert!(!comment.is_empty(), "{name} has no comment");
                values.push((name, value.trim().to_owned(), comment.trim().to_owned()));
            }
            comment.clear();
        } else {
            comment.clear();
        }
    }
    values
}

#[test]
fn the_charts_readme_lists_its_values() {
    let mut table = String::from("| value | default | meaning |\n| --- | --- | --- |\n");
    for (name, default, comment) in values() {
        table.push_str(&format!("| `{name}` | `{default}` | {} |\n", comment.replace('|', "\\|")));
    }
    assert!(table.lines().count() > 60);
    let path = "charts/windlass/README.md";
    let readme = read(path);
    let (before, _) = readme.split_once("chart -->\n").unwrap();
    let wanted = format!("{before}chart -->\n{table}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join(path), &wanted).unwrap();
    }
    assert!(read(path) == wanted, "{path} is old: UPDATE_DOCS=1 cargo xtask test -- chart");
}

#[test]
fn every_value_has_its_place_in_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(&read("charts/windlass/values.schema.json")).unwrap();
    for (name, _, _) in values() {
        let first = name.split('.').next().unwrap();
        assert!(schema["properties"].get(first).is_some(), "{name}");
    }
}

#[test]
fn no_mount_of_the_chart_is_a_sub_path() {
    for entry in fs::read_dir(root().join("charts/windlass/templates")).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        assert!(!code.concat().contains("subPath"), "{}", entry.path().display());
    }
}
