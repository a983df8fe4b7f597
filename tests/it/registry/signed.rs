//! Signatures made by OpenSSL in the forms that cosign writes: good ones run, everything else is refused and the old version goes on.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use windlass_tests::{Host, Scene, guest};

use super::real::{Registry, openssl};
use super::{base64, digest, good};
use crate::docs::{block, shell};

/// Makes `NAME.key` and `NAME.pub`, as `cosign generate-key-pair` does but for the password.
pub fn key(folder: &Path, name: &str) {
    let (private, public) = (format!("{name}.key"), format!("{name}.pub"));
    openssl(folder, &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &private]);
    openssl(folder, &["ec", "-in", &private, "-pubout", "-out", &public]);
}

/// Base64 of the signature over these bytes, which is what `cosign sign-blob --key` prints.
pub(super) fn sign(folder: &Path, name: &str, bytes: &[u8]) -> String {
    fs::write(folder.join("to-be-signed"), bytes).unwrap();
    base64(&openssl(folder, &["dgst", "-sha256", "-sign", &format!("{name}.key"), "to-be-signed"]))
}

/// Signs a manifest as cosign 2 does: under the tag of its digest.
pub(super) fn cosign_2(registry: &Registry, repository: &str, folder: &Path, name: &str, manifest: &str) {
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": format!("{}/{repository}", registry.address) },
            "image": { "docker-manifest-digest": manifest },
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string();
    let signature = sign(folder, name, payload.as_bytes());
    let mut layer = registry.blob(repository, payload.as_bytes());
    layer["mediaType"] = json!("application/vnd.dev.cosign.simplesigning.v1+json");
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature });
    let mut config = registry.blob(repository, b"{}");
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    registry.manifest(repository, &format!("{}.sig", manifest.replace(':', "-")), &oci_manifest(config, layer));
}

/// The media type of what cosign 3 makes.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The bundle in which cosign 3 signs a manifest.
pub fn bundle(folder: &Path, name: &str, manifest: &str) -> Value {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha256": manifest.strip_prefix("sha256:").unwrap() } }],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    })
    .to_string();
    let kind = "application/vnd.in-toto+json";
    let encoded = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": { "publicKey": { "hint": "" } },
        "dsseEnvelope": {
            "payload": base64(statement.as_bytes()),
            "payloadType": kind,
            "signatures": [{ "sig": sign(folder, name, encoded.as_bytes()) }],
        },
    })
}

/// Signs a manifest as cosign 3 does: a bundle that refers to it; this registry has no referrers API, so under the tag instead.
fn cosign_3(registry: &Registry, repository: &str, folder: &Path, name: &str, manifest: &str) {
    let bundle = bundle(folder, name, manifest);
    let mut layer = registry.blob(repository, bundle.to_string().as_bytes());
    layer["mediaType"] = json!(BUNDLE);
    let mut config = registry.blob(repository, b"{}");
    config["mediaType"] = json!("application/vnd.oci.empty.v1+json");
    let mut referrer = oci_manifest(config, layer);
    referrer["artifactType"] = json!(BUNDLE);
    let bytes = referrer.to_string();
    let referrer = registry.manifest(repository, "bundle", &referrer);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": BUNDLE,
            "digest": referrer,
            "size": bytes.len(),
        }],
    });
    registry.manifest(repository, &manifest.replace(':', "-"), &index);
}

fn oci_manifest(config: Value, layer: Value) -> Value {
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer] })
}

/// Pushes a guest, and returns its manifest's digest.
fn push(scene: &Scene, name: &str, reference: &str) -> String {
    fs::write(scene.path().join("push.wasm"), guest(name)).unwrap();
    let said = good(&scene.windlass(&["push", "push.wasm", reference]));
    said.trim().split_once('@').unwrap().1.to_owned()
}

fn description(host: &Host, name: &str) -> String {
    let plugin = host.wait_for(name, |plugin| plugin["state"] == "Refused");
    plugin["description"].as_str().unwrap().to_owned()
}

