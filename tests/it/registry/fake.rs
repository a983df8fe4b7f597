//! A server that answers as a function says, with or without TLS; and a proxy that leads every CONNECT to it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::digest;

/// A request: its first line and headers as one text, and its body.
#[derive(Debug, Clone)]
pub struct Request {
    pub head: String,
    pub body: String,
}

/// What to answer; nothing at all closes the connection.
pub type Script = dyn Fn(&Request) -> Vec<u8> + Send + Sync;

/// A server that runs. It ends when it is dropped.
pub struct Fake {
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    script: Arc<Mutex<Arc<Script>>>,
    ends: Arc<AtomicBool>,
}

impl Fake {
    /// Answers in the clear.
    pub fn start(script: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Fake {
        Fake::serve(script, None)
    }

    /// Answers by TLS, with the certificate and key of a folder.
    pub fn start_secure(folder: &Path, script: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Fake {
        let read = |name: &str| fs::read(folder.join(name)).unwrap();
        let certificate = CertificateDer::from_pem_slice(&read("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(&read("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Fake::serve(script, Some(Arc::new(config)))
    }

    fn serve(
        script: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Fake {
        let script: Arc<Mutex<Arc<Script>>> = Arc::new(Mutex::new(Arc::new(script)));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (known, told) = (script.clone(), requests.clone());
        let (address, ends) = accept(move |stream| {
            let script = known.lock().unwrap().clone();
            match &tls {
                None => answer(stream, &*script, &told),
                Some(config) => {
                    let connection = rustls::ServerConnection::new(config.clone()).unwrap();
                    answer(rustls::StreamOwned::new(connection, stream), &*script, &told);
                }
            }
        });
        Fake { address, requests, script, ends }
    }

    /// Answers otherwise from now on.
    pub fn change(&self, script: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// A reference into it.
    pub fn at(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.address)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        end(&self.address, &self.ends);
    }
}

/// A proxy that runs. It ends when it is dropped.
pub struct Proxy {
    pub address: String,
    /// The hosts that it was asked to lead to.
    pub asked: Arc<Mutex<Vec<String>>>,
    ends: Arc<AtomicBool>,
}

impl Proxy {
    /// Leads every CONNECT to one address.
    pub fn to(upstream: &str) -> Proxy {
        let upstream = upstream.to_owned();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let told = asked.clone();
        let (address, ends) = accept(move |mut stream| {
            let Some(request) = read_request(&mut stream) else { return };
            let host = request.head.split(' ').nth(1).unwrap_or_default().to_owned();
            told.lock().unwrap().push(host);
            let Ok(mut there) = TcpStream::connect(&upstream) else { return };
            if stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").is_err() {
                return;
            }
            let (mut from, mut to) = (stream.try_clone().unwrap(), there.try_clone().unwrap());
            let back = std::thread::spawn(move || {
                let _ = std::io::copy(&mut there, &mut stream);
                let _ = stream.shutdown(std::net::Shutdown::Both);
            });
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
            let _ = back.join();
        });
        Proxy { address, asked, ends }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        end(&self.address, &self.ends);
    }
}

/// Accepts until it is told to end, each connection on a thread of its own.
fn accept(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let ends = Arc::new(AtomicBool::new(false));
    let (told, serve) = (ends.clone(), Arc::new(serve));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if told.load(Ordering::Acquire) {
                return;
            }
            let Ok(stream) = stream else { continue };
            // Longer than any client here waits.
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    (address, ends)
}

fn end(address: &str, ends: &AtomicBool) {
    ends.store(true, Ordering::Release);
    let _ = TcpStream::connect(address);
}

fn answer(mut stream: impl Read + Write, script: &Script, told: &Mutex<Vec<Request>>) {
    let Some(request) = read_request(&mut stream) else { return };
    told.lock().unwrap().push(request.clone());
    let bytes = script(&request);
    let _ = stream.write_all(&bytes);
    let _ = stream.flush();
}

fn read_request(stream: &mut impl Read) -> Option<Request> {
    let mut bytes = Vec::new();
    let head = loop {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n\r\n") {
            break String::from_utf8_lossy(&bytes).into_owned();
        }
    };
    let length =
        head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some(Request { head, body: String::from_utf8_lossy(&body).into_owned() })
}

/// An answer with a body.
pub fn respond(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n", body.len());
    [head.into_bytes(), body.to_vec()].concat()
}

/// A manifest in the CNCF's layout for these bytes.
pub fn manifest_of(wasm: &[u8]) -> Vec<u8> {
    let (layer, config) = (digest(wasm), digest(b"{}"));
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.wasm.config.v0+json","digest":"{config}","size":2}},"layers":[{{"mediaType":"application/wasm","digest":"{layer}","size":{}}}]}}"#,
        wasm.len()
    )
    .into_bytes()
}

/// Answers as a good registry that holds this one wasm.
pub fn serve_wasm(request: &Request, wasm: &[u8]) -> Vec<u8> {
    let manifest = "content-type: application/vnd.oci.image.manifest.v1+json\r\n";
    if request.head.contains("/manifests/1 ") {
        respond("200 OK", manifest, &manifest_of(wasm))
    } else if request.head.contains(&digest(wasm)) {
        respond("200 OK", "content-type: application/octet-stream\r\n", wasm)
    } else {
        respond("404 Not Found", "", b"")
    }
}
