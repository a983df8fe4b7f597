//! The documentation: what it shows is run, what it lists is compared with the code.

use std::fs;
use std::process::Command;

use windlass_tests::{Scene, binary, guest, root};

/// The fenced block behind `<!-- test: NAME -->`.
pub fn block(file: &str, name: &str) -> String {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let mark = format!("<!-- test: {name} -->");
    let rest = text.split(&mark).nth(1).unwrap_or_else(|| panic!("{file} has no {mark}"));
    let fenced = rest.split("```").nth(1).unwrap();
    fenced.split_once('\n').unwrap().1.to_owned()
}

/// Runs a block of shell in a folder, with the binary under test first in the path.
pub fn shell(scene: &Scene, script: &str, target: &str) -> String {
    let bin = binary();
    let path = format!("{}:{}", bin.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(scene.path())
        .env("PATH", path)
        .env("WINDLASS_SDK", root().join("guest-sdk"))
        .env("CARGO_TARGET_DIR", target)
        .env("WINDLASS_REPO", root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{said}");
    said
}

#[test]
fn the_thirty_second_way_works() {
    let scene = Scene::new();
    fs::write(scene.path().join("any.wasm"), guest("plain-wasi")).unwrap();
    let said = shell(&scene, &block("README.md", "thirty seconds"), "target");
    assert!(said.contains("hello from a plain WASI program") && said.contains("Succeeded"), "{said}");
}

#[test]
fn from_an_empty_folder_to_a_running_job() {
    let scene = Scene::new();
    // The lines as they stand, but for which SDK, which port, and the ctrl-c of a reader.
    let script = block("README.md", "a job of your own")
        .replace("windlass new --lang rust hello", "windlass new --lang rust hello --sdk-path \"$WINDLASS_SDK\"")
        .replace("cd hello", "cd hello; sed -i s/127.0.0.1:8080/127.0.0.1:0/ windlass.yaml")
        .replace("windlass run", "timeout --signal=TERM 5 windlass run || [ $? = 124 ]");
    let said = shell(&scene, &script, "target");
    assert!(said.contains("hello, world; this is run 1"), "{said}");
    assert!(said.contains("test result: ok. 1 passed"), "{said}");
}

#[test]
fn the_reference_of_the_configuration_is_the_codes_own() {
    let path = root().join("docs/config.md");
    let rendered = windlass_core_reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &rendered).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == rendered,
        "docs/config.md is old: UPDATE_DOCS=1 cargo xtask test -- reference"
    );
}

#[test]
fn the_guide_to_health_names_all_that_health_can_say() {
    use windlass_core::health::{Rung, State, Status};
    use windlass_core::outcome::{Outcome, SkipReason};
    use windlass_core::verdict::{HostCall, Verdict};
    let guide = fs::read_to_string(root().join("docs/health.md")).unwrap();
    let mut words: Vec<String> = Vec::new();
    words.extend(State::ALL.map(|state| format!("| `{state:?}` |")));
    words.extend(Rung::ALL.map(|rung| format!("| `{rung:?}` |")));
    words.extend(Verdict::NAMES.map(|verdict| format!("| `{verdict}` |")));
    words.extend(SkipReason::ALL.map(|reason| format!("| `{}` |", reason.name())));
    words.extend([Status::Healthy, Status::Degraded, Status::Unhealthy].map(|status| format!("`{status:?}`")));
    // `Cancelled` never comes without its reason.
    words.extend(Outcome::NAMES.into_iter().filter(|name| *name != "Cancelled").map(|name| format!("`{name}`")));
    words.extend(Outcome::DETAILED.map(|label| format!("`{label}`")));
    let told = HostCall::ALL.into_iter().filter(|call| !call.name().contains("streams"));
    words.extend(told.map(|call| format!("`Waiting({})`", call.name())));
    for word in words {
        assert!(guide.contains(&word), "docs/health.md does not tell of {word}");
    }
}

fn windlass_core_reference() -> String {
    windlass_core::config::reference_page()
}

#[test]
fn the_example_configuration_is_taken() {
    let text = fs::read_to_string(root().join("windlass.example.yaml")).unwrap();
    let config = windlass_core::config::Config::from_yaml(&text).unwrap();
    for (name, entry) in &config.plugins {
        let entry = entry.as_ref().unwrap_or_else(|why| panic!("{name}: {why}"));
        windlass_core::config::resolve(name, None, &config.defaults, entry)
            .unwrap_or_else(|why| panic!("{name}: {why}"));
    }
    assert!(config.plugins.len() >= 3 && config.misnamed.is_empty());
}

#[test]
fn the_readme_and_help_name_the_same_commands() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let help = String::from_utf8(Command::new(binary()).arg("--help").output().unwrap().stdout).unwrap();
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    for line in commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let name = line.split_whitespace().next().unwrap();
        assert!(
            name == "help" || readme.contains(&format!("| `windlass {name}")),
            "README.md does not list `windlass {name}`"
        );
    }
}

#[test]
fn a_walk_through_swapping_works_as_it_stands() {
    let scene = Scene::new();
    let variant = |number| windlass_tests::marked(guest("succeeds"), number);
    for (name, bytes) in [("v1", variant(1)), ("v2", variant(2)), ("broken", guest("traps"))] {
        fs::write(scene.path().join(format!("{name}.wasm")), bytes).unwrap();
    }
    // Ports of its own: other tests run beside it.
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let script = block("docs/swapping.md", "swapping").replace("18080", &port()).replace("18081", &port());
    let said = shell(&scene, &script, "target");
    assert!(said.contains("rolled back to version 2") && said.contains("Trapped"), "{said}");
}

#[test]
fn a_choice_by_hand_and_what_helm_does_go_together_as_the_guide_says() {
    let scene = Scene::new();
    for (name, number) in [("v1", 1), ("v2", 2)] {
        let bytes = windlass_tests::marked(guest("succeeds"), number);
        fs::write(scene.path().join(format!("{name}.wasm")), bytes).unwrap();
    }
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let script = block("docs/swapping.md", "chosen").replace("18080", &port()).replace("18081", &port());
    let said = shell(&scene, &script, "target");
    assert!(said.contains("version 1 took over from version 2") && said.contains("by hand"), "{said}");
    assert!(said.contains("tried again"), "{said}");
}

#[test]
fn the_examples_for_authors_compile() {
    let text = fs::read_to_string(root().join("docs/writing-plugins.md")).unwrap();
    let scene = Scene::new();
    let made = Command::new(binary())
        .args(["new", "--lang", "rust", "example", "--sdk-path"])
        .arg(root().join("guest-sdk"))
        .current_dir(scene.path())
        .output()
        .unwrap();
    assert!(made.status.success());
    let manifest = scene.path().join("example/Cargo.toml");
    let with_anyhow =
        fs::read_to_string(&manifest).unwrap().replace("[dependencies]", "[dependencies]\nanyhow = \"1\"");
    fs::write(&manifest, with_anyhow).unwrap();
    let examples: Vec<_> = text.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        fs::write(scene.path().join("example/src/lib.rs"), example).unwrap();
        let built = Command::new("cargo")
            .args(["build", "--target", "wasm32-wasip2"])
            .current_dir(scene.path().join("example"))
            .env("CARGO_TARGET_DIR", scene.path().join("target"))
            .output()
            .unwrap();
        assert!(built.status.success(), "{example}\n{}", String::from_utf8_lossy(&built.stderr));
    }
}
