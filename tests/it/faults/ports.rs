//! What clients can do to the health port while a kubelet probes it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use windlass_tests::{Host, Scene};

use super::How::Scene as By;
use super::runner::{self, Bystanders};
use super::{Row, crowds, rows};

const fn row(fault: &'static str, well_within_s: u64, scene: fn(&Row)) -> Row {
    Row {
        fault,
        outcome: None,
        status: "Healthy",
        reason: None,
        well_within: Duration::from_secs(well_within_s),
        how: By(scene),
    }
}

rows! {
    slowloris: row("slowloris: 300 clients that send a byte now and then", 3, slowloris);
    idle_connections: row("10,000 idle connections", 3, idle_connections);
    oversize_headers: row("requests with a megabyte of headers", 2, oversize_headers);
    garbage: row("garbage instead of HTTP", 2, garbage);
}

fn start() -> (Host, Bystanders) {
    let host = runner::launch(Scene::new(), &[], "", "");
    host.wait_until_ready();
    let bystanders = Bystanders::watch(&host);
    (host, bystanders)
}

/// Everything is as before, in time.
fn end(row: &Row, host: &Host, bystanders: Bystanders) {
    let began = Instant::now();
    let entry = &host.json("/health")["entries"]["windlass"];
    assert_eq!(entry["status"], row.status, "{entry}");
    assert!(began.elapsed() < row.well_within);
    bystanders.go_on_for(Duration::from_secs(1));
    bystanders.were_punctual(host);
}

fn slowloris(row: &Row) {
    let (host, bystanders) = start();
    let mut clients: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(host.address()).unwrap()).collect();
    let mut cut_off = 0;
    for byte in b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nx: ".iter().cycle().take(60) {
        for client in &mut clients {
            cut_off += usize::from(client.write_all(&[*byte]).is_err());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(cut_off > 0, "nobody was cut off after the time that a head may take");
    end(row, &host, bystanders);
}

fn idle_connections(row: &Row) {
    const MANY: usize = 10_000;
    let _machine = crowds::alone();
    raise_descriptor_limit(MANY as u64 + 1_000);
    let (host, bystanders) = start();
    let began = Instant::now();
    let clients: Vec<TcpStream> = (0..MANY)
        .map(|number| TcpStream::connect(host.address()).unwrap_or_else(|error| panic!("connection {number}: {error}")))
        .collect();
    eprintln!("{}: there after {:?}", row.fault, began.elapsed());
    bystanders.go_on_for(Duration::from_secs(2));
    end(row, &host, bystanders);
    drop(clients);
}

fn oversize_headers(row: &Row) {
    let (host, bystanders) = start();
    for _ in 0..20 {
        let mut client = TcpStream::connect(host.address()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // It may be cut off before it has sent everything.
        let _ = client.write_all(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nx: ");
        let _ = client.write_all(&vec![b'x'; 1 << 20]);
        let _ = client.write_all(b"\r\n\r\n");
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    end(row, &host, bystanders);
}

fn garbage(row: &Row) {
    let (host, bystanders) = start();
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..50 {
        let bytes: Vec<u8> = (0..4_096)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        let mut client = TcpStream::connect(host.address()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let _ = client.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    end(row, &host, bystanders);
}

fn raise_descriptor_limit(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
            .unwrap_or_else(|error| panic!("this test needs {wanted} descriptors (ulimit -n): {error}"));
    }
}
