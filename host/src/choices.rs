//! What a host remembers of versions that were chosen, over its own end: a small file in `dataDir` that says which version of a plugin
//! runs instead of what its source holds, so that the next host does the same. The bytes are the store's.
//!
//! A thread of its own writes, since a disk may be slow and the scheduler may not. What cannot be read is logged once and costs the
//! memory, nothing else: then each source decides.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::core::event::Chosen;
use crate::core::name::{Digest, PluginName, VersionNumber};
use crate::memory;
use crate::registry::Store;
use crate::text::shown;

/// The file in `dataDir`.
const FILE: &str = "chosen.json";

/// A larger file than this is not ours.
const MOST_BYTES: u64 = 16 << 20;

/// Of so many plugins at most it is remembered.
const MOST_PLUGINS: usize = 5_000;

/// Of a reason so much is kept.
const REASON_BYTES: usize = 1 << 10;

/// So many wait to be written at most: each is a decision on a version.
const WAITING: usize = 10_000;

type Known = BTreeMap<PluginName, Chosen>;

/// Does something after all that was told before is written.
pub type Then = Box<dyn FnOnce() + Send>;

enum Said {
    Chosen(PluginName, Option<Chosen>),
    Then(Then),
}

/// The memory. Dropping it leaves the thread to write what it was told.
#[derive(Debug)]
pub struct Choices {
    before: Known,
    sender: SyncSender<Said>,
}

impl Choices {
    /// Reads what a host before this one remembered, and starts the thread that writes. A file that is missing or broken is an empty
    /// memory. `store` keeps the bytes of what is chosen, where there is one.
    ///
    /// # Errors
    /// If the thread cannot be spawned.
    pub fn open(data_dir: &Path, store: Option<Arc<Store>>) -> Result<Choices> {
        let path = data_dir.join(FILE);
        let before = read(&path);
        let (sender, receiver) = sync_channel(WAITING);
        let known = before.clone();
        if let Some(store) = &store {
            store.protect(known.values().map(|chosen| chosen.runs.0).collect());
        }
        std::thread::Builder::new()
            .name("choices".to_owned())
            .spawn(move || write_until_closed(&path, known, store.as_deref(), &receiver))
            .context("starting the thread that remembers chosen versions")?;
        Ok(Choices { before, sender })
    }

    /// What a host before this one remembered.
    pub fn before(&self) -> impl Iterator<Item = Chosen> {
        self.before.values().cloned()
    }

    /// Has it written down, or forgotten. Returns at once.
    pub fn remember(&self, plugin: PluginName, chosen: Option<Chosen>) {
        let name = plugin.to_string();
        if self.sender.try_send(Said::Chosen(plugin, chosen)).is_err() {
            tracing::warn!(plugin = name, "a chosen version is not remembered: too many wait to be written");
        }
    }

    /// Does `then` when what was told so far is on disk, or could not be written. At once where too many wait.
    pub fn when_written(&self, then: Then) {
        match self.sender.try_send(Said::Then(then)) {
            Ok(()) => {}
            Err(TrySendError::Full(Said::Then(then)) | TrySendError::Disconnected(Said::Then(then))) => then(),
            Err(TrySendError::Full(Said::Chosen(..)) | TrySendError::Disconnected(Said::Chosen(..))) => {}
        }
    }
}

fn write_until_closed(path: &Path, mut known: Known, store: Option<&Store>, receiver: &Receiver<Said>) {
    while let Ok(said) = receiver.recv() {
        let mut then = Vec::new();
        let mut changed = false;
        let mut next = Some(said);
        while let Some(said) = next {
            match said {
                Said::Chosen(plugin, chosen) => {
                    changed = true;
                    take(&mut known, plugin, chosen);
                }
                Said::Then(done) => then.push(done),
            }
            next = receiver.try_recv().ok();
        }
        if changed {
            if let Some(store) = store {
                store.protect(known.values().map(|chosen| chosen.runs.0).collect());
            }
            if let Err(error) = memory::write(path, &text(&known)) {
                let error = format!("{error:#}");
                tracing::warn!(error, "a chosen version is not remembered: after a restart its source decides");
            }
        }
        then.into_iter().for_each(|then| then());
    }
}

fn take(known: &mut Known, plugin: PluginName, chosen: Option<Chosen>) {
    match chosen {
        None => drop(known.remove(&plugin)),
        Some(_) if known.len() >= MOST_PLUGINS && !known.contains_key(&plugin) => {
            tracing::warn!(
                plugin = plugin.as_str(),
                "a chosen version is not remembered: that is done for {MOST_PLUGINS} plugins"
            );
        }
        Some(chosen) => drop(known.insert(plugin, chosen)),
    }
}

