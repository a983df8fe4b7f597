//! The admin port, and the commands that ask it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Output;
use std::time::Duration;

use windlass_tests::{Host, Scene, guest, marked};

const YAML: &str = "plugins:\n  p: { source: file:p.wasm, every: 100ms, backoffLimit: 0 }\n";

fn windlass(host: &mut Host, arguments: &[&str]) -> (i32, String) {
    let admin = host.admin();
    let mut all = arguments.to_vec();
    all.extend(["--admin", admin.as_str()]);
    said(host.scene().windlass(&all))
}

fn said(output: Output) -> (i32, String) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn variant(number: u32) -> Vec<u8> {
    marked(guest("succeeds"), number)
}

#[test]
fn status_shows_the_worst_first_and_says_so_in_its_exit_code() {
    let mut host = Scene::new().file("p.wasm", &variant(1)).run(YAML);
    host.wait_for_run("p");
    let (code, text) = windlass(&mut host, &["status", "--wait"]);
    assert!(code == 0 && text.contains("PLUGIN") && text.contains("Succeeded"), "{text}");
    assert!(text.ends_with("windlass: Healthy\n"), "{text}");

    let scene = Scene::new().file("p.wasm", &variant(1)).file("bad.wasm", b"no");
    let mut host = scene.run(&format!("{YAML}  z: {{ source: file:bad.wasm }}\n"));
    host.wait_until_ready();
    let (code, text) = windlass(&mut host, &["status"]);
    let worst = text.lines().nth(1).unwrap();
    assert!(code == 1 && worst.starts_with("z ") && worst.contains("not WebAssembly"), "{text}");
    let (code, text) = windlass(&mut host, &["status", "p"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = windlass(&mut host, &["status", "q"]);
    assert!(code == 1 && text.contains("no plugin `q`"), "{text}");
    let (code, text) = windlass(&mut host, &["status", "--wait", "--config-hash", "00", "--timeout", "0.5"]);
    assert!(code == 1 && text.contains("waited in vain"), "{text}");
}

#[test]
fn versions_are_chosen_by_hand() {
    let mut host = Scene::new().file("p.wasm", &variant(1)).run(YAML);
    host.wait_for_run("p");
    let (code, text) = windlass(&mut host, &["rollback", "p"]);
    assert!(code == 1 && text.contains("no older version"), "{text}");
    std::fs::write(host.scene().plugins().join("new"), variant(2)).unwrap();
    std::fs::rename(host.scene().plugins().join("new"), host.scene().plugins().join("p.wasm")).unwrap();
    host.wait_for("p", |plugin| plugin["lastRuns"][0]["version"] == 2);
    let (code, text) = windlass(&mut host, &["rollback", "p"]);
    assert!(code == 0 && text.contains("version 1 took over from version 2"), "{text}");
    host.wait_for("p", |plugin| plugin["lastRuns"][0]["version"] == 1 && plugin["status"] == "Degraded");
    let (code, text) = windlass(&mut host, &["swap", "p"]);
    assert!(code == 0 && text.contains("tried again"), "{text}");
    host.wait_for("p", |plugin| plugin["lastRuns"][0]["version"] == 2 && plugin["status"] == "Healthy");
    let (code, text) = windlass(&mut host, &["swap", "nobody"]);
    assert!(code == 1 && text.contains("no plugin"), "{text}");
    assert_eq!(windlass(&mut host, &["swap", "No Name"]).0, 2);
}

#[test]
fn without_a_token_only_this_machine_and_no_web_page_is_answered() {
    let mut host = Scene::new().file("p.wasm", &variant(1)).run(YAML);
    let admin = host.admin();
    let get = |host: &str, more: &str| ask(&admin, &format!("GET /status HTTP/1.1\r\nhost: {host}\r\n{more}\r\n"));
    assert!(get("localhost", "").starts_with("HTTP/1.1 200"));
    assert!(get("evil.example", "").starts_with("HTTP/1.1 403"));
    assert!(get("localhost", "origin: http://evil.example\r\n").starts_with("HTTP/1.1 403"));
    assert!(get("localhost", &format!("x: {}\r\n", "y".repeat(20_000))).starts_with("HTTP/1.1 431"));
    let answer = ask(&admin, "POST /plugins/p/suspend HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    // Who holds connections open and says nothing keeps nobody from the health port.
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(&admin).unwrap()).collect();
    assert_eq!(host.get("/health/live").0, 200);
    drop(silent);
    assert!(get("localhost", "").starts_with("HTTP/1.1 200"));
}

#[test]
fn another_address_needs_a_token_and_the_token_is_asked_for() {
    let scene = Scene::new();
    scene.configure("admin: { listen: \"0.0.0.0:0\" }\n");
    let (code, text) = said(scene.windlass(&["run"]));
    assert!(code == 2 && text.contains("admin.tokenFile"), "{text}");

    let scene = Scene::new().file("p.wasm", &variant(1));
    let token = scene.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let yaml = format!("admin: {{ listen: \"127.0.0.1:0\", tokenFile: \"{}\" }}\n{YAML}", token.display());
    let mut host = scene.run(&yaml);
    host.wait_for_run("p");
    let (code, text) = windlass(&mut host, &["status"]);
    assert!(code == 1 && text.contains("WINDLASS_TOKEN"), "{text}");
    let (code, text) = windlass(&mut host, &["status", "--token", "s3cret"]);
    assert_eq!(code, 0, "{text}");
    let (code, _) = windlass(&mut host, &["status", "--token", "other"]);
    assert_eq!(code, 1);
}

#[test]
fn a_host_that_is_not_there() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    drop(taken);
    let (code, text) = said(Scene::new().windlass(&["status", "--admin", &address]));
    assert!(code == 1 && text.contains(&address) && text.contains("--admin"), "{text}");
}
