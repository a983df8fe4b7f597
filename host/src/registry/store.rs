//! Artifacts on disk, by digest, what each reference last stood for, and how each artifact was signed: so that a pod starts while its
//! registry is down, and an older version can run again that its source does not hold any more.
//!
//! Nothing here is trusted when it is read back: bytes are held against their digest, signatures are checked again.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW};
use serde::{Deserialize, Serialize};

use super::reference::Reference;
use crate::artifact::{ARTIFACT_BYTES, digest_of};
use crate::core::name::Digest;
use crate::verify::{self, Keys, Signature};

/// What all artifacts may take together. Those that no reference stands for go first, then those of references that nobody asked for
/// in the longest time; what was just kept and what was chosen stays.
const KEPT_BYTES: u64 = 2 << 30;
const RECORD_BYTES: u64 = 32 << 20;
const SIGNATURE_BYTES: u64 = 64 << 10;

/// A folder of artifacts, for this user alone.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    next: AtomicU64,
    /// What all artifacts take, as far as is known.
    bytes: AtomicU64,
    most_bytes: u64,
    /// What stays, whatever all take together.
    protected: Mutex<HashSet<String>>,
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
    ///
    /// # Errors
    /// If the folder cannot be made, read or written.
    pub fn open(data_dir: &Path) -> Result<Store> {
        Store::open_for(data_dir, KEPT_BYTES)
    }

    fn open_for(data_dir: &Path, most_bytes: u64) -> Result<Store> {
        let folder = data_dir.join("artifacts");
        let doing = || format!("preparing {}", folder.display());
        for part in [folder.clone(), folder.join("blobs"), folder.join("references"), folder.join("versions")] {
            fs::create_dir_all(&part).with_context(doing)?;
            fs::set_permissions(&part, fs::Permissions::from_mode(0o700)).with_context(doing)?;
        }
        for entry in fs::read_dir(&folder).with_context(doing)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("new-") {
                let _ = fs::remove_file(entry.path());
            }
        }
        let store = Store {
            folder,
            next: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            most_bytes,
            protected: Mutex::default(),
        };
        store.bytes.store(store.entries("blobs")?.iter().map(|blob| blob.bytes).sum(), Ordering::Relaxed);
        Ok(store)
    }

    /// Keeps these artifacts and no others, whatever all take together, and puts them on the disk itself.
    pub fn protect(&self, digests: HashSet<Digest>) {
        let names: HashSet<String> = digests.iter().map(Digest::hex).collect();
        let mut protected = self.protected.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names.difference(&protected) {
            // What is not there is a miss for whoever asks for it.
            if let Err(error) = File::open(self.blob_path(name)).and_then(|file| file.sync_all()) {
                tracing::warn!(digest = name, %error, "the bytes of a chosen version are not kept: a restart may not find them");
            }
        }
        *protected = names;
    }

    /// Keeps a copy of a file, and of the signature beside it where there is one that was asked for. Not put on the disk itself: a
    /// copy that a power cut spoils is told by its digest.
    pub(super) fn keep_file(&self, path: &Path, keys: &Keys, digest: Digest, bytes: &[u8]) -> Result<()> {
        let blob = self.blob_path(&digest.hex());
        if !self.is_there(&blob, bytes) {
            self.write(&blob, bytes, false)?;
            self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        if !keys.is_empty()
            && let Some(signature) = read(&verify::signature_beside(path), SIGNATURE_BYTES)
        {
            self.write(&verify::signature_beside(&blob), &signature, false)?;
        }
        self.prune(None)
    }

    /// Whether a blob is there already; then it counts as used.
    fn is_there(&self, blob: &Path, bytes: &[u8]) -> bool {
        let Ok(file) = File::options().append(true).open(blob) else { return false };
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let _ = rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now });
        file.metadata().is_ok_and(|about| about.is_file() && about.len() == bytes.len() as u64)
    }

    /// Whether the file with these bytes was signed by one of the keys when it was kept.
    pub(super) fn is_signed_file(&self, digest: Digest, keys: &Keys, bytes: &[u8]) -> bool {
        keys.check_file(&self.blob_path(&digest.hex()), bytes).is_ok()
    }

    /// With which manifest and signatures an artifact was fetched.
    pub(super) fn fetched_with(&self, layer: Digest) -> Option<Kept> {
        record(&self.version_path(&layer.hex()))?.kept()
    }

    /// Bytes by their digest, if they are there and unharmed.
    pub(super) fn blob(&self, digest: Digest) -> Option<Vec<u8>> {
        let path = self.blob_path(&digest.hex());
        let bytes = read(&path, ARTIFACT_BYTES)?;
        if digest_of(&bytes) == digest {
            return Some(bytes);
        }
        tracing::warn!(file = %path.display(), "a kept artifact is damaged, and is not used");
        let _ = fs::remove_file(path);
        None
    }

    /// Keeps bytes, and what a reference stands for.
    pub(super) fn keep(&self, reference: &Reference, layer: Digest, bytes: &[u8], kept: &Kept) -> Result<()> {
        let blob = self.blob_path(&layer.hex());
        if !self.is_there(&blob, bytes) {
            self.write(&blob, bytes, true)?;
            self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
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
        self.write(&self.version_path(&layer.hex()), &text, false)?;
        let path = self.record_path(reference);
        self.write(&path, &text, true)?;
        self.prune(Some(&path))
    }

    /// What a reference stood for; none if nothing was kept or it cannot be read.
    pub(super) fn kept(&self, reference: &Reference) -> Option<Kept> {
        let record = record(&self.record_path(reference)).filter(|record| record.reference == reference.to_string())?;
        self.is_used(reference);
        record.kept()
    }

    /// Notes that a reference is in use, so that others go first. Where that cannot be noted, nothing is lost.
    pub(super) fn is_used(&self, reference: &Reference) {
        let record = File::options().append(true).open(self.record_path(reference));
        let _ = record.and_then(|record| record.set_modified(SystemTime::now()));
    }

    fn blob_path(&self, hex: &str) -> PathBuf {
        self.folder.join("blobs").join(hex)
    }

    fn version_path(&self, hex: &str) -> PathBuf {
        self.folder.join("versions").join(hex)
    }

    fn record_path(&self, reference: &Reference) -> PathBuf {
        self.folder.join("references").join(digest_of(reference.to_string().as_bytes()).hex())
    }

    /// Writes a file so that it is there whole or not at all; `synced`: also after a power cut.
    fn write(&self, path: &Path, bytes: &[u8], synced: bool) -> Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let new = self.folder.join(format!("new-{}-{number}", std::process::id()));
        let written = File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| if synced { file.sync_all() } else { Ok(()) }))
            .and_then(|()| fs::rename(&new, path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written.with_context(|| format!("keeping an artifact in {}", path.display()))
    }

    /// Removes artifacts down to the limit, but not that of the record at `newest`, and none that was chosen.
    fn prune(&self, newest: Option<&Path>) -> Result<()> {
        if self.bytes.load(Ordering::Relaxed) <= self.most_bytes {
            return Ok(());
        }
        let mut blobs = self.entries("blobs")?;
        let mut total: u64 = blobs.iter().map(|blob| blob.bytes).sum();
        // A tenth less than allowed, so that the next one does not look through all of them again.
        let enough = self.most_bytes - self.most_bytes / 10;
        let mut records: Vec<_> = self.entries("references")?.into_iter().map(|entry| entry.path).collect();
        // The first to go is asked for last.
        records.retain(|path| Some(path.as_path()) != newest);
        records.extend(newest.map(Path::to_owned));
        let mut records: VecDeque<_> =
            records.into_iter().map(|path| (record(&path).map(|record| record.layer), path)).collect();
        let chosen = self.protected.lock().unwrap_or_else(PoisonError::into_inner).clone();
        loop {
            let in_use: HashSet<&String> =
                records.iter().filter_map(|(layer, _)| layer.as_ref()).chain(&chosen).collect();
            blobs.retain(|blob| {
                let name = blob.path.file_name().unwrap_or_default().to_string_lossy();
                let of = name.strip_suffix(".sig").unwrap_or(&name).to_owned();
                let goes = total > enough && !in_use.contains(&of) && fs::remove_file(&blob.path).is_ok();
                if goes {
                    let _ = fs::remove_file(self.version_path(&of));
                    total -= blob.bytes;
                }
                !goes
            });
            if total <= self.most_bytes || records.len() <= usize::from(newest.is_some()) {
                break;
            }
            let Some((_, path)) = records.pop_front() else { break };
            let _ = fs::remove_file(path);
        }
        self.bytes.store(total, Ordering::Relaxed);
        Ok(())
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

impl Record {
    fn kept(self) -> Option<Kept> {
        let signature = |signature: RecordedSignature| match signature {
            RecordedSignature::Simple { payload, signature } => {
                Some(Signature::Simple { payload: STANDARD.decode(payload).ok()?, signature })
            }
            RecordedSignature::Bundle { bundle } => Some(Signature::Bundle { bundle: STANDARD.decode(bundle).ok()? }),
        };
        Some(Kept {
            manifest: STANDARD.decode(self.manifest).ok()?,
            media_type: self.media_type,
            signatures: self.signatures.into_iter().filter_map(signature).collect(),
        })
    }
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
    fn the_oldest_go_first_but_for_what_is_in_use_or_chosen() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_for(folder.path(), 40).unwrap();
        let of = |number: u8| (digest_of(&[number; 10]), [number; 10]);
        let file = folder.path().join("p.wasm");
        let keep = |number| store.keep_file(&file, &Keys::default(), of(number).0, &of(number).1).unwrap();
        let age = |number: u8| {
            let file = File::options().append(true).open(store.blob_path(&of(number).0.hex())).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(u64::from(number))).unwrap();
        };
        let reference = Reference::parse("oci://h.io/a:1").unwrap();
        store.keep(&reference, of(1).0, &of(1).1, &kept()).unwrap();
        (2..=4).for_each(keep);
        (1..=4).for_each(age);
        store.protect([of(2).0].into());
        keep(5);
        let there: Vec<u8> = (1..=5).filter(|number| store.blob(of(*number).0).is_some()).collect();
        assert_eq!(there, [1, 2, 5], "3 and 4 were the oldest that nobody needs");
        assert_eq!(store.fetched_with(of(1).0), Some(kept()));
        keep(5);
        assert_eq!(store.bytes.load(Ordering::Relaxed), 30, "what is there is not counted twice");
        assert_eq!(Store::open_for(folder.path(), 40).unwrap().bytes.load(Ordering::Relaxed), 30);
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
        let store = Store::open_for(folder.path(), 300).unwrap();
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
