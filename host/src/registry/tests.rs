//! Asking again what a reference stands for, against a server of a few lines.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop here")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::*;
use crate::artifact::digest_of;

/// Serves one wasm under every tag, and counts the requests.
fn serve(wasm: Arc<Mutex<Vec<u8>>>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut bytes) = (stream.unwrap(), Vec::new());
            while !bytes.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                bytes.extend(byte);
            }
            let line = String::from_utf8(bytes).unwrap().lines().next().unwrap().to_owned();
            let wasm = wasm.lock().unwrap().clone();
            let manifest = manifest_of(&wasm);
            let body = if line.contains("/manifests/") { &manifest } else { &wasm };
            let digest = digest_of(body);
            let head = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ndocker-content-digest: {digest}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let body = if line.starts_with("HEAD ") { &[][..] } else { body };
            told.lock().unwrap().push(line);
            stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        }
    });
    (address, asked)
}

fn manifest_of(wasm: &[u8]) -> Vec<u8> {
    serde_json::json!({
        "schemaVersion": 2,
        "layers": [{ "mediaType": "application/wasm", "digest": digest_of(wasm).to_string(), "size": wasm.len() }],
    })
    .to_string()
    .into_bytes()
}

fn manifest(resolved: Resolved) -> Option<Digest> {
    match resolved {
        Resolved::Unchanged => None,
        Resolved::New(fetched) => Some(fetched.manifest),
    }
}

#[test]
fn a_tag_is_asked_for_again_and_a_digest_never() {
    let wasm = Arc::new(Mutex::new(b"first".to_vec()));
    let (address, asked) = serve(wasm.clone());
    let registry = Registry::new(None, Niceness::among_others().unwrap()).unwrap();
    let reference = Reference::parse(&format!("oci://{address}/a:1")).unwrap();
    let resolve = |known| registry.resolve(&reference, &Keys::default(), known).map(manifest).unwrap();
    let first = digest_of(&manifest_of(b"first"));
    assert_eq!(resolve(None), Some(first));
    asked.lock().unwrap().clear();
    assert_eq!(resolve(Some(first)), None);
    let lines = asked.lock().unwrap().clone();
    assert!(lines.len() == 1 && lines[0].starts_with("HEAD "), "what is known is not fetched again: {lines:?}");

    *wasm.lock().unwrap() = b"second".to_vec();
    let second = digest_of(&manifest_of(b"second"));
    assert_eq!(resolve(Some(first)), Some(second));
    asked.lock().unwrap().clear();
    let fixed = registry.resolve(&reference.at(second), &Keys::default(), Some(second)).unwrap();
    assert_eq!(manifest(fixed), None);
    assert!(asked.lock().unwrap().is_empty(), "a digest is never asked for again");
}

#[test]
fn what_is_unsigned_is_not_even_fetched() {
    let (address, asked) = serve(Arc::new(Mutex::new(b"wasm".to_vec())));
    let registry = Registry::new(None, Niceness::among_others().unwrap()).unwrap();
    let reference = Reference::parse(&format!("oci://{address}/a:1")).unwrap();
    let key = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE97LwYDRMjgLmw30KBfqf3qvxN/r+\n\
               kPQSgtdM6OThfWdGaG3E0jDtdM1wrmQIAWZi8oBDruca5wWFI+O8qHxugQ==\n-----END PUBLIC KEY-----\n";
    let keys = Keys::read(&[key.to_owned()], Path::new("")).unwrap();
    let Err(Fault::Unverified { why, .. }) = registry.load(&reference, &keys) else { panic!("it was taken") };
    assert!(why.contains("has none"), "{why}");
    let blob = format!("/blobs/{}", digest_of(b"wasm"));
    assert!(!asked.lock().unwrap().iter().any(|line| line.contains(&blob)), "{:?}", asked.lock().unwrap());
}

#[test]
fn nobody_there_is_an_outage_and_a_refusal_is_none() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let registry = Registry::new(None, Niceness::among_others().unwrap()).unwrap();
    let reference = Reference::parse(&format!("oci://{free}/a:1")).unwrap();
    let Err(fault) = registry.load(&reference, &Keys::default()) else { panic!("it was there") };
    assert!(fault.is_outage(), "{fault}");
    assert!(!fault::not_allowed("r.io", 401, "a", "").is_outage());
}
