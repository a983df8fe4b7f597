//! What can be wrong with a newer version, or with where versions come from: the one that runs goes on.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use windlass_tests::{Host, Mount, PATIENCE, Scene, guest, marked};

use super::How::Scene as By;
use super::runner::{self, Bystanders};
use super::{Row, rows};

const fn row(fault: &'static str, status: &'static str, reason: &'static str, scene: fn(&Row)) -> Row {
    Row { fault, outcome: None, status, reason: Some(reason), well_within: Duration::from_secs(20), how: By(scene) }
}

rows! {
    garbage: row("a newer file is garbage", "Degraded", "is not WebAssembly", garbage);
    half: row("a newer file is cut in half", "Degraded", "truncated or damaged", half);
    loops_after_its_check: row(
        "a newer version passes its check and then loops", "Degraded", "was rolled back to version 1", loops_after_its_check
    );
    bomb: Row {
        well_within: Duration::from_secs(120),
        ..row("a newer file is a compile bomb", "Healthy", "a newer file is being loaded", bomb)
    };
    folder: row("the plugins' folder vanishes, as a share that is unmounted", "Degraded", "cannot be read", folder);
    registry: row("the registry of a plugin is down from the start", "Unhealthy", "cannot be reached", registry);
    disk: row("the disk under `dataDir` is full while a version is swapped", "Degraded", "cannot be written", disk);
}