#[test]
fn an_artifact_runs_if_it_is_signed_by_one_of_the_keys() {
    let Some(registry) = Registry::start() else { return };
    let scene = Scene::new();
    let folder = scene.path();
    key(folder, "ours");
    key(folder, "theirs");
    let at = |name: &str| registry.at(&format!("{name}:1"));
    let two = push(&scene, "succeeds", &at("two"));
    cosign_2(&registry, "two", folder, "ours", &two);
    let three = push(&scene, "succeeds", &at("three"));
    cosign_3(&registry, "three", folder, "ours", &three);
    push(&scene, "succeeds", &at("unsigned"));
    let other = push(&scene, "succeeds", &at("other-key"));
    cosign_2(&registry, "other-key", folder, "theirs", &other);
    // A good signature of ours, but of another artifact, put where this one's is looked for.
    let moved = push(&scene, "traps", &at("other-bytes"));
    let payload = json!({ "critical": { "image": { "docker-manifest-digest": two } } }).to_string();
    let signature = sign(folder, "ours", payload.as_bytes());
    let mut layer = registry.blob("other-bytes", payload.as_bytes());
    layer["mediaType"] = json!("application/vnd.dev.cosign.simplesigning.v1+json");
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature });
    let mut config = registry.blob("other-bytes", b"{}");
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    registry.manifest("other-bytes", &format!("{}.sig", moved.replace(':', "-")), &oci_manifest(config, layer));

    let entry = |name: &str| format!("  {name}: {{ source: \"{}\", every: 100ms }}\n", at(name));
    let mut yaml = "verify: { keys: [ours.pub] }\nplugins:\n".to_owned();
    ["two", "three", "unsigned", "other-key", "other-bytes"].iter().for_each(|name| yaml += &entry(name));
    // A plugin's own keys take the place of the host's.
    yaml += &format!("  own: {{ source: \"{}\", every: 100ms, verify: {{ keys: [theirs.pub] }} }}\n", at("other-key"));
    let pulled = |reference: &str, key: &str| scene.windlass(&["pull", reference, "--verify-key", key, "-o", "x.wasm"]);
    good(&pulled(&at("two"), "ours.pub"));
    good(&pulled(&at("three"), "ours.pub"));
    assert_eq!(pulled(&at("two"), "theirs.pub").status.code(), Some(1));
    let host = scene.run(&yaml);
    for name in ["two", "three", "own"] {
        host.wait_for_run(name);
    }
    assert!(description(&host, "unsigned").contains("has none"), "{}", description(&host, "unsigned"));
    assert!(description(&host, "other-key").contains("by none of the keys in verify.keys"));
    let said = description(&host, "other-bytes");
    assert!(said.contains(&two) && said.contains(&moved), "{said}");
    assert!(host.plugin("unsigned")["version"].is_null() && host.plugin("unsigned")["lastRuns"][0].is_null());
}

#[test]
fn a_pipeline_as_the_guide_has_it_makes_what_a_host_takes() {
    let Some(registry) = Registry::start() else { return };
    let scene = Scene::new();
    fs::write(scene.path().join("hello.wasm"), guest("heartbeat")).unwrap();
    key(scene.path(), "cosign");
    let here = |text: &str| text.replace("$REGISTRY.azurecr.io", &registry.address).replace("$BUILD", "7");
    let script = here(&block("docs/aks.md", "a pipeline, pushed"));
    let [push, sign, pull] = script.lines().collect::<Vec<_>>()[..] else { panic!("{script}") };
    // cosign itself is not here: what it is asked for is written down, and what it would leave is left in its place.
    assert!(sign.starts_with("cosign sign --yes --key cosign.key \"${reference#oci://}\""), "{sign}");
    let said = shell(&scene, &format!("{push}\necho \"signing ${{reference#oci://}}\""), "target");
    let signing = said.lines().find_map(|line| line.strip_prefix("signing ")).unwrap();
    let (repository, manifest) =
        signing.strip_prefix(&format!("{}/", registry.address)).unwrap().split_once('@').unwrap();
    let pull = pull.replace("$reference", &format!("oci://{signing}"));
    let refused = std::panic::catch_unwind(|| shell(&scene, &pull, "target"));
    assert!(refused.is_err(), "it is taken before it is signed");
    cosign_2(&registry, repository, scene.path(), "cosign", manifest);
    shell(&scene, &pull, "target");
    assert_eq!(fs::read(scene.path().join("checked.wasm")).unwrap(), guest("heartbeat"));
    // And the host runs it, configured as the guide has it.
    let yaml = block("docs/aks.md", "what a pipeline made")
        .replace("myregistry.azurecr.io", &registry.address)
        .replace("/etc/windlass-keys/cosign.pub", &scene.path().join("cosign.pub").display().to_string());
    let host = scene.run(&yaml);
    assert_eq!(host.wait_for_run("hello")["outcome"], "Succeeded");
}

#[test]
fn a_tag_that_moves_to_what_nobody_signed_changes_nothing() {
    let Some(registry) = Registry::start() else { return };
    let scene = Scene::new();
    key(scene.path(), "ours");
    key(scene.path(), "theirs");
    let reference = registry.at("job:1");
    let signed = push(&scene, "succeeds", &reference);
    cosign_2(&registry, "job", scene.path(), "ours", &signed);
    let keys = ["ours.pub", "theirs.pub"].map(|name| fs::read_to_string(scene.path().join(name)).unwrap());
    let inline = |pem: &str| pem.lines().map(|line| format!("      {line}\n")).collect::<String>();
    let data = tempfile::tempdir().unwrap();
    let yaml = |key: &str| {
        let data = data.path().display();
        let keys = inline(key);
        format!(
            "dataDir: {data}\nverify:\n  keys:\n    - |\n{keys}plugins:\n  job: {{ source: \"{reference}\", every: 100ms }}\n"
        )
    };
    let mut host = Scene::new().run(&yaml(&keys[0]));
    host.wait_for_run("job");
    assert_eq!(host.stop(), 0);

    push(&scene, "traps", &reference);
    let mut host = Scene::new().run(&yaml(&keys[0]));
    host.wait_for_run("job");
    let plugin = host.plugin("job");
    assert_eq!(plugin["version"]["digest"], digest(&guest("succeeds")).as_str(), "{plugin:#}");
    let entry = host.json("/health")["entries"]["windlass"].clone();
    assert!(entry["description"].as_str().unwrap().contains("has none"), "{entry}");
    assert_eq!(host.stop(), 0);

    // What was kept is checked against today's keys.
    let host = Scene::new().run(&yaml(&keys[1]));
    assert!(description(&host, "job").contains("has none"));
}

