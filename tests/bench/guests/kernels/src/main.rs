//! Five kernels of real code, chosen by the first argument: sort, json, regex, sha256, lz4.

use sha2::Digest as _;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let kernel = arguments.next().unwrap_or_default();
    let rounds: u32 = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let text = text(64 << 10);
    let mut sum = 0_u64;
    for round in 0..rounds {
        sum = sum.wrapping_add(match kernel.as_str() {
            "sort" => sort(round),
            "json" => json(&text),
            "regex" => regex(&text),
            "sha256" => sha2::Sha256::digest(text.as_bytes())[0].into(),
            "lz4" => lz4(&text),
            other => panic!("there is no kernel {other}"),
        });
    }
    println!("{sum}");
}

/// Pseudo-random words that look like a log.
fn text(bytes: usize) -> String {
    let words = ["error", "order 4711", "user@example.com", "2026-01-31T08:00:00Z", "10.0.0.1", "retry", "ok", "timeout"];
    let mut state = 7_u32;
    let mut text = String::new();
    while text.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.push_str(words[(state >> 24) as usize % words.len()]);
        text.push(if state & 64 == 0 { ' ' } else { '\n' });
    }
    text
}

fn sort(seed: u32) -> u64 {
    let mut state = seed;
    let mut numbers: Vec<u32> = (0..50_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state
        })
        .collect();
    numbers.sort_unstable();
    numbers[25_000].into()
}

fn json(text: &str) -> u64 {
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::json!({ "line": line, "length": line.len(), "tags": ["a", 1, null] })).collect();
    let written = serde_json::to_string(&lines).unwrap_or_default();
    let read: serde_json::Value = serde_json::from_str(&written).unwrap_or_default();
    read.as_array().map_or(0, Vec::len) as u64
}

fn regex(text: &str) -> u64 {
    let pattern = regex::Regex::new(r"(?m)(\w+)@(\w+)\.com|(\d{4})-(\d\d)-(\d\d)T|order (\d+)").expect("the pattern is right");
    pattern.captures_iter(text).filter_map(|found| found.get(0)).map(|found| found.len() as u64).sum()
}

fn lz4(text: &str) -> u64 {
    let packed = lz4_flex::compress_prepend_size(text.as_bytes());
    let unpacked = lz4_flex::decompress_size_prepended(&packed).unwrap_or_default();
    (packed.len() + unpacked.len()) as u64
}
