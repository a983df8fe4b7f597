//! Registries that answer badly: one line with cause and remedy, in bounded time, and what runs goes on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use windlass_tests::{Host, Mount, Scene, guest};

use super::fake::{Fake, Request, manifest_of, respond, serve_wasm};
use super::{digest, good, not_pulled};

#[test]
fn refused_and_missing() {
    let fake = Fake::start(|_| respond("401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n", b""));
    not_pulled(&fake.at("a:1"), 10, &["401", &fake.address, "for a", "DOCKER_CONFIG"]);
    let fake = Fake::start(|_| respond("403 Forbidden", "", b""));
    not_pulled(&fake.at("a:1"), 10, &["403", "may read this repository"]);
    let fake = Fake::start(|_| respond("404 Not Found", "", br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#));
    not_pulled(&fake.at("team/job:1"), 10, &["404", "there is no 1 in team/job", "pushed"]);
    assert_eq!(fake.requests().len(), 1, "what will not change is asked once");
}

#[test]
fn overloaded_for_a_while_and_for_good() {
    let (asked, wasm) = (AtomicU32::new(0), guest("succeeds"));
    let fake = Fake::start(move |request| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => respond("429 Too Many Requests", "retry-after: 1\r\n", b""),
        1 => respond("503 Service Unavailable", "", b""),
        _ => serve_wasm(request, &wasm),
    });
    let scene = Scene::new();
    good(&scene.windlass(&["pull", &fake.at("a:1")]));
    assert_eq!(std::fs::read(scene.path().join("a.wasm")).unwrap(), guest("succeeds"));
    let fake = Fake::start(|_| respond("429 Too Many Requests", "", b""));
    not_pulled(&fake.at("a:1"), 20, &["answers 429 after 4 tries", "overloaded"]);
    let fake = Fake::start(|_| respond("500 Internal Server Error", "", b"token=hunter2"));
    not_pulled(&fake.at("a:1"), 20, &["answers 500 after 4 tries"]);
    let fake = Fake::start(|_| respond("418 I'm a teapot", "", br#"{"errors":[{"code":"TEAPOT","message":"x"}]}"#));
    not_pulled(&fake.at("a:1"), 10, &["it answers 418 TEAPOT", "is the host right"]);
}

#[test]
fn broken_off_and_silent() {
    let wasm = guest("succeeds");
    let fake = Fake::start(move |request| {
        let whole = serve_wasm(request, &wasm);
        if request.head.contains("/blobs/") { whole[..whole.len() - wasm.len() / 2].to_vec() } else { whole }
    });
    not_pulled(&fake.at("a:1"), 20, &["cannot be reached", "broke off after"]);
    let fake = Fake::start(|_| Vec::new());
    not_pulled(&fake.at("a:1"), 20, &["cannot be reached"]);
    let fake = Fake::start(|_| {
        std::thread::sleep(Duration::from_secs(45));
        Vec::new()
    });
    not_pulled(&fake.at("a:1"), 35, &["cannot be reached"]);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    not_pulled(&format!("oci://{nobody}/a:1"), 20, &["cannot be reached", "refused", "HTTPS_PROXY"]);
}

#[test]
fn something_else_than_a_plugin() {
    let page = "content-type: text/html; charset=utf-8\r\n";
    let fake = Fake::start(move |_| respond("200 OK", page, b"<html>log in</html>"));
    not_pulled(&fake.at("a:1"), 10, &["does not answer as a registry", "web page", "proxy or login page"]);
    let fake = Fake::start(|_| respond("200 OK", "", &vec![b' '; 5 << 20]));
    not_pulled(&fake.at("a:1"), 10, &["does not answer as a registry", "more than the 4194304 bytes"]);
    let index = "content-type: application/vnd.oci.image.index.v1+json\r\n";
    let fake = Fake::start(move |_| {
        let one = format!(r#"{{"mediaType":"x","digest":"{}","size":1}}"#, digest(b""));
        respond("200 OK", index, format!(r#"{{"schemaVersion":2,"manifests":[{one},{one}]}}"#).as_bytes())
    });
    not_pulled(&fake.at("a:1"), 10, &["an index of 2 platforms", "windlass push"]);
    let with = |from: &'static str, to: &'static str| {
        Fake::start(move |_| {
            let manifest = String::from_utf8(manifest_of(b"wasm")).unwrap().replace(from, to);
            respond("200 OK", "", manifest.as_bytes())
        })
    };
    let fake = with("\"application/wasm\"", "\"text/plain\"");
    not_pulled(&fake.at("a:1"), 10, &["media type text/plain", "application/wasm"]);
    let fake = with("\"size\":4", "\"size\":900000000");
    not_pulled(&fake.at("a:1"), 10, &["has 858 MiB; the most is 256 MiB"]);
}

#[test]
fn bytes_of_another_digest() {
    let other = |request: &Request| {
        let body: &[u8] = if request.head.contains("/blobs/") { b"wa5m" } else { &manifest_of(b"wasm") };
        respond("200 OK", "", body)
    };
    let fake = Fake::start(other);
    not_pulled(&fake.at("a:1"), 10, &["gave bytes of", &digest(b"wasm"), &digest(b"wa5m"), "changed or damaged"]);
    // More than was announced is not even read.
    let fake = Fake::start(|request| {
        let body: &[u8] = if request.head.contains("/blobs/") { b"wasm and more" } else { &manifest_of(b"wasm") };
        respond("200 OK", "", body)
    });
    not_pulled(&fake.at("a:1"), 10, &["more than the 4 bytes"]);
    let wanted = digest(b"something else");
    not_pulled(&fake.at(&format!("a@{wanted}")), 10, &["gave bytes of", &wanted]);
}

#[test]
fn what_was_fetched_once_runs_on_whatever_the_registry_answers_later() {
    let wasm = guest("succeeds");
    let fake = Fake::start(move |request| serve_wasm(request, &wasm));
    let data = tempfile::tempdir().unwrap();
    let yaml = format!(
        "dataDir: {}\nplugins:\n  job: {{ source: \"{}\", every: 100ms }}\n",
        data.path().display(),
        fake.at("a:1")
    );
    let mut host = Scene::new().run(&yaml);
    host.wait_for_run("job");
    assert_eq!(host.stop(), 0);
    type Answer = fn(&Request) -> Vec<u8>;
    let answers: [(Answer, &str); 4] = [
        (|_| respond("401 Unauthorized", "", b""), "401"),
        (|_| respond("404 Not Found", "", b""), "404"),
        (|_| respond("200 OK", "content-type: text/html\r\n", b"<html>"), "web page"),
        (|_| respond("200 OK", "", &manifest_of(b"wasm")), "blob"),
    ];
    for (answer, said) in answers {
        fake.change(move |request| match request.head.contains("/blobs/") {
            true => respond("404 Not Found", "", b""),
            false => answer(request),
        });
        let mut host: Host = Scene::new().run(&yaml);
        host.wait_for_run("job");
        assert_eq!(host.plugin("job")["status"], "Healthy");
        let entry = host.json("/health")["entries"]["windlass"].clone();
        let description = entry["description"].as_str().unwrap_or_default();
        assert!(entry["status"] == "Degraded" && description.contains(said), "{entry}");
        assert!(description.contains("what was kept of it is used"), "{entry}");
        assert_eq!(host.stop(), 0);
    }
}

#[test]
fn on_a_full_disk_what_was_fetched_runs_and_is_not_kept() {
    let data = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::tmpfs(data.path(), "size=96k,mode=700") else { return };
    std::fs::write(data.path().join("filler"), vec![0; 80 << 10]).unwrap();
    let wasm = guest("heartbeat");
    let fake = Fake::start(move |request| serve_wasm(request, &wasm));
    let source = fake.at("a:1");
    let yaml =
        format!("dataDir: {}\nplugins:\n  job: {{ source: \"{source}\", every: 100ms }}\n", data.path().display());
    let mut host = Scene::new().run(&yaml);
    host.wait_for_run("job");
    let entry = host.json("/health")["entries"]["windlass"].clone();
    let said = entry["description"].as_str().unwrap_or_default();
    assert!(entry["status"] == "Degraded" && said.contains("it is not kept for a restart"), "{entry}");
    assert!(said.contains(&source) && said.contains("No space left") && said.contains("dataDir's disk"), "{entry}");
    assert_eq!(host.stop(), 0);
    let left = |part: &str| std::fs::read_dir(data.path().join("artifacts").join(part)).unwrap().count();
    // `blobs`, `references` and `versions`.
    assert_eq!((left("blobs"), left("")), (0, 3), "something half written is left");
    // There is room again: the next start keeps it, and the one after that needs no registry.
    std::fs::remove_file(data.path().join("filler")).unwrap();
    let status = std::process::Command::new("mount").args(["-o", "remount,size=8m"]).arg(data.path()).status();
    assert!(status.unwrap().success());
    let mut host = Scene::new().run(&yaml);
    host.wait_for_run("job");
    assert_eq!((host.stop(), left("blobs")), (0, 1));
    drop(fake);
    let host = Scene::new().run(&yaml);
    host.wait_for_run("job");
    drop(host);
}
