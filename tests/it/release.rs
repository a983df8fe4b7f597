//! What is released and how: the workflow against `cargo xtask release`, the commands that workflows and guides name against those that
//! there are, and the Dockerfile against what it is let see.

use std::fs;
use std::path::Path;

use windlass_tests::root;

#[path = "../../xtask/src/release/plan.rs"]
mod plan;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const RELEASE: &str = ".github/workflows/release.yml";

/// The words behind each occurrence of `cargo xtask`.
fn xtasks(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.split("cargo xtask ").skip(1).map(|rest| {
        let end = rest.find(['\n', '`', '#', ';', ')']).unwrap_or(rest.len());
        rest[..end].split_whitespace().map(|word| word.trim_end_matches([',', '.', ':', '"'])).collect()
    })
}

#[test]
fn every_command_of_xtask_that_is_named_somewhere_exists() {
    let main = read("xtask/src/main.rs");
    let mut count = 0;
    let pages = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", ".ci/run", "docs/aks.md"];
    let others = ["docs/from-dotnet-worker.md", "docs/benchmarks.md", RELEASE, ".github/workflows/ci.yml"];
    for page in pages.iter().chain(&others) {
        let text = read(page);
        for words in xtasks(&text) {
            let Some(name) = words.first().filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
            else {
                continue;
            };
            assert!(main.contains(&format!("Some(\"{name}\")")), "{page}: there is no `cargo xtask {name}`");
            count += 1;
            if *name == "release" && *page == RELEASE {
                let stage = words.get(1).unwrap();
                let is_known = *stage == "--dry-run" || plan::STAGES.iter().any(|(known, _)| known == stage);
                assert!(is_known, "{page}: there is no stage `{stage}`");
            }
        }
    }
    assert!(count > 15, "only {count} commands were found");
}

#[test]
fn the_workflow_goes_through_all_stages_in_order() {
    let workflow = read(RELEASE);
    let stages: Vec<_> = xtasks(&workflow).filter(|words| words[0] == "release" && words[1] != "--dry-run").collect();
    let names: Vec<_> = stages.iter().map(|words| words[1]).collect();
    assert_eq!(names, plan::STAGES.map(|(name, _)| name));
    // A tag that is not the version stops each of them.
    for words in &stages {
        assert!(words.contains(&"--tag"), "{words:?}");
    }
    let tested = workflow.find("cargo xtask test").unwrap();
    assert!(tested < workflow.find("cargo xtask release archive").unwrap(), "what is packed has not been tested");
    for (target, architecture) in plan::TARGETS {
        assert!(workflow.contains(&format!("target: {target}, arch: {architecture}")), "{target} is not released");
    }
}

#[test]
fn what_the_workflow_uploads_is_what_the_list_says() {
    let workflow = read(RELEASE);
    let commands: Vec<&str> = workflow
        .lines()
        .map(|line| line.trim().trim_start_matches("- run: "))
        .filter(|line| {
            ["docker ", "cosign ", "helm ", "gh ", "curl ", "cargo publish"].iter().any(|tool| line.starts_with(tool))
        })
        .collect();
    assert_eq!(commands.len(), plan::UPLOADS.len(), "{commands:?}");
    for (command, upload) in commands.iter().zip(&plan::UPLOADS) {
        assert!(command.starts_with(upload.by), "{}: `{command}` is not `{}`", upload.what, upload.by);
    }
    for upload in &plan::UPLOADS {
        let Some((place, _)) = upload.to.strip_prefix("oci://").unwrap_or(upload.to).rsplit_once(":VERSION") else {
            continue;
        };
        let place = place.strip_suffix("/windlass").filter(|place| place.ends_with("charts")).unwrap_or(place);
        assert!(workflow.contains(&format!(": {place}\n")), "{place} is not in the workflow");
    }
    let values = read("charts/windlass/values.yaml");
    assert!(
        values.contains("repository: ghcr.io/windlass-run/windlass\n"),
        "the chart's image is not the released one"
    );
}

