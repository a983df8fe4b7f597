//! The chart's own consistency, without helm: schema, versions, and the table of values. What helm and Kubernetes say is the test bed's.

use std::fs;

use windlass_tests::{Scene, root};

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

/// What the schema refuses of windlass.yaml the host refuses too, in the words that each case has behind `# host:`.
#[test]
fn the_host_refuses_what_the_charts_schema_refuses_of_it() {
    let mut count = 0;
    for entry in fs::read_dir(root().join("tests/chart/refused")).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap();
        let Some(words) = text.lines().find_map(|line| line.strip_prefix("# host: ")) else { continue };
        let scene = Scene::new();
        scene.configure(&text);
        let output = scene.windlass(&["check"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(2), "{}: {said}", entry.path().display());
        assert!(said.contains(words), "{}: `{words}` is not in: {said}", entry.path().display());
        count += 1;
    }
    assert!(count >= 8, "only {count} cases say what the host says");
}

/// The names of all keys below this schema that take a number.
fn numeric(schema: &serde_json::Value, found: &mut Vec<String>) {
    let properties = schema["properties"].as_object();
    for (name, key) in properties.into_iter().flatten() {
        let is_number = key["type"] == "number" || key["anyOf"].as_array().is_some_and(|any| !any.is_empty());
        if is_number {
            found.push(name.clone());
        }
        numeric(key, found);
    }
}

#[test]
fn every_number_of_the_configuration_is_sent_through_helm() {
    let schema = windlass_core::config::json_schema();
    let mut names = Vec::new();
    numeric(&schema["$defs"]["plugin"], &mut names);
    numeric(&schema, &mut names);
    assert!(names.len() > 20, "{names:?}");
    let sent = read("tests/chart/numbers.yaml");
    for name in names {
        assert!(sent.contains(&format!("{name}: ")), "the test bed does not send `{name}` through helm");
    }
}

#[test]
fn the_request_of_the_chart_is_the_one_that_the_host_reads() {
    let template = read("charts/windlass/templates/deployment.yaml");
    let variable = "WINDLASS_CPU_REQUEST";
    let from = template.split(variable).nth(1).unwrap().split("{{- end }}").next().unwrap();
    // A divisor of one: whole cores, rounded up by the kubelet.
    assert!(from.contains("resource: requests.cpu, divisor: \"1\""), "{from}");
    let lanes = |request: Option<&str>| {
        let scene = Scene::new();
        let config = scene.configure("plugins: {}\n").display().to_string();
        // Folders without a limit, whatever limit this machine has.
        fs::write(scene.path().join("cpu.max"), "max 100000\n").unwrap();
        fs::write(scene.path().join("membership"), "0::/\n").unwrap();
        let file = |name: &str| scene.path().join(name).display().to_string();
        let mut check = std::process::Command::new(windlass_tests::binary());
        check.args(["check", "--config", &config, "--cgroup-root", &file("")]);
        check.args(["--cgroup-membership", &file("membership")]).env_remove(variable);
        if let Some(request) = request {
            check.env(variable, request);
        }
        let output = check.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = said.lines().find_map(|line| line.trim().strip_prefix("limits.lanes")).unwrap().trim().to_owned();
        line.parse::<usize>().unwrap()
    };
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(lanes(None), cores);
    assert_eq!((lanes(Some("1")), lanes(Some("250m"))), (1, 1));
    assert_eq!((lanes(Some("2")), lanes(Some("1500m"))), (2, 2));
}

#[test]
fn what_the_chart_renders_is_taken_by_the_host() {
    let mut count = 0;
    for entry in fs::read_dir(root().join("tests/chart/snapshots")).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap();
        let block = text.split("\n  windlass.yaml: |\n").nth(1).unwrap();
        let lines = block.lines().take_while(|line| line.starts_with("    ")).map(|line| &line[4..]);
        let scene = Scene::new();
        let conf_d = scene.path().join("conf.d");
        fs::create_dir(&conf_d).unwrap();
        let yaml = lines.collect::<Vec<_>>().join("\n");
        let yaml = yaml.replace("/etc/windlass/conf.d", &conf_d.display().to_string());
        fs::write(scene.path().join("windlass.yaml"), yaml).unwrap();
        let output = scene.windlass(&["check"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("limits.lanes"), "{}: {said}{error}", entry.path().display());
        // Neither plugins nor keys are on this machine; nothing else may be wrong.
        let wrong = said
            .lines()
            .find(|line| line.contains("problem:") && !line.contains("cannot be read") && !line.contains("is missing"));
        assert_eq!(wrong, None, "{}", entry.path().display());
        count += 1;
    }
    assert!(count >= 7, "{count} snapshots");
}
