//! Artifacts on disk, by digest, and what each reference last stood for: so that a pod starts while its registry is down.
//!
//! Nothing here is trusted when it is read back: bytes are held against their digest, signatures are checked again.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::reference::Reference;
use crate::artifact::{ARTIFACT_BYTES, digest_of};
use crate::core::name::Digest;
use crate::verify::Signature;

/// What all artifacts may take together. Those that no reference stands for go first, then those of references that nobody asked for
/// in the longest time; what was just kept stays.
const KEPT_BYTES: u64 = 2 << 30;
const RECORD_BYTES: u64 = 32 << 20;

/// A folder of artifacts, for this user alone.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    most_bytes: u64,
    next: AtomicU64,
}

/// A file with when it was last written, or asked for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

/// What a reference stood for when the registry was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) manifest: Vec<u8>,
    pub(super) media_type: String,
    pub(super) signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    reference: String,
    manifest: String,
    media_type: String,
    layer: String,
    signatures: Vec<RecordedSignature>,
}

#[derive(Serialize, Deserialize)]
enum RecordedSignature {
    Simple { payload: String, signature: String },
    Bundle { bundle: String },
}

impl Store {
    /// Opens the folder `artifacts` in `data_dir`, making it where it is missing. What a host that died left half-written goes.
    pub(super) fn open(data_dir: &Path) -> Result<Store> {
        let folder = data_dir.join("artifacts");
        let doing = || format!("preparing {}", folder.display());
        for part in [folder.clone(), folder.join("blobs"), folder.join("references")] {
            fs::create_dir_all(&part).with_context(doing)?;
            fs::set_permissions(&part, fs::Permissions::from_mode(0o700)).with_context(doing)?;
        }
        for entry in fs::read_dir(&folder).with_context(doing)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("new-") {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Store { folder, most_bytes: KEPT_BYTES, next: AtomicU64::new(0) })
    }

    /// Bytes by their digest, if they are there and unharmed.
    pub(super) fn blob(&self, digest: Digest) -> Option<Vec<u8>> {
        let path = self.blob_path(&digest.hex());
        let bytes = read(&path, ARTIFACT_BYTES)?;
        if digest_of(&bytes) == digest {
            return Some(bytes);
        }
        tracing::warn!(file = %path.display(), "a kept artifact is damaged, and is fetched again");
        let _ = fs::remove_file(path);
        None
    }

    /// Keeps bytes, and what a reference stands for.
    pub(super) fn keep(&self, reference: &Reference, layer: Digest, bytes: &[u8], kept: &Kept) -> Result<()> {
        let blob = self.blob_path(&layer.hex());
        if !blob.exists() {
            self.write(&blob, bytes)?;
        }
        let signatures = kept.signatures.iter().map(|signature| match signature {
            Signature::Simple { payload, signature } => {
                RecordedSignature::Simple { payload: STANDARD.encode(payload), signature: signature.clone() }
            }
            Signature::Bundle { bundle } => RecordedSignature::Bundle { bundle: STANDARD.encode(bundle) },
        });
        let record = Record {
            reference: reference.to_string(),
            manifest: STANDARD.encode(&kept.manifest),
            media_type: kept.media_type.clone(),
            layer: layer.hex(),
            signatures: signatures.collect(),
        };
        let text = serde_json::to_vec(&record).context("writing down what a reference stands for")?;
        let path = self.record_path(reference);
        self.write(&path, &text)?;
        self.prune(&path)
    }

    /// What a reference stood for; none if nothing was kept or it cannot be read.
    pub(super) fn kept(&self, reference: &Reference) -> Option<Kept> {
        let path = self.record_path(reference);
        let record = record(&path).filter(|record| record.reference == reference.to_string())?;
        self.is_used(reference);
        let signature = |signature: RecordedSignature| match signature {
            RecordedSignature::Simple { payload, signature } => {
                Some(Signature::Simple { payload: STANDARD.decode(payload).ok()?, signature })
            }
            RecordedSignature::Bundle { bundle } => Some(Signature::Bundle { bundle: STANDARD.decode(bundle).ok()? }),
        };
        Some(Kept {
            manifest: STANDARD.decode(record.manifest).ok()?,
            media_type: record.media_type,
            signatures: record.signatures.into_iter().filter_map(signature).collect(),
        })
    }

    /// Notes that a reference is in use, so that others go first. Where that cannot be noted, nothing is lost.
    pub(super) fn is_used(&self, reference: &Reference) {
        let record = File::options().append(true).open(self.record_path(reference));
        let _ = record.and_then(|record| record.set_modified(SystemTime::now()));
    }

    fn blob_path(&self, hex: &str) -> PathBuf {
        self.folder.join("blobs").join(hex)
    }

    fn record_path(&self, reference: &Reference) -> PathBuf {
        self.folder.join("references").join(digest_of(reference.to_string().as_bytes()).hex())
    }