fn text(known: &Known) -> String {
    let version =
        |(digest, number): (Digest, Option<VersionNumber>)| json!({ "digest": digest.to_string(), "number": number });
    let all: BTreeMap<&str, Value> = known
        .iter()
        .map(|(plugin, chosen)| {
            let bad = chosen.bad.as_deref().map(|why| shown(why, REASON_BYTES));
            let said = json!({ "runs": version(chosen.runs), "insteadOf": version(chosen.instead_of), "bad": bad });
            (plugin.as_str(), said)
        })
        .collect();
    json!({ "chosen": all }).to_string()
}

fn read(path: &Path) -> Known {
    match memory::read(path, MOST_BYTES).and_then(|text| text.map_or(Ok(Known::new()), |text| parse(&text))) {
        Ok(known) => known,
        Err(error) => {
            let file = path.display();
            tracing::warn!(%file, error, "what was remembered of chosen versions cannot be read: their sources decide");
            Known::new()
        }
    }
}

/// All or nothing: a file that somebody else wrote, or that was changed, decides nothing.
fn parse(text: &str) -> Result<Known, String> {
    let all: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let all = all["chosen"].as_object().ok_or("it has no `chosen`")?;
    let version = |said: &Value| {
        let number = said["number"].as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
        Some((Digest::parse(said["digest"].as_str()?)?, number.map(VersionNumber)))
    };
    let one = |plugin: &str, said: &Value| {
        let plugin = PluginName::new(plugin).ok()?;
        let (runs, instead_of) = (version(&said["runs"])?, version(&said["insteadOf"])?);
        let bad = match &said["bad"] {
            Value::Null => None,
            Value::String(why) => Some(shown(why, REASON_BYTES)),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => return None,
        };
        (runs.0 != instead_of.0).then_some(Chosen { plugin, runs, instead_of, bad })
    };
    let known = all.iter().map(|(plugin, said)| {
        let chosen =
            one(plugin, said).ok_or_else(|| format!("what it says of `{}` is no choice", shown(plugin, 80)))?;
        Ok((chosen.plugin.clone(), chosen))
    });
    known.take(MOST_PLUGINS).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use std::sync::mpsc::channel;

    use super::*;

    fn chosen(name: &str, bad: Option<&str>) -> Chosen {
        Chosen {
            plugin: PluginName::new(name).unwrap(),
            runs: (Digest([1; 32]), Some(VersionNumber(3))),
            instead_of: (Digest([2; 32]), None),
            bad: bad.map(str::to_owned),
        }
    }

    fn write(choices: &Choices) {
        let (sender, receiver) = channel();
        choices.when_written(Box::new(move || sender.send(()).unwrap()));
        receiver.recv().unwrap();
    }

    #[test]
    fn what_is_written_is_what_the_next_host_reads() {
        let folder = tempfile::tempdir().unwrap();
        let first = Choices::open(folder.path(), None).unwrap();
        assert_eq!(first.before().count(), 0);
        let all = [chosen("a", None), chosen("b", Some("\"quoted\" and\nbroken"))];
        for one in &all {
            first.remember(one.plugin.clone(), Some(one.clone()));
        }
        first.remember(all[0].plugin.clone(), None);
        write(&first);
        let next: Vec<_> = Choices::open(folder.path(), None).unwrap().before().collect();
        assert_eq!(next.len(), 1);
        assert_eq!(
            (&next[0].plugin, next[0].runs, next[0].instead_of),
            (&all[1].plugin, all[1].runs, all[1].instead_of)
        );
        assert!(next[0].bad.as_deref().unwrap().contains("quoted"));
    }

    #[test]
    fn a_damaged_cut_or_foreign_file_is_an_empty_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let known: Known = [chosen("a", None), chosen("b", None)].map(|one| (one.plugin.clone(), one)).into();
        let whole = text(&known);
        assert_eq!(parse(&whole).unwrap(), known);
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(read(&path).is_empty(), "{cut} bytes of it");
        }
        let digest = Digest([1; 32]).to_string();
        for foreign in [
            "null",
            "[]",
            "{\"chosen\":3}",
            "\u{0}",
            &whole.replace("sha256", "sha512"),
            &whole.replace("\"a\"", "\"A B\""),
            &whole.replace("\"bad\":null", "\"bad\":[]"),
            &whole.replace(&Digest([2; 32]).to_string(), &digest),
        ] {
            std::fs::write(&path, foreign).unwrap();
            assert!(read(&path).is_empty(), "{foreign}");
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read(&path).is_empty());
        std::fs::File::create(&path).unwrap().set_len(MOST_BYTES + 1).unwrap();
        assert!(read(&path).is_empty());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(read(&path).is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_written_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let choices = Choices::open(&folder.path().join("is/not/there"), None).unwrap();
        choices.remember(PluginName::new("a").unwrap(), Some(chosen("a", None)));
        write(&choices);
    }
}
