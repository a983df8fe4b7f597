//! Debian's docker-registry, started on a free port of this machine and ended with the test; and a client that says what it sends.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::digest;

/// A registry that runs. Killed when it is dropped.
pub struct Registry {
    child: Child,
    pub address: String,
    folder: TempDir,
}

impl Registry {
    /// Starts one; none, said loudly, where Debian's docker-registry is missing.
    pub fn start() -> Option<Registry> {
        Registry::start_with(tempfile::tempdir().unwrap(), "127.0.0.1:0", "", "")
    }

    /// The same with more of its configuration: under `http`, and at its top.
    pub fn start_with(folder: TempDir, address: &str, http: &str, top: &str) -> Option<Registry> {
        let storage = folder.path().join("storage");
        let config = folder.path().join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{ accesslog: {{ disabled: true }} }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\n\
             http:\n  addr: {address}\n{http}{top}",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let started = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = started else {
            eprintln!("!! SKIPPED: docker-registry is missing (Debian: apt-get install docker-registry)");
            return None;
        };
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = lines.by_ref().map(Result::unwrap).find_map(|line| {
            let rest = line.split("listening on ").nth(1)?;
            Some(rest.split(['"', ',', ' ']).next()?.to_owned())
        });
        let address = listening.expect("the registry does not say where it listens");
        // Read on, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Registry { child, address, folder })
    }

    /// Ends it, and returns what it stored.
    pub fn stop(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// A reference into it.
    pub fn at(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.address)
    }

    /// Uploads a blob by the registry's own API.
    pub fn blob(&self, repository: &str, bytes: &[u8]) -> Value {
        let begun = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]);
        assert!(begun.starts_with("HTTP/1.1 202"), "{begun}");
        let location = begun.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim();
        let path = location.split_once(&self.address).map_or(location, |(_, path)| path);
        let done = self.send("PUT", &format!("{path}&digest={}", digest(bytes)), "application/octet-stream", bytes);
        assert!(done.starts_with("HTTP/1.1 201"), "{done}");
        json!({ "digest": digest(bytes), "size": bytes.len() })
    }

    /// Uploads a manifest by the registry's own API, and returns its digest.
    pub fn manifest(&self, repository: &str, tag: &str, manifest: &Value) -> String {
        let bytes = manifest.to_string().into_bytes();
        let media_type = manifest["mediaType"].as_str().unwrap();
        let done = self.send("PUT", &format!("/v2/{repository}/manifests/{tag}"), media_type, &bytes);
        assert!(done.starts_with("HTTP/1.1 201"), "{done}");
        digest(&bytes)
    }

    /// Reads a manifest as it is stored.
    pub fn stored(&self, repository: &str, tag: &str) -> Value {
        let accept = "application/vnd.oci.image.manifest.v1+json";
        let answer = self.send("GET", &format!("/v2/{repository}/manifests/{tag}"), accept, &[]);
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    }

    /// Reads a blob of text.
    pub fn text(&self, repository: &str, digest: &str) -> String {
        let answer = self.send("GET", &format!("/v2/{repository}/blobs/{digest}"), "", &[]);
        answer.split("\r\n\r\n").nth(1).unwrap().to_owned()
    }

    fn send(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\naccept: {media_type}\r\ncontent-type: {media_type}\r\n\
             content-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// OpenSSL's command, which makes keys, certificates and signatures here: not the library that checks them.
pub fn openssl(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