    /// Writes a file so that it is there whole or not at all.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let new = self.folder.join(format!("new-{}-{number}", std::process::id()));
        let written = File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&new, path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written.with_context(|| format!("keeping an artifact in {}", path.display()))
    }

    /// Removes artifacts down to the limit, but not that of the record at `newest`.
    fn prune(&self, newest: &Path) -> Result<()> {
        let mut blobs = self.entries("blobs")?;
        let mut total: u64 = blobs.iter().map(|blob| blob.bytes).sum();
        if total <= self.most_bytes {
            return Ok(());
        }
        let mut records: Vec<_> = self.entries("references")?.into_iter().map(|entry| entry.path).collect();
        // The first to go is asked for last.
        records.retain(|path| path != newest);
        records.push(newest.to_owned());
        let mut records: VecDeque<_> = records.into_iter().map(|path| (record(&path), path)).collect();
        loop {
            let is_in_use = |blob: &Entry| {
                records
                    .iter()
                    .any(|(record, _)| record.as_ref().is_some_and(|record| self.blob_path(&record.layer) == blob.path))
            };
            blobs.retain(|blob| {
                let goes = total > self.most_bytes && !is_in_use(blob) && fs::remove_file(&blob.path).is_ok();
                total -= if goes { blob.bytes } else { 0 };
                !goes
            });
            if total <= self.most_bytes || records.len() <= 1 {
                return Ok(());
            }
            let Some((_, path)) = records.pop_front() else { return Ok(()) };
            let _ = fs::remove_file(path);
        }
    }

    /// What is in one of the folders, the longest unused first.
    fn entries(&self, part: &str) -> Result<Vec<Entry>> {
        let folder = self.folder.join(part);
        let found = fs::read_dir(&folder).with_context(|| format!("looking through {}", folder.display()))?;
        let entry = |entry: fs::DirEntry| {
            let about = entry.metadata().ok()?;
            Some(Entry { used: about.modified().ok()?, bytes: about.len(), path: entry.path() })
        };
        let mut entries: Vec<_> = found.flatten().filter_map(entry).collect();
        entries.sort();
        Ok(entries)
    }
}

fn record(path: &Path) -> Option<Record> {
    serde_json::from_slice(&read(path, RECORD_BYTES)?).ok()
}

/// Reads a plain file of at most so many bytes.
fn read(path: &Path, most_bytes: u64) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    let about = file.metadata().ok()?;
    if !about.is_file() || about.len() > most_bytes {
        return None;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or(0));
    file.take(most_bytes).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    fn kept() -> Kept {
        Kept {
            manifest: b"{}".to_vec(),
            media_type: "m".to_owned(),
            signatures: vec![
                Signature::Simple { payload: vec![1, 2], signature: "s".to_owned() },
                Signature::Bundle { bundle: vec![3] },
            ],
        }
    }

    #[test]
    fn what_is_kept_comes_back_and_what_was_changed_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let reference = Reference::parse("oci://h.io/a:1").unwrap();
        let digest = digest_of(b"bytes");
        assert_eq!(store.kept(&reference), None);
        store.keep(&reference, digest, b"bytes", &kept()).unwrap();
        assert_eq!(store.kept(&reference), Some(kept()));
        assert_eq!(store.blob(digest).unwrap(), b"bytes");
        assert_eq!(store.kept(&Reference::parse("oci://h.io/a:2").unwrap()), None);
        let path = store.blob_path(&digest.hex());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, b"other").unwrap();
        assert_eq!(store.blob(digest), None);
        assert!(!path.exists(), "what is damaged is fetched again");
        store.keep(&reference, digest, b"bytes", &kept()).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(4).unwrap();
        assert_eq!(store.blob(digest), None, "cut short");
        assert!(!path.exists());
        fs::write(store.record_path(&reference), b"{").unwrap();
        assert_eq!(store.kept(&reference), None);
    }

    #[test]
    fn what_a_dead_host_left_half_written_goes() {
        let folder = tempfile::tempdir().unwrap();
        Store::open(folder.path()).unwrap();
        let half = folder.path().join("artifacts/new-1-0");
        fs::write(&half, b"half").unwrap();
        Store::open(folder.path()).unwrap();
        assert!(!half.exists());
    }

    #[test]
    fn artifacts_go_when_there_are_too_many_first_those_that_nobody_asks_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store { most_bytes: 300, ..Store::open(folder.path()).unwrap() };
        let reference = |tag: u8| Reference::parse(&format!("oci://h.io/a:{tag}")).unwrap();
        let digest = |content: u8| digest_of(&[content; 100]);
        let keep =
            |tag: u8, content: u8| store.keep(&reference(tag), digest(content), &[content; 100], &kept()).unwrap();
        let long_ago = |path: &Path, seconds: u64| {
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            File::options().append(true).open(path).unwrap().set_modified(at).unwrap();
        };
        let there = || [1, 2, 3, 4, 5].map(|content| store.blob(digest(content)).is_some());
        keep(1, 1);
        // The tag moves: nothing stands for the first content any more.
        keep(1, 2);
        keep(2, 3);
        assert_eq!(there(), [true, true, true, false, false]);
        keep(3, 4);
        assert_eq!(there(), [false, true, true, true, false], "what no reference stands for");
        for tag in 1..=3 {
            long_ago(&store.record_path(&reference(tag)), u64::from(tag));
        }
        assert!(store.kept(&reference(1)).is_some(), "the oldest is asked for");
        keep(4, 5);
        assert_eq!(there(), [false, true, false, true, true], "what was not asked for in the longest time");
        assert!(store.kept(&reference(2)).is_none() && store.kept(&reference(4)).is_some());
        // One that is larger than all that may be kept stays alone.
        let large = digest_of(&[9; 400]);
        store.keep(&reference(5), large, &[9; 400], &kept()).unwrap();
        assert_eq!((there(), store.blob(large).is_some()), ([false; 5], true));
    }
}