fn put(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("tmp");
    fs::write(&beside, bytes).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// A host whose culprit runs well five times a second, until something is done to it.
fn start(more: &str, entry: &str) -> Host {
    let scene = Scene::new().file("culprit.wasm", &marked(guest("succeeds"), 1));
    let entry = format!("source: file:culprit.wasm, every: 200ms, backoffLimit: 0, {entry}");
    let host = runner::launch(scene, &[], &entry, more);
    host.wait_until_ready();
    host.wait_for_run("culprit");
    host
}

fn shows(of: &Value, row: &Row) -> bool {
    of["status"] == row.status && of["description"].as_str().is_some_and(|text| text.contains(row.reason.unwrap()))
}

fn succeeded(host: &Host) -> u64 {
    host.plugin("culprit")["totals"]["runs"]["Succeeded"].as_u64().unwrap_or(0)
}

/// A newer file that is no good: it is said, version 1 goes on, and with a good one all is well.
fn newer(row: &Row, entry: &str, bytes: &[u8]) {
    let host = start("", entry);
    let bystanders = Bystanders::watch(&host);
    let file = host.scene().plugins().join("culprit.wasm");
    let began = Instant::now();
    put(&file, bytes);
    let plugin = host.wait_for_within("culprit", row.well_within, |plugin| shows(plugin, row));
    assert_eq!(plugin["version"]["number"], 1, "{plugin:#}");
    assert!(began.elapsed() <= row.well_within, "{:?}", began.elapsed());
    let before = succeeded(&host);
    host.wait_for("culprit", |_| succeeded(&host) > before + 2);
    end(row, &host, bystanders, began, &file);
}

/// A good file, and everything is as before.
fn end(row: &Row, host: &Host, bystanders: Bystanders, began: Instant, file: &Path) {
    put(file, &marked(guest("succeeds"), 2));
    let is_well = |plugin: &Value| plugin["status"] == "Healthy" && plugin["lastRuns"][0]["outcome"] == "Succeeded";
    host.wait_for("culprit", |plugin| is_well(plugin) && plugin["version"]["number"] != 1);
    bystanders.go_on_for(Duration::from_secs(2));
    eprintln!("{}: shown and mended after {:?}", row.fault, began.elapsed());
    bystanders.were_punctual(host);
}

fn garbage(row: &Row) {
    newer(row, "", b"not wasm at all");
}

fn half(row: &Row) {
    let whole = guest("succeeds");
    newer(row, "", &whole[..whole.len() / 2]);
}

fn loops_after_its_check(row: &Row) {
    // The one that there is does not care for its arguments.
    newer(row, "args: [loops], limits: { cpuSeconds: 0.3 }", &guest("checked"));
}

fn bomb(row: &Row) {
    let host = start("", "");
    let bystanders = Bystanders::watch(&host);
    let file = host.scene().plugins().join("culprit.wasm");
    let began = Instant::now();
    put(&file, &super::guests::bomb());
    let shown = |plugin: &Value| plugin["candidate"].as_str().unwrap_or_default().to_owned();
    let plugin = host.wait_for("culprit", |plugin| shown(plugin).contains(row.reason.unwrap()));
    assert_eq!((&plugin["status"], &plugin["version"]["number"]), (&row.status.into(), &1.into()), "{plugin:#}");
    let before = succeeded(&host);
    host.wait_for("culprit", |_| succeeded(&host) > before + 2);
    // Whether it gets through or is refused is the compiler's business.
    host.wait_for_within("culprit", row.well_within, |plugin| shown(plugin).is_empty());
    end(row, &host, bystanders, began, &file);
}

fn folder(row: &Row) {
    let host = start("", "");
    let bystanders = Bystanders::watch(&host);
    let folder = host.scene().plugins();
    let began = Instant::now();
    fs::rename(&folder, folder.with_extension("away")).unwrap();
    let entry = || host.json("/health")["entries"]["windlass"].clone();
    host.wait_for_within("culprit", row.well_within, |_| shows(&entry(), row));
    let before = succeeded(&host);
    host.wait_for("culprit", |_| succeeded(&host) > before + 2);
    fs::rename(folder.with_extension("away"), &folder).unwrap();
    host.wait_for("culprit", |_| entry()["status"] == "Healthy");
    assert_eq!(host.plugin("culprit")["version"]["number"], 1);
    end(row, &host, bystanders, began, &folder.join("culprit.wasm"));
}

fn registry(row: &Row) {
    // A port that nobody listens on any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let entry = format!("source: \"oci://127.0.0.1:{port}/job:1\", every: 200ms");
    let host = runner::launch(Scene::new(), &[], &entry, "");
    for name in runner::BYSTANDERS {
        host.wait_for_run(name);
    }
    let bystanders = Bystanders::watch(&host);
    let plugin = host.wait_for_within("culprit", row.well_within, |plugin| shows(plugin, row));
    assert_eq!(plugin["state"], "Refused", "{plugin:#}");
    let entry = host.json("/health")["entries"]["windlass"].clone();
    assert_eq!(entry["status"], "Degraded", "{entry}");
    assert_eq!(host.get("/health/live").0, 200);
    eprintln!("{}: shown after {:?}", row.fault, bystanders.watched_for());
    bystanders.go_on_for(Duration::from_secs(1));
    bystanders.were_punctual(&host);
}

fn disk(row: &Row) {
    let data = windlass_tests::temporary_folder();
    let Some(_mount) = Mount::tmpfs(data.path(), "size=256k,mode=700") else {
        eprintln!("!! SKIPPED: no tmpfs can be mounted here, so a full disk was NOT tried");
        return;
    };
    let host = start(&format!("dataDir: {}\n", data.path().display()), "");
    let bystanders = Bystanders::watch(&host);
    let filler = data.path().join("filler");
    let began = Instant::now();
    fill(&filler);
    let file = host.scene().plugins().join("culprit.wasm");
    put(&file, &marked(guest("succeeds"), 3));
    let entry = || host.json("/health")["entries"]["windlass"].clone();
    host.wait_for_within("culprit", row.well_within, |_| shows(&entry(), row));
    // The version runs all the same, and it is the host whose entry says what is wrong.
    host.wait_for("culprit", |plugin| plugin["lastRuns"][0]["version"] == 2 && plugin["status"] == "Healthy");
    fs::remove_file(&filler).unwrap();
    end(row, &host, bystanders, began, &file);
    let until = Instant::now() + PATIENCE;
    while entry()["status"] != "Healthy" {
        assert!(Instant::now() < until, "{}", entry());
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(host);
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(path).unwrap();
    for part in [4096, 512, 1] {
        while file.write_all(&vec![0; part]).is_ok() {}
    }
}