#[test]
fn workflows_have_few_rights_and_actions_that_do_not_move() {
    for entry in fs::read_dir(root().join(".github/workflows")).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap();
        let name = entry.path();
        assert!(
            text.contains("\npermissions: {}\n") || text.contains("\npermissions:\n  contents: read\n"),
            "{name:?}"
        );
        assert!(!text.contains("write-all") && !text.contains("pull_request_target"), "{name:?}");
        for used in text.lines().filter_map(|line| line.trim().strip_prefix("- uses: ")) {
            let (_, reference) = used.split_once('@').unwrap();
            let (commit, version) = reference.split_once(" # v").unwrap_or_else(|| panic!("{used}: no version"));
            assert!(commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{used}: no commit");
            assert!(version.split('.').count() == 3, "{used}");
        }
        // What a tag or a branch is called is data: it comes into a script by the environment.
        for line in text.lines().filter(|line| line.contains("cargo ") || line.contains("cosign ")) {
            assert!(!line.contains("${{"), "{name:?}: {line}");
        }
    }
    assert_eq!(read(RELEASE).matches("id-token: write").count(), 1);
}

/// What the Dockerfile's first stage copies out of the folder it is built in.
fn copied(dockerfile: &str) -> Vec<String> {
    let lines = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    let own = lines.filter(|line| !line.starts_with("--from"));
    own.flat_map(|line| {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        words[..words.len() - 1].to_vec()
    })
    .collect()
}

/// Whether .dockerignore lets a path through: the last line that fits decides.
fn is_let_through(rules: &str, path: &str) -> bool {
    let mut is_in = true;
    for rule in rules.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (lets, pattern) = rule.strip_prefix('!').map_or((false, rule), |pattern| (true, pattern));
        let fits = match pattern.strip_prefix("**/") {
            Some(name) => path.split('/').any(|part| part == name),
            None => pattern == "*" || path == pattern || path.starts_with(&format!("{pattern}/")),
        };
        if fits {
            is_in = lets;
        }
    }
    is_in
}

#[test]
fn the_dockerfile_is_let_see_what_it_copies_and_what_cargo_needs() {
    let (dockerfile, rules) = (read("Dockerfile"), read(".dockerignore"));
    let mut needed = copied(&dockerfile);
    assert!(needed.len() >= 5 && needed.contains(&"host/core/Cargo.toml".to_owned()), "{needed:?}");
    needed.retain(|path| path != ".");
    // `cargo build` reads the manifest and the sources of every member, whatever it builds.
    let workspace = read("Cargo.toml");
    let members = workspace.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    for member in members.split(',').map(|member| member.trim().trim_matches('"')).filter(|member| !member.is_empty()) {
        needed.push(format!("{member}/Cargo.toml"));
        needed.push(format!("{member}/src"));
    }
    for path in &needed {
        assert!(root().join(path).exists(), "the Dockerfile needs {path}, which does not exist");
        assert!(is_let_through(&rules, path), ".dockerignore keeps {path} back");
    }
    for path in ["target/release/windlass", ".git/config", "docs/aks.md", "tests/fixtures/rust/target/a", "host/target"]
    {
        assert!(!is_let_through(&rules, path), ".dockerignore lets {path} through");
    }
    // The layer of dependencies is apart from the code: it sees manifests alone.
    let first_build = dockerfile.find("cargo build").unwrap();
    let code = dockerfile.find("COPY . .").unwrap();
    assert!(first_build < code, "dependencies are not built apart from the code");
}

#[test]
fn the_dockerfiles_base_is_pinned_and_its_toolchain_is_the_projects() {
    let dockerfile = read("Dockerfile");
    let field = |name: &str| {
        let line = dockerfile.lines().find_map(|line| line.strip_prefix(&format!("ARG {name}=")));
        line.unwrap_or_else(|| panic!("the Dockerfile has no {name}")).to_owned()
    };
    let (rust, base) = (field("RUST_VERSION"), field("BASE"));
    let (tag, digest) = base.split_once("@sha256:").expect("the base is not pinned by digest");
    assert!(tag.contains(&format!(":{rust}-")) && digest.len() == 64, "{base}");
    let least = read("Cargo.toml").split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert!(rust.starts_with(&format!("{least}.")), "Rust {rust} in the Dockerfile, {least} in Cargo.toml");
    assert!(Path::new(&root()).join("rust-toolchain.toml").exists());
}

#[test]
fn the_dockerfile_can_be_built_without_buildkit() {
    // `az acr build` has none, and refuses `FROM --platform` when it looks for bases.
    let dockerfile = read("Dockerfile");
    for line in dockerfile.lines().filter(|line| !line.starts_with('#')) {
        for word in ["FROM --", "RUN --", "COPY --link", "COPY --chmod", "<<", "TARGETARCH", "BUILDPLATFORM"] {
            assert!(!line.contains(word), "{line}");
        }
    }
    assert!(!dockerfile.starts_with("# syntax="));
}
