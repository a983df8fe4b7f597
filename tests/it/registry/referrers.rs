//! Signatures found by the referrers API: filtered by the registry or not, in pages, under the tag where there is no such API, and in
//! bounded work where there are ten thousand.

use std::path::Path;

use serde_json::{Value, json};
use windlass_tests::{Scene, guest};

use super::fake::{Fake, Request, manifest_of, respond, serve_wasm};
use super::signed::{BUNDLE, bundle, key};
use super::{digest, good};

const INDEX: &str = "content-type: application/vnd.oci.image.index.v1+json\r\n";

/// What a registry holds of one artifact: the wasm, a bundle, and the manifest that refers.
#[derive(Clone)]
struct Stored {
    wasm: Vec<u8>,
    bundle: Vec<u8>,
    referrer: Vec<u8>,
}

impl Stored {
    fn signed_by(folder: &Path, name: &str) -> Stored {
        let wasm = guest("succeeds");
        let subject = digest(&manifest_of(&wasm));
        let bundle = bundle(folder, name, &subject).to_string().into_bytes();
        let referrer = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": BUNDLE,
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2 },
            "layers": [{ "mediaType": BUNDLE, "digest": digest(&bundle), "size": bundle.len() }],
            "subject": { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject, "size": 1 },
        });
        Stored { wasm, bundle, referrer: referrer.to_string().into_bytes() }
    }

    fn subject(&self) -> String {
        digest(&manifest_of(&self.wasm))
    }

    /// How an index lists the referrer.
    fn entry(&self) -> Value {
        entry(BUNDLE, &digest(&self.referrer))
    }

    /// All that is stored, and nothing on who refers to what.
    fn serve(&self, request: &Request) -> Vec<u8> {
        let manifest = "content-type: application/vnd.oci.image.manifest.v1+json\r\n";
        if request.head.contains(&format!("/manifests/{} ", digest(&self.referrer))) {
            respond("200 OK", manifest, &self.referrer)
        } else if request.head.contains(&format!("/blobs/{} ", digest(&self.bundle))) {
            respond("200 OK", "content-type: application/octet-stream\r\n", &self.bundle)
        } else {
            serve_wasm(request, &self.wasm)
        }
    }
}

fn entry(artifact_type: &str, digest: &str) -> Value {
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    json!({ "mediaType": media_type, "artifactType": artifact_type, "digest": digest, "size": 700 })
}

fn index(entries: &[Value]) -> Vec<u8> {
    let media_type = "application/vnd.oci.image.index.v1+json";
    json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries }).to_string().into_bytes()
}

