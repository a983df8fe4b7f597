//! Guests that tell which version they are, at the begin and at the end of each run, by their code and by their manifest; and what a
//! host's log says of their runs.

use std::collections::BTreeMap;

use serde_json::Value;

/// What such a guest does between its two lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// Nothing.
    Nothing,
    /// Some work, of about a millisecond.
    Works,
    /// Traps.
    Traps,
    /// Never comes to its end.
    Spins,
}

/// A guest that tells its version: at most six digits.
pub fn telling(version: u32, between: Between) -> Vec<u8> {
    let between = match between {
        Between::Nothing => "",
        Between::Works => {
            "(local.set 0 (i32.const 500000))
             (loop $again (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))"
        }
        Between::Traps => "(unreachable)",
        Between::Spins => "(loop $again (br $again))",
    };
    let text = format!(
        r#"(module
          (@custom "windlass:manifest" "{{\"abi\":\"0.1.0\",\"plugin\":{{\"args\":[\"{version:06}\"]}}}}")
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 100) "begin {version:06}\n")
          (data (i32.const 200) "end {version:06}/")
          (func $say (param $at i32) (param $bytes i32)
            (i32.store (i32.const 0) (local.get $at))
            (i32.store (i32.const 4) (local.get $bytes))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))))
          (func (export "_start") (local i32)
            (call $say (i32.const 100) (i32.const 13))
            {between}
            (drop (call $args (i32.const 1000) (i32.const 1100)))
            (memory.copy (i32.const 211) (i32.load (i32.const 1004)) (i32.const 6))
            (i32.store8 (i32.const 217) (i32.const 10))
            (call $say (i32.const 200) (i32.const 18))))"#
    );
    wat::parse_str(text).unwrap()
}

/// What the log says of one run: each of these is told once if all is well.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// Whose.
    pub plugin: String,
    /// Its code's version, when it began.
    pub begins: Vec<u32>,
    /// Its code's version and its manifest's, when it was through.
    pub ends: Vec<(u32, u32)>,
    /// The outcome, and the number of the version that the host says it ran on.
    pub outcomes: Vec<(String, u32)>,
}

impl Told {
    /// Whether it saw two versions: by its code, by its manifest, or by what `number` the host gave to the version that it began on.
    pub fn is_mixed(&self, number: impl Fn(u32) -> Option<u32>) -> bool {
        let Some(begin) = self.begins.first() else { return false };
        self.ends.iter().any(|(code, manifest)| code != begin || manifest != begin)
            || self.outcomes.iter().any(|(_, said)| number(*begin).is_some_and(|number| number != *said))
    }
}

/// Sorts a host's log by run. Guests' lines must be those of [`telling`].
pub fn told<'a>(lines: impl IntoIterator<Item = &'a Value>) -> BTreeMap<u64, Told> {
    let mut runs: BTreeMap<u64, Told> = BTreeMap::new();
    for line in lines {
        let (Some(run), Some(plugin)) = (line["run"].as_u64(), line["plugin"].as_str()) else { continue };
        let message = line["message"].as_str().unwrap_or_default();
        let number = |text: &str| text.parse::<u32>().unwrap_or_else(|_| panic!("what is {line}?"));
        let is_ours = message == "run ended" || message.starts_with("begin ") || message.starts_with("end ");
        if !is_ours {
            continue;
        }
        let told = runs.entry(run).or_default();
        told.plugin = plugin.to_owned();
        if let Some(version) = message.strip_prefix("begin ") {
            told.begins.push(number(version));
        } else if let Some((code, manifest)) = message.strip_prefix("end ").and_then(|rest| rest.split_once('/')) {
            told.ends.push((number(code), number(manifest)));
        } else if message == "run ended" {
            let version = line["version"].as_u64().and_then(|version| u32::try_from(version).ok());
            told.outcomes.push((line["outcome"].as_str().unwrap().to_owned(), version.unwrap()));
        }
    }
    runs
}
