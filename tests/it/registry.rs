//! Plugins from registries: a real one that is started here, and fakes that answer as badly as a script says.

mod counterparts;
mod fake;
mod fakes;
mod real;
mod referrers;
mod refresh;
mod round_trip;
mod secure;
mod signed;
mod tokens;

use std::process::Output;
use std::time::Instant;

use base64::Engine as _;
use sha2::{Digest as _, Sha256};
use windlass_tests::Scene;

/// `sha256:…` of some bytes.
fn digest(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    Sha256::digest(bytes).iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
    text
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Runs a command that must end well, and returns what it printed.
#[track_caller]
fn good(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Pulls what must not come, and checks exit code, words, and that it did not take for ever.
#[track_caller]
fn not_pulled(reference: &str, most_seconds: u64, said: &[&str]) {
    let scene = Scene::new();
    let began = Instant::now();
    let output = scene.windlass(&["pull", reference, "-o", "out.wasm"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(!scene.path().join("out.wasm").exists(), "nothing is written");
    assert_eq!(text.trim().lines().count(), 1, "one line: {text}");
    for part in said {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    let took = began.elapsed().as_secs();
    assert!(took <= most_seconds, "it took {took} s: {text}");
}
