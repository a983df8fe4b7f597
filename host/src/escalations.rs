//! What a host remembers of escalations over its own end: a small file in `dataDir`, so that the pod of a plugin that fails in every
//! new process is not restarted in a loop.
//!
//! A thread of its own writes, since a disk may be slow and the scheduler may not. What cannot be read or written is logged and
//! costs the memory, nothing else.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context, Result};

use crate::core::event::Escalated;
use crate::core::name::{Digest, PluginName};
use crate::core::time::Timestamp;
use crate::memory;

/// The file in `dataDir`.
const FILE: &str = "escalations.json";

/// A larger file than this is not ours.
const MOST_BYTES: u64 = 4 << 20;

/// So many wait to be written at most: each plugin escalates at most every `escalateEverySeconds`.
const WAITING: usize = 1_000;

/// The memory. Dropping it leaves the thread to write what it was told.
#[derive(Debug)]
pub struct Escalations {
    before: Vec<Escalated>,
    sender: SyncSender<Escalated>,
}

impl Escalations {
    /// Reads what a host before this one remembered, and starts the thread that writes. A file that is missing or broken is an empty
    /// memory.
    ///
    /// # Errors
    /// If the thread cannot be spawned.
    pub fn open(data_dir: &Path) -> Result<Escalations> {
        let path = data_dir.join(FILE);
        let before = read(&path);
        let (sender, receiver) = sync_channel(WAITING);
        let known: BTreeMap<PluginName, Escalated> =
            before.iter().map(|one| (one.plugin.clone(), one.clone())).collect();
        std::thread::Builder::new()
            .name("escalations".to_owned())
            .spawn(move || write_until_closed(&path, known, &receiver))
            .context("starting the thread that remembers escalations")?;
        Ok(Escalations { before, sender })
    }

    /// What a host before this one remembered.
    pub fn before(&self) -> impl Iterator<Item = Escalated> {
        self.before.iter().cloned()
    }

    /// Has it written down. Returns at once.
    pub fn remember(&self, escalated: Escalated) {
        let plugin = escalated.plugin.clone();
        if self.sender.try_send(escalated).is_err() {
            tracing::warn!(plugin = plugin.as_str(), "an escalation is not remembered: too many wait to be written");
        }
    }
}

fn write_until_closed(path: &Path, mut known: BTreeMap<PluginName, Escalated>, receiver: &Receiver<Escalated>) {
    while let Ok(escalated) = receiver.recv() {
        known.insert(escalated.plugin.clone(), escalated);
        while let Ok(more) = receiver.try_recv() {
            known.insert(more.plugin.clone(), more);
        }
        if let Err(error) = memory::write(path, &text(known.values())) {
            let error = format!("{error:#}");
            tracing::warn!(error, "an escalation is not remembered: a restart may be asked for again too soon");
        }
    }
}

fn text<'a>(known: impl Iterator<Item = &'a Escalated>) -> String {
    let all: BTreeMap<&str, _> = known
        .map(|one| {
            let said = serde_json::json!({ "digest": one.digest.to_string(), "at": one.at.to_string() });
            (one.plugin.as_str(), said)
        })
        .collect();
    serde_json::json!({ "escalated": all }).to_string()
}

fn read(path: &Path) -> Vec<Escalated> {
    match memory::read(path, MOST_BYTES).and_then(|text| text.map_or(Ok(Vec::new()), |text| parse(&text))) {
        Ok(before) => before,
        Err(error) => {
            tracing::warn!(file = %path.display(), error, "what was remembered of escalations cannot be read: it is forgotten");
            Vec::new()
        }
    }
}

fn parse(text: &str) -> Result<Vec<Escalated>, String> {
    let all: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Some(all) = all["escalated"].as_object() else { return Err("it has no `escalated`".to_owned()) };
    // One that is no good is no reason to forget the others.
    let good = all.iter().filter_map(|(plugin, said)| {
        let plugin = PluginName::new(plugin).ok()?;
        let digest = Digest::parse(said["digest"].as_str()?)?;
        let at: Timestamp = said["at"].as_str()?.parse().ok()?;
        Some(Escalated { plugin, digest, at })
    });
    Ok(good.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use std::fs;

    use super::*;

    fn escalated(name: &str, digest: u8) -> Escalated {
        let at = "2026-01-01T00:00:00.123Z".parse().unwrap();
        Escalated { plugin: PluginName::new(name).unwrap(), digest: Digest([digest; 32]), at }
    }

    #[test]
    fn what_is_written_is_read_and_half_a_file_is_never_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let all = vec![escalated("a", 1), escalated("b", 0xab)];
        memory::write(&path, &text(all.iter())).unwrap();
        assert_eq!(read(&path), all);
        assert!(!path.with_extension("json.new").exists());
    }

    #[test]
    fn a_missing_or_broken_file_is_an_empty_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(read(&path), []);
        for broken in ["", "{", "[]", "null", "{\"escalated\": 3}", "\u{0}\u{1}", "{\"escalated\":{\"a\":{\"at\":7}}}"]
        {
            fs::write(&path, broken).unwrap();
            assert_eq!(read(&path), [], "{broken}");
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(read(&path), []);
        fs::File::create(&path).unwrap().set_len(MOST_BYTES + 1).unwrap();
        assert_eq!(read(&path), []);
        let one_is_good =
            r#"{"escalated":{"A B":{},"good":{"digest":"sha256:DIGEST","at":"2026-01-01T00:00:00.123Z"}}}"#;
        fs::write(&path, one_is_good.replace("DIGEST", &"01".repeat(32))).unwrap();
        assert_eq!(read(&path), [escalated("good", 1)]);
    }
}