/// A registry with a referrers API that answers as `api` says.
fn fake(stored: &Stored, api: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Fake {
    let stored = stored.clone();
    let path = format!("/v2/a/referrers/{}", stored.subject());
    Fake::start(move |request| match request.head.contains(&path) {
        true => api(request),
        false => stored.serve(request),
    })
}

/// A scene with the keys of two people, and what ours signed.
fn scene() -> (Scene, Stored) {
    let scene = Scene::new();
    key(scene.path(), "ours");
    key(scene.path(), "theirs");
    let stored = Stored::signed_by(scene.path(), "ours");
    (scene, stored)
}

#[track_caller]
fn is_taken(scene: &Scene, fake: &Fake) {
    good(&scene.windlass(&["pull", &fake.at("a:1"), "--verify-key", "ours.pub", "-o", "out.wasm"]));
}

#[track_caller]
fn is_refused(scene: &Scene, fake: &Fake, said: &[&str]) {
    let output = scene.windlass(&["pull", &fake.at("a:1"), "--verify-key", "ours.pub", "-o", "no.wasm"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && !scene.path().join("no.wasm").exists(), "{text}");
    for part in said {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn a_referrer_is_found_whether_or_not_the_registry_filters() {
    let (scene, stored) = scene();
    let bill = entry("application/spdx+json", &digest(b"a bill of materials"));
    let entries = [bill, stored.entry()];
    let everything = index(&entries);
    is_taken(&scene, &fake(&stored, move |_| respond("200 OK", INDEX, &everything)));
    let filtered = index(&entries[1..]);
    let headers = format!("{INDEX}oci-filters-applied: artifactType\r\n");
    let registry = fake(&stored, move |_| respond("200 OK", &headers, &filtered));
    is_taken(&scene, &registry);
    let asked = registry.requests();
    assert!(!asked.iter().any(|request| request.head.contains("/manifests/sha256-") && !request.head.contains(".sig")));
    // Of those that are not bundles nothing is fetched.
    assert!(!asked.iter().any(|request| request.head.contains(&digest(b"a bill of materials"))));
    let nobody = index(&[]);
    is_refused(&scene, &fake(&stored, move |_| respond("200 OK", INDEX, &nobody)), &["has none", "cosign sign"]);
    let other = Stored::signed_by(scene.path(), "theirs");
    let theirs = index(&[other.entry()]);
    is_refused(&scene, &fake(&other, move |_| respond("200 OK", INDEX, &theirs)), &["by none of the keys"]);
}

#[test]
fn referrers_come_in_pages_and_pages_come_to_an_end() {
    let (scene, stored) = scene();
    // The third page has another path.
    let (third, rest) = (stored.clone(), index(&[stored.entry()]));
    let path = format!("/v2/a/referrers/{}", stored.subject());
    let first = index(&[]);
    let registry =
        Fake::start(move |request| match (request.head.contains("page=3"), request.head.contains("page=2")) {
            (true, _) => respond("200 OK", INDEX, &rest),
            (_, true) => respond("200 OK", &format!("{INDEX}link: </v2/a/next?page=3>; foo=bar; rel=next\r\n"), &first),
            _ if request.head.contains(&path) => {
                respond("200 OK", &format!("{INDEX}link: <?page=2>; rel=\"next\"\r\n"), &first)
            }
            _ => third.serve(request),
        });
    is_taken(&scene, &registry);

    // Pages without end, and a page elsewhere.
    let none = index(&[]);
    let endless =
        fake(&stored, move |_| respond("200 OK", &format!("{INDEX}link: <?page=again>; rel=\"next\"\r\n"), &none));
    is_refused(&scene, &endless, &["has none"]);
    assert!(endless.requests().len() < 25, "{} requests", endless.requests().len());
    let elsewhere = Fake::start(|_| respond("404 Not Found", "", b""));
    let (there, none) = (format!("{INDEX}link: <http://{}/x>; rel=\"next\"\r\n", elsewhere.address), index(&[]));
    is_refused(&scene, &fake(&stored, move |_| respond("200 OK", &there, &none)), &["has none"]);
    assert!(elsewhere.requests().is_empty(), "who is not the registry is not asked");
}

#[test]
fn without_the_api_the_tag_stands_in_for_it() {
    let (scene, stored) = scene();
    let answers: [fn(&Request) -> Vec<u8>; 4] = [
        |_| respond("404 Not Found", "", br#"{"errors":[{"code":"NOT_FOUND"}]}"#),
        |_| respond("405 Method Not Allowed", "", b""),
        // A proxy or a front that answers for whatever it does not know.
        |_| respond("200 OK", "content-type: text/html\r\n", b"<html>welcome</html>"),
        |_| respond("200 OK", "content-type: application/json\r\n", b"{}"),
    ];
    for answer in answers {
        is_refused(&scene, &fake(&stored, answer), &["has none"]);
        let (all, tagged) = (stored.clone(), index(&[stored.entry()]));
        let tag = format!("/manifests/{} ", stored.subject().replace(':', "-"));
        let path = format!("/v2/a/referrers/{}", stored.subject());
        let registry = Fake::start(move |request| match (request.head.contains(&path), request.head.contains(&tag)) {
            (true, _) => answer(request),
            (_, true) => respond("200 OK", INDEX, &tagged),
            _ => all.serve(request),
        });
        is_taken(&scene, &registry);
    }
    // Under that tag there may be anything.
    let tag = format!("/manifests/{} ", stored.subject().replace(':', "-"));
    for body in [&b"<html>"[..], b"{\"manifests\":7}", b""] {
        let (all, tag) = (stored.clone(), tag.clone());
        let registry = Fake::start(move |request| match request.head.contains(&tag) {
            true => respond("200 OK", INDEX, body),
            false => all.serve(request),
        });
        is_refused(&scene, &registry, &["has none"]);
    }
}

#[test]
fn ten_thousand_referrers_are_refused_in_bounded_work() {
    let (scene, stored) = scene();
    let other = Stored::signed_by(scene.path(), "theirs");
    // All the same bundle by another, so that each could be looked at; ours would be the last.
    let mut entries = vec![other.entry(); 10_000];
    entries.push(stored.entry());
    let all = index(&entries);
    let served = other.clone();
    let path = format!("/v2/a/referrers/{}", stored.subject());
    let registry = Fake::start(move |request| match request.head.contains(&path) {
        true => respond("200 OK", INDEX, &all),
        false => served.serve(request),
    });
    is_refused(&scene, &registry, &["by none of the keys", "9985 more that refer to it were not looked at"]);
    assert!(registry.requests().len() < 40, "{} requests", registry.requests().len());

    // What says that it attests something else takes nobody's place.
    let mut attests = other.entry();
    attests["annotations"] = json!({ "dev.sigstore.bundle.predicateType": "https://slsa.dev/provenance/v1" });
    let mut entries = vec![attests; 5_000];
    entries.push(stored.entry());
    let all = index(&entries);
    is_taken(&scene, &fake(&stored, move |_| respond("200 OK", INDEX, &all)));

    // More than is read at all.
    let registry = fake(&stored, |_| respond("200 OK", INDEX, &vec![b' '; 5 << 20]));
    is_refused(&scene, &registry, &["more than the 4194304 bytes"]);
}
