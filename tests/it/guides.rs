//! The guides read as a stranger reads them: every step has been run by something that is named, or says what it needs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use windlass_tests::{Scene, root};

use crate::docs::block;

const AKS: &str = "docs/aks.md";
const FROM_DOTNET: &str = "docs/from-dotnet-worker.md";

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Rust below a folder, in one text.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let texts = entries.map(|path| {
        if path.is_dir() {
            sources(&path)
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            fs::read_to_string(&path).unwrap()
        } else {
            String::new()
        }
    });
    texts.collect()
}

/// The fenced blocks of a page: what their marks say, if they have one, and their lines.
fn blocks(text: &str) -> Vec<(Option<String>, Vec<String>)> {
    let (mut found, mut mark, mut open) = (Vec::new(), None, None::<Vec<String>>);
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(_)) => open = Some(Vec::new()),
            (None, None) if line.trim().is_empty() => {}
            (None, None) => {
                mark = line.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->")).map(str::to_owned);
            }
            (Some(_), Some(_)) => found.push((mark.take(), open.take().unwrap())),
            (Some(lines), None) => lines.push(line.to_owned()),
        }
    }
    assert!(open.is_none(), "a block is never closed");
    found
}

#[test]
fn every_block_of_the_guides_is_run_or_says_what_it_needs() {
    let tested = sources(&root().join("tests/it")) + &sources(&root().join("xtask/src"));
    let mut count = 0;
    for page in [AKS, FROM_DOTNET, "docs/swapping.md", "charts/windlass/README.md"] {
        for (mark, lines) in blocks(&read(page)) {
            count += 1;
            match mark {
                Some(name) => {
                    assert!(tested.contains(&format!("\"{name}\"")), "{page}: nothing runs the block `{name}`");
                }
                None => {
                    for line in lines.iter().filter(|line| !line.trim().is_empty()) {
                        assert!(
                            line.contains("# needs "),
                            "{page}: nothing runs `{line}`, and it does not say what it needs"
                        );
                    }
                }
            }
        }
    }
    assert!(count >= 10, "only {count} blocks were found");
}

#[test]
fn every_step_of_the_road_names_who_ran_it() {
    let guide = read(FROM_DOTNET);
    let tests = sources(&root().join("tests/it"));
    let bed = fs::read_to_string(root().join("xtask/src/testbed/mod.rs")).unwrap();
    let table = guide.split("| run by |\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut rows = 0;
    for row in table.lines().skip(1) {
        let by = row.trim_end_matches(" |").rsplit("| ").next().unwrap();
        for part in by.split("; ") {
            // What comes behind a comma only explains.
            let part = part.split(", to ").next().unwrap();
            let is_known = match part.split_once(": ") {
                Some(("test", name)) => tests.contains(&format!("fn {}()", name.trim_matches('`'))),
                Some(("test bed", step)) => {
                    let step = step.strip_suffix(" that it makes").unwrap_or(step);
                    bed.contains(&format!("step(\"{step}"))
                }
                _ => ["needs Azure", "needs a cluster"].contains(&part),
            };
            assert!(is_known, "`{part}` runs nothing: {row}");
        }
        rows += 1;
    }
    assert!(rows >= 15, "{rows} rows");
}

/// A program that writes down how it was called, and answers what a script waits for.
fn stand_in(folder: &Path, name: &str) {
    let answer = match name {
        "kubectl" => "deployment-name",
        _ => "answer",
    };
    let script = format!(
        "#!/bin/sh\nprintf '%s' {name} >> calls\nprintf ' %s' \"$@\" >> calls\necho >> calls\n[ -t 0 ] || cat > /dev/null\necho {answer}\n"
    );
    let script = script.replace(">> calls", &format!(">> {}/calls", folder.display()));
    let file = folder.join(name);
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_scripts_for_azure_run_to_their_ends_with_stand_ins() {
    let guide = read(AKS);
    let cases: [(&str, &[&str], &[&str]); 8] = [
        ("cluster.sh", &[], &["az aks create --name windlass", "--attach-acr mine", "--enable-workload-identity"]),
        (
            "image.sh",
            &[],
            &[
                "docker build --platform linux/amd64 --tag mine.azurecr.io/windlass:",
                "docker push mine.azurecr.io/windlass:",
                "helm push",
            ],
        ),
        (
            "image.sh",
            &["--remote"],
            &["az acr build --registry mine --image windlass:", "oci://mine.azurecr.io/charts"],
        ),
        (
            "install.sh",
            &["a.yaml", "b.yaml"],
            &["--values a.yaml --values b.yaml --namespace jobs --create-namespace --dry-run=server", "--wait"],
        ),
        ("look.sh", &[], &["describe pods", "exec deploy/deployment-name -- windlass health"]),
        ("identity.sh", &[], &["--subject system:serviceaccount:jobs:windlass", "--role AcrPull"]),
        ("monitoring.sh", &[], &["--enable-azure-monitor-metrics"]),
        (
            "plugins-share.sh",
            &["a.wasm"],
            &["az storage file upload --share-name plugins --source a.wasm", "secret generic plugins-share"],
        ),
    ];
    for (script, arguments, wanted) in cases {
        assert!(guide.contains(&format!("aks/{script}")), "{AKS} does not name {script}");
        let text = read(&format!("docs/aks/{script}"));
        let says = text.lines().nth(1).unwrap();
        assert!(says.contains("Needs Azure") || says.contains("Needs a cluster"), "{script}: {says}");
        let scene = Scene::new();
        ["az", "docker", "helm", "kubectl"].iter().for_each(|name| stand_in(scene.path(), name));
        let path = format!("{}:{}", scene.path().display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .arg(root().join("docs/aks").join(script))
            .args(arguments)
            .env("PATH", path)
            .env("REGISTRY", "mine")
            .env("ACCOUNT", "account")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {said}");
        let calls = fs::read_to_string(scene.path().join("calls")).unwrap();
        for part in wanted {
            assert!(calls.contains(part), "{script} never calls `{part}`:\n{calls}");
        }
    }
    // All of them are among the cases, but for the names that they share.
    let there = fs::read_dir(root().join("docs/aks")).unwrap().flatten();
    let there =
        there.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name != "settings.sh");
    there.for_each(|name| assert!(cases.iter().any(|(script, ..)| *script == name), "{name} is never run"));
}

#[test]
fn the_pipeline_that_builds_is_the_readmes_own() {
    let readme = block("README.md", "a job of your own");
    for line in block(AKS, "a pipeline, built").lines() {
        assert!(readme.lines().any(|known| known == line), "README.md, whose block is run, has no `{line}`");
    }
}

#[test]
fn the_values_of_the_guide_are_taken_by_the_host() {
    let scene = Scene::new().guest("heartbeat");
    let values = block(AKS, "the least values");
    let (plugins, rest) = values.split_once("pluginsVolume").unwrap();
    assert!(rest.lines().count() == 1, "more than plugins and their volume: {values}");
    scene.configure(plugins);
    let output = scene.windlass(&["check"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_query_of_the_log_asks_for_fields_that_are_there() {
    let query = block(AKS, "a query of the log");
    let mut host =
        Scene::new().guest("traps").run("plugins:\n  p: { source: file:traps.wasm, once: true, backoffLimit: 0 }\n");
    let line = host.wait_for_line(|line| line["message"] == "run ended");
    let fields: Vec<&str> = query
        .split("LogMessage.")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap())
        .collect();
    assert!(fields.len() >= 4, "{query}");
    for field in fields {
        assert!(!line[field].is_null(), "the log has no `{field}`: {line}");
    }
}