#[test]
fn a_file_runs_if_its_signature_is_beside_it() {
    let wasm = guest("succeeds");
    let scene = Scene::new();
    let folder = scene.path().to_owned();
    key(&folder, "ours");
    key(&folder, "theirs");
    let plugins = scene.plugins();
    let put = |name: &str, signature: Option<String>| {
        fs::write(plugins.join(format!("{name}.wasm")), &wasm).unwrap();
        if let Some(text) = signature {
            fs::write(plugins.join(format!("{name}.wasm.sig")), text).unwrap();
        }
    };
    put("signed", Some(sign(&folder, "ours", &wasm)));
    put("missing", None);
    put("other-key", Some(sign(&folder, "theirs", &wasm)));
    put("other-bytes", Some(sign(&folder, "ours", b"other bytes")));
    put("malformed", Some("-----BEGIN".to_owned()));
    let names = ["signed", "missing", "other-key", "other-bytes", "malformed"];
    let entries: String =
        names.iter().map(|name| format!("  {name}: {{ source: file:{name}.wasm, every: 100ms }}\n")).collect();
    let host = scene.run(&format!("verify: {{ keys: [ours.pub] }}\nplugins:\n{entries}"));
    host.wait_for_run("signed");
    for (name, said) in [
        ("missing", "missing.wasm.sig is missing"),
        ("other-key", "by none of the keys"),
        ("other-bytes", "over other bytes"),
        ("malformed", "not base64"),
    ] {
        let text = description(&host, name);
        assert!(text.contains(said) && text.contains("sign"), "{text}");
    }
    // One that comes later is seen.
    fs::write(plugins.join("missing.wasm.sig"), sign(&folder, "ours", &wasm)).unwrap();
    host.wait_for_run("missing");
}

#[test]
fn a_tag_that_moves_while_the_host_runs_is_swapped_in_once_it_is_signed() {
    let Some(registry) = Registry::start() else { return };
    let scene = Scene::new();
    key(scene.path(), "ours");
    let reference = registry.at("job:1");
    let old = push(&scene, "succeeds", &reference);
    cosign_2(&registry, "job", scene.path(), "ours", &old);
    let pem = fs::read(scene.path().join("ours.pub")).unwrap();
    let yaml = format!(
        "verify: {{ keys: [ours.pub] }}\nplugins:\n  job: {{ source: \"{reference}\", refreshSeconds: 1, every: 50ms }}\n"
    );
    let other = Scene::new();
    fs::write(other.path().join("ours.pub"), pem).unwrap();
    let host = other.run(&yaml);
    host.wait_for_run("job");
    let new = push(&scene, "heartbeat", &reference);
    let plugin = host.wait_for("job", |plugin| plugin["status"] == "Degraded");
    let said = plugin["description"].as_str().unwrap();
    assert!(said.contains("version 1 goes on") && said.contains("has none"), "{said}");
    cosign_2(&registry, "job", scene.path(), "ours", &new);
    let plugin = host.wait_for("job", |plugin| plugin["version"]["number"] == 2);
    assert_eq!(plugin["version"]["digest"], digest(&guest("heartbeat")).as_str(), "{plugin:#}");
}

#[test]
fn a_key_that_is_none_is_said_before_a_port_is_opened() {
    let scene = Scene::new().guest("succeeds");
    scene.configure("verify: { keys: [none.pub] }\nplugins: {}\n");
    let output = scene.windlass(&["run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("none.pub: is missing"), "{text}");
    assert!(!text.contains("health port listening"), "{text}");
    // A plugin's own stops that plugin alone, and `check` says so.
    let yaml = "plugins:\n  good: { source: file:succeeds.wasm, every: 100ms }\n  bad: { source: file:succeeds.wasm, verify: { keys: [none.pub] } }\n";
    scene.configure(yaml);
    let output = scene.windlass(&["check"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("none.pub: is missing"), "{text}");
    let host = scene.run(yaml);
    host.wait_for_run("good");
    assert!(description(&host, "bad").contains("none.pub: is missing"));
}
