//! The health port over real sockets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop here")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::*;
use crate::core::health::{HostView, PluginView, Snapshot, State, Status, Totals};
use crate::core::name::PluginName;
use crate::core::time::{Mono, Now, Timestamp};

fn view(name: &str, status: Status, description: &str) -> Arc<PluginView> {
    Arc::new(PluginView {
        name: PluginName::new(name).unwrap(),
        state: State::Active,
        status,
        description: description.to_owned(),
        exception: None,
        tags: Arc::from(["nightly".to_owned()]),
        labels: Arc::default(),
        data: [("k\u{7}".to_owned(), "v\"\n".to_owned())].into(),
        source: "file:a.wasm".into(),
        trigger: "every 5s".into(),
        version: None,
        candidate: None,
        versions: Arc::from([]),
        running: Vec::new(),
        last_runs: Vec::new(),
        next_run: Some(Timestamp::UNIX_EPOCH),
        last_success: None,
        failures_in_row: 0,
        totals: Totals::default(),
        escalates: false,
        verdict: None,
        ladder: None,
    })
}

fn snapshot(plugins: Vec<Arc<PluginView>>) -> Snapshot {
    Snapshot {
        taken: Now { mono: Mono::START, wall: Timestamp::UNIX_EPOCH },
        started: Timestamp::UNIX_EPOCH,
        host: HostView {
            status: Status::Healthy,
            description: String::new(),
            draining: false,
            loading: 0,
            config_hash: String::new(),
        },
        plugins: plugins.into(),
    }
}

fn serve(plugins: Vec<Arc<PluginView>>, names_only: bool) -> (Arc<Board>, SocketAddr) {
    let board = Board::new(1, snapshot(plugins));
    let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = bound.address().unwrap();
    let options = Options {
        board: board.clone(),
        stuck: Duration::from_secs(15),
        names_only,
        ready_timeout: Duration::from_secs(60),
        drain: Duration::from_secs(1),
        termination_log: PathBuf::from("/nonexistent"),
        niceness: crate::lanes::priority::Niceness::among_others().unwrap(),
        on_shutdown: Box::new(|| {}),
        on_hangup: Box::new(|| {}),
    };
    spawn(bound, Signals::install().unwrap(), options).unwrap();
    (board, address)
}

/// Sends bytes and reads until the other side closes or five seconds have passed.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = exchange(address, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes());
    let code = answer.split(' ').nth(1).unwrap_or("0").parse().unwrap();
    (code, answer)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn the_report_has_the_shape_of_the_ui_response_writer() {
    let plugins = vec![view("a", Status::Healthy, "fine"), view("b", Status::Degraded, "slow\u{1b}[31m")];
    let (_, address) = serve(plugins, false);
    let (code, answer) = get(address, "/health");
    assert_eq!(code, 200);
    assert!(answer.to_lowercase().contains("cache-control: no-store, no-cache"), "{answer}");
    let mut report: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    let total = report["totalDuration"].take();
    assert!(total.as_str().unwrap().starts_with("00:00:00"), "{total}");
    let expected = serde_json::json!({
        "status": "Degraded",
        "totalDuration": null,
        "entries": {
            "windlass": { "data": { "version": env!("CARGO_PKG_VERSION") }, "duration": "00:00:00", "status": "Healthy", "tags": [] },
            "a": {
                "data": { "k\u{7}": "v\"\n", "state": "Active", "nextRun": "1970-01-01T00:00:00.000Z" },
                "description": "fine", "duration": "00:00:00", "status": "Healthy", "tags": ["nightly"],
            },
            "b": {
                "data": { "k\u{7}": "v\"\n", "state": "Active", "nextRun": "1970-01-01T00:00:00.000Z" },
                "description": "slow\\u{1b}[31m", "duration": "00:00:00", "status": "Degraded", "tags": ["nightly"],
            },
        },
    });
    assert_eq!(report, expected);
}

#[test]
fn an_unhealthy_entry_makes_the_report_503_and_live_stays_200() {
    let (board, address) = serve(vec![view("a", Status::Unhealthy, "broken")], false);
    assert_eq!(get(address, "/health").0, 503);
    assert_eq!(get(address, "/health/live").0, 200);
    board.publish(snapshot(vec![view("a", Status::Healthy, "well")]));
    assert_eq!(get(address, "/health").0, 200);
}

#[test]
fn startup_and_ready_follow_the_board() {
    let (board, address) = serve(Vec::new(), false);
    assert_eq!((get(address, "/health/startup").0, get(address, "/health/ready").0), (503, 503));
    board.started_up();
    assert_eq!((get(address, "/health/startup").0, get(address, "/health/ready").0), (200, 200));
    let mut loading = snapshot(Vec::new());
    loading.host.loading = 2;
    board.publish(loading);
    let (code, answer) = get(address, "/health/ready");
    assert!(code == 503 && answer.contains("2 plugins still load"), "{answer}");
    board.publish(snapshot(Vec::new()));
    assert_eq!(get(address, "/health/ready").0, 200);
    board.drain();
    assert_eq!(get(address, "/health/ready").0, 503);
}

