//! Against clients and libraries of other authors: what the ORAS client pushes runs here and what is pushed here it pulls, and a
//! bundle that Sigstore's libraries make and attach is taken.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use windlass_tests::{Scene, guest, root};

use super::real::{Registry, openssl};
use super::{digest, good};

/// What `cargo xtask test` installed; none, said loudly, where it could not.
fn counterpart(what: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("WINDLASS_COUNTERPARTS")
        .map_or_else(|| root().join("target/counterparts"), PathBuf::from)
        .join(what);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("!! SKIPPED: {} is missing: `cargo xtask test` installs it", folder.display());
    None
}

fn script(name: &str) -> PathBuf {
    root().join("tests/counterparts").join(name)
}

fn oras(scene: &Scene, arguments: &[&str]) -> Option<Output> {
    let packages = counterpart("python")?;
    let mut client = Command::new("python3");
    client.arg(script("oras_client.py")).args(arguments).current_dir(scene.path()).env("PYTHONPATH", packages);
    Some(client.output().unwrap())
}

#[test]
fn the_oras_client_and_windlass_take_what_the_other_pushed() {
    let Some(registry) = Registry::start() else { return };
    let scene = Scene::new();
    let wasm = guest("heartbeat");
    fs::write(scene.path().join("job.wasm"), &wasm).unwrap();
    let theirs = format!("{}/jobs/theirs:1", registry.address);
    let Some(pushed) = oras(&scene, &["push", &theirs, "job.wasm"]) else { return };
    good(&pushed);
    let yaml = format!("plugins:\n  job: {{ source: \"oci://{theirs}\", every: 100ms }}\n");
    let host = Scene::new().run(&yaml);
    host.wait_for_run("job");
    assert_eq!(host.plugin("job")["version"]["digest"], digest(&wasm).as_str());

    let ours = format!("{}/jobs/ours:1", registry.address);
    good(&scene.windlass(&["push", "job.wasm", &format!("oci://{ours}")]));
    let said = good(&oras(&scene, &["pull", &ours, "pulled"]).unwrap());
    assert_eq!(fs::read(said.trim()).unwrap(), wasm, "{said}");
}

#[test]
fn a_bundle_that_sigstores_libraries_made_and_attached_is_taken() {
    let (Some(registry), Some(packages)) = (Registry::start(), counterpart("npm")) else { return };
    let scene = Scene::new().guest("succeeds").guest("traps");
    let folder = scene.path();
    for name in ["ours", "theirs"] {
        let (private, public) = (format!("{name}.key"), format!("{name}.pub"));
        openssl(folder, &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &private]);
        openssl(folder, &["ec", "-in", &private, "-pubout", "-out", &public]);
    }
    let push = |name: &str, reference: &str| {
        let said = good(&scene.windlass(&["push", &format!("plugins/{name}.wasm"), reference]));
        said.trim().split_once('@').unwrap().1.to_owned()
    };
    let sign = |key: &str, repository: &str, digest: &str| {
        let mut node = Command::new("node");
        node.arg(script("sigstore_sign.cjs")).args([key, &format!("{}/{repository}", registry.address), digest]);
        node.current_dir(folder).env("NODE_PATH", packages.join("node_modules"));
        let bundle: Value = serde_json::from_str(&good(&node.output().unwrap())).unwrap();
        assert!(bundle["dsseEnvelope"]["signatures"][0]["sig"].is_string(), "{bundle}");
    };
    let reference = registry.at("job:1");
    let signed = push("succeeds", &reference);
    let pulled = |key: &str| scene.windlass(&["pull", &reference, "--verify-key", key, "-o", "out.wasm"]);
    assert_eq!(pulled("ours.pub").status.code(), Some(1), "nobody signed it yet");
    sign("theirs.key", "job", &signed);
    let said = String::from_utf8_lossy(&pulled("ours.pub").stderr).into_owned();
    assert!(said.contains("by none of the keys"), "{said}");
    // A second referrer beside the first.
    sign("ours.key", "job", &signed);
    good(&pulled("ours.pub"));
    good(&pulled("theirs.pub"));
    // Other bytes under the same tag carry nobody's signature.
    push("traps", &reference);
    assert_eq!(pulled("ours.pub").status.code(), Some(1));

    push("succeeds", &reference);
    let keys = fs::read_to_string(folder.join("ours.pub")).unwrap();
    let other = Scene::new();
    fs::write(other.path().join("ours.pub"), keys).unwrap();
    let yaml =
        format!("verify: {{ keys: [ours.pub] }}\nplugins:\n  job: {{ source: \"{reference}\", every: 100ms }}\n");
    let host = other.run(&yaml);
    host.wait_for_run("job");
    assert_eq!(host.plugin("job")["version"]["digest"], digest(&guest("succeeds")).as_str());
}