#[test]
fn other_paths_and_methods_are_told_what_there_is() {
    let (_, address) = serve(vec![view("a", Status::Healthy, "fine")], false);
    let (code, answer) = get(address, "/helth");
    assert!(code == 404 && answer.contains("/health/startup") && answer.contains("/metrics"), "{answer}");
    let (code, answer) = get(address, "/health/plugins/b");
    assert!(code == 404 && body(&answer).contains("known:\na\n"), "{answer}");
    assert_eq!(get(address, "/health/plugins/a").0, 200);
    assert_eq!(get(address, "/health/plugins").0, 200);
    let answer =
        exchange(address, b"POST /health HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405") && answer.to_lowercase().contains("allow: get, head"), "{answer}");
    let answer = exchange(address, b"HEAD /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200") && body(&answer).is_empty(), "{answer}");
    assert!(answer.to_lowercase().contains("content-length: "), "{answer}");
}

#[test]
fn names_only_hides_what_guests_and_people_wrote() {
    let (_, address) = serve(vec![view("a", Status::Degraded, "a secret")], true);
    for path in ["/health", "/health/plugins", "/health/plugins/a"] {
        let (_, answer) = get(address, path);
        assert!(!answer.contains("secret") && !answer.contains("\"v\\\""), "{path}: {answer}");
        assert!(answer.contains("Degraded"), "{path}: {answer}");
    }
}

#[test]
fn a_kubelet_that_probes_the_report_is_warned_about_in_the_hosts_entry() {
    let (_, address) = serve(Vec::new(), false);
    assert!(!get(address, "/health").1.contains("kubelet"));
    exchange(address, b"GET /health HTTP/1.1\r\nhost: x\r\nuser-agent: kube-probe/1.37\r\nconnection: close\r\n\r\n");
    assert!(get(address, "/health").1.contains("give it /health/live"));
}

#[test]
fn slow_heads_large_heads_and_garbage_are_cut_off() {
    let (_, address) = serve(Vec::new(), false);
    let began = Instant::now();
    exchange(address, b"GET /health HTTP/1.1\r\nho");
    assert!(began.elapsed() < Duration::from_secs(4), "after two seconds, not {:?}", began.elapsed());
    let large = format!("GET /health HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    let answer = exchange(address, large.as_bytes());
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = exchange(address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no http at all\r\n\r\n");
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(get(address, "/health/live").0, 200);
}

#[test]
fn idle_connections_do_not_keep_a_probe_out() {
    let (_, address) = serve(Vec::new(), false);
    let idle: Vec<_> = (0..700).map(|_| TcpStream::connect(address).unwrap()).collect();
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(get(address, "/health/live").0, 200);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    drop(idle);
}

#[test]
fn many_plugins_are_all_in_the_report_and_in_the_list() {
    let plugins = (0..1000).map(|n| view(&format!("p{n:04}"), Status::Healthy, "fine")).collect();
    let (_, address) = serve(plugins, false);
    let (_, answer) = get(address, "/health");
    let report: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(report["entries"].as_object().unwrap().len(), 1001);
    let (_, answer) = get(address, "/health/plugins");
    let list: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(list["plugins"].as_array().unwrap().len(), 1000);
}

#[test]
fn metrics_have_the_first_set() {
    let (board, address) = serve(vec![view("a", Status::Degraded, "slow")], false);
    board.observe_lateness(Duration::from_millis(3));
    let (code, answer) = get(address, "/metrics");
    assert_eq!(code, 200);
    for line in [
        "windlass_runs_total{plugin=\"a\",outcome=\"Succeeded\"} 0",
        "windlass_run_duration_seconds_bucket{plugin=\"a\",le=\"+Inf\"} 0",
        "windlass_run_duration_seconds_count{plugin=\"a\"} 0",
        "windlass_next_run_timestamp_seconds{plugin=\"a\"} 0",
        "windlass_plugin_status{plugin=\"a\",status=\"Degraded\"} 1",
        "windlass_plugin_status{plugin=\"a\",status=\"Healthy\"} 0",
        "windlass_run_cpu_seconds_total{plugin=\"a\"} 0",
        "windlass_fuel_total{plugin=\"a\"} 0",
        "windlass_live 1",
        "windlass_lateness_seconds_bucket{le=\"0.005\"} 1",
        "windlass_lane_wait_seconds_count 0",
        "# TYPE windlass_skipped_starts_total counter",
        "# TYPE windlass_plugin_info gauge",
        "# TYPE windlass_last_success_timestamp_seconds gauge",
        "windlass_build_info{version=",
        "process_resident_memory_bytes ",
        "process_start_time_seconds 0",
    ] {
        assert!(body(&answer).contains(line), "{line} is not in {answer}");
    }
}
