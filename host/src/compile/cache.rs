//! Compiled code on disk, so that a start does not compile again what an earlier one has: in `dataDir/cache/compiled`.
//!
//! Whoever can write there can make this host execute anything, so the folder and its files belong to the host's user alone and
//! are not used otherwise. An entry that is not exactly what was written is a miss. A cache that fails makes starts slower and
//! nothing else.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};

use super::entry::{HEAD, Key};
use super::parent::CODE_BYTES;

/// The most that all entries may take together. What was not used for longest goes first.
pub const CACHE_BYTES: u64 = 2 << 30;

/// How the names of files begin that are still being written.
const UNFINISHED: &str = ".new-";

/// Who is told how the cache fares: what is wrong with it, or nothing.
pub type Report = Box<dyn Fn(Option<String>) + Send + Sync>;

/// See the module. May be shared by processes.
pub struct Cache {
    path: PathBuf,
    folder: OwnedFd,
    most_bytes: u64,
    state: Mutex<State>,
    report: Report,
}

struct State {
    /// What the entries take, as far as is known here.
    bytes: u64,
    problem: Option<String>,
    /// Numbers unfinished files.
    written: u64,
}

impl Cache {
    /// Opens the cache of a `dataDir`, and makes its folders where they are missing.
    ///
    /// # Errors
    /// One line: the folder cannot be made or read, is somebody else's, or open to others.
    pub fn open(data_dir: &Path, most_bytes: u64, report: Report) -> Result<Cache, String> {
        let path = data_dir.join("cache").join("compiled");
        let at = |error: io::Error| format!("the compile cache {} cannot be used: {error}", path.display());
        let mut private = std::fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(&path).map_err(at)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| at(error.into()))?;
        let about = rustix::fs::fstat(&folder).map_err(|error| at(error.into()))?;
        if !is_private(about.st_uid, about.st_mode) {
            return Err(format!(
                "the compile cache {} is not used: it must belong to user {} and be closed to all others (chmod 700; in Kubernetes \
                 with an fsGroup, fsGroupChangePolicy: OnRootMismatch keeps it so)",
                path.display(),
                rustix::process::geteuid().as_raw()
            ));
        }
        let cache = Cache {
            path,
            folder,
            most_bytes,
            state: Mutex::new(State { bytes: 0, problem: None, written: 0 }),
            report,
        };
        let bytes = cache.entries().iter().map(|entry| entry.bytes).sum();
        cache.state.lock().unwrap_or_else(PoisonError::into_inner).bytes = bytes;
        Ok(cache)
    }

    /// Removes what an earlier process did not finish. For the holder of `dataDir`'s lock.
    pub fn sweep(&self) {
        for name in self.names().into_iter().filter(|name| name.starts_with(UNFINISHED)) {
            let _ = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty());
        }
    }

    /// The code that is kept for a key. An entry that is not as it was written is removed.
    pub(super) fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let name = key.file_name();
        let entry = match self.read(&name) {
            Ok(entry) => entry,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::debug!(%error, name, "an entry of the compile cache cannot be read");
                Vec::new()
            }
        };
        let code = key.open(entry);
        if code.is_none() {
            tracing::warn!(name, "an entry of the compile cache was not as it was written; it is made again");
            self.remove(key);
        }
        code
    }

    /// Keeps code for a key. Whatever goes wrong is told, and costs a later start its time.
    pub(super) fn put(&self, key: &Key, code: &[u8]) {
        let number = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.written += 1;
            state.written
        };
        let temporary = format!("{UNFINISHED}{}-{number}", std::process::id());
        let written = self.write(&temporary, key, code);
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&self.folder, &temporary, AtFlags::empty());
        }
        let problem = written.err().map(|error| {
            format!(
                "the compile cache {} cannot be written ({error}): plugins run, and the next start compiles them again",
                self.path.display()
            )
        });
        self.tell(problem);
        self.prune((HEAD + code.len()) as u64);
    }

    /// Forgets what is kept for a key.
    pub(super) fn remove(&self, key: &Key) {
        let _ = rustix::fs::unlinkat(&self.folder, key.file_name(), AtFlags::empty());
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(&self.folder, name, flags, Mode::empty())?);
        let about = file.metadata()?;
        let is_ours = about.is_file() && is_private(about.uid(), about.mode());
        if !is_ours || about.len() > CODE_BYTES + HEAD as u64 {
            return Err(io::Error::other("it is not this user's alone, or no entry at all"));
        }
        // In memory: a mapped file that is cut short later would kill the process.
        let mut entry = Vec::with_capacity(usize::try_from(about.len()).unwrap_or(0));
        (&file).take(about.len() + 1).read_to_end(&mut entry)?;
        // It is in use, so that others go first. Where that cannot be noted, nothing is lost.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let _ = rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now });
        Ok(entry)
    }

    fn write(&self, temporary: &str, key: &Key, code: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(rustix::fs::openat(&self.folder, temporary, flags, mode)?);
        file.write_all(&key.head(code))?;
        file.write_all(code)?;
        // An entry that a power cut leaves half written would be found out; this is so that it is seldom there.
        file.sync_data()?;
        rustix::fs::renameat(&self.folder, temporary, &self.folder, key.file_name())?;
        Ok(())
    }

    fn tell(&self, problem: Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.problem != problem {
            state.problem.clone_from(&problem);
            drop(state);
            (self.report)(problem);
        }
    }

    /// Counts in what came, and removes what was not used for longest where all together is too much.
    fn prune(&self, added: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes += added;
        if state.bytes <= self.most_bytes {
            return;
        }
        let mut entries = self.entries();
        entries.sort_by_key(|entry| entry.used);
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        for entry in entries {
            // A tenth less than allowed, so that the next one does not look through all of them again.
            if bytes <= self.most_bytes - self.most_bytes / 10 {
                break;
            }
            if rustix::fs::unlinkat(&self.folder, &entry.name, AtFlags::empty()).is_ok() {
                bytes -= entry.bytes;
            }
        }
        state.bytes = bytes;
    }

    fn entries(&self) -> Vec<Entry> {
        let entry = |name: String| {
            let about = rustix::fs::statat(&self.folder, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            let bytes = u64::try_from(about.st_size).unwrap_or(0);
            Some(Entry { name, bytes, used: (about.st_mtime as i64, about.st_mtime_nsec as i64) })
        };
        self.names().into_iter().filter_map(entry).collect()
    }

    fn names(&self) -> Vec<String> {
        let Ok(folder) = rustix::fs::Dir::read_from(&self.folder) else { return Vec::new() };
        let names = folder.filter_map(|entry| Some(entry.ok()?.file_name().to_str().ok()?.to_owned()));
        names.filter(|name| name != "." && name != "..").collect()
    }
}

struct Entry {
    name: String,
    bytes: u64,
    /// When it was last used: seconds and nanoseconds.
    used: (i64, i64),
}

/// Whether something belongs to this user, and nobody else may do anything with it.
fn is_private(owner: u32, mode: u32) -> bool {
    owner == rustix::process::geteuid().as_raw() && mode & 0o077 == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::artifact::Kind;
    use crate::core::name::Digest;

    fn key(number: u8) -> Key {
        Key { settings: [1; 32], digest: Digest([number; 32]), kind: Kind::Job }
    }

    fn cache(folder: &Path, most_bytes: u64) -> (Cache, Receiver<Option<String>>) {
        let (told, reports) = channel();
        let told = Arc::new(Mutex::new(told));
        let report = Box::new(move |problem| told.lock().unwrap().send(problem).unwrap());
        (Cache::open(folder, most_bytes, report).unwrap(), reports)
    }

    #[test]
    fn what_is_kept_is_found_by_the_next_and_by_no_other_key() {
        let folder = tempfile::tempdir().unwrap();
        let (first, reports) = cache(folder.path(), CACHE_BYTES);
        first.put(&key(1), b"code");
        let (next, _) = cache(folder.path(), CACHE_BYTES);
        assert_eq!(next.get(&key(1)).unwrap(), b"code");
        assert_eq!(next.get(&key(2)), None);
        assert!(reports.try_recv().is_err(), "nothing is wrong");
        let file = folder.path().join("cache/compiled").join(key(1).file_name());
        let modes = [folder.path().join("cache"), folder.path().join("cache/compiled"), file]
            .map(|path| path.metadata().unwrap().permissions().mode() & 0o777);
        assert_eq!(modes, [0o700, 0o700, 0o600]);
    }

    #[test]
    fn a_changed_or_foreign_entry_is_a_miss_and_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, _reports) = cache(folder.path(), CACHE_BYTES);
        let path = folder.path().join("cache/compiled").join(key(1).file_name());
        type Spoil = (&'static str, fn(&Path));
        let spoil: [Spoil; 5] = [
            ("cut", |path| File::options().write(true).open(path).unwrap().set_len(HEAD as u64 + 1).unwrap()),
            ("empty", |path| File::options().write(true).open(path).unwrap().set_len(0).unwrap()),
            ("changed", |path| {
                let mut bytes = std::fs::read(path).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                std::fs::write(path, bytes).unwrap();
            }),
            ("open to others", |path| {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).unwrap();
            }),
            ("a link", |path| {
                let elsewhere = path.with_extension("elsewhere");
                std::fs::rename(path, &elsewhere).unwrap();
                std::os::unix::fs::symlink(elsewhere, path).unwrap();
            }),
        ];
        for (what, spoil) in spoil {
            cache.put(&key(1), b"code");
            assert!(cache.get(&key(1)).is_some());
            spoil(&path);
            assert_eq!(cache.get(&key(1)), None, "{what}");
            assert!(path.symlink_metadata().is_err(), "{what} is still there");
        }
    }

    #[test]
    fn a_folder_that_is_open_to_others_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        drop(cache(folder.path(), CACHE_BYTES));
        let inner = folder.path().join("cache/compiled");
        for mode in [0o770, 0o707, 0o750] {
            std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(mode)).unwrap();
            let why = Cache::open(folder.path(), CACHE_BYTES, Box::new(|_| ())).err().unwrap();
            assert!(why.contains("chmod 700") && why.contains("compiled"), "{why}");
        }
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_what_is_unfinished_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let size = (HEAD + 100) as u64;
        let (cache, _reports) = cache(folder.path(), 3 * size);
        let inner = folder.path().join("cache/compiled");
        for number in 1..=3 {
            cache.put(&key(number), &[number; 100]);
            let file = File::options().write(true).open(inner.join(key(number).file_name())).unwrap();
            let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::from(number));
            file.set_modified(long_ago).unwrap();
        }
        assert!(cache.get(&key(1)).is_some(), "the oldest was used just now");
        cache.put(&key(4), &[4; 100]);
        let kept: Vec<_> = (1..=4).filter(|number| inner.join(key(*number).file_name()).exists()).collect();
        assert_eq!(kept, [1, 4]);
        std::fs::write(inner.join(".new-1-1"), b"half").unwrap();
        cache.sweep();
        assert!(!inner.join(".new-1-1").exists() && cache.get(&key(4)).is_some());
    }

    #[test]
    fn a_write_that_fails_is_told_once_and_taken_back_when_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, reports) = cache(folder.path(), CACHE_BYTES);
        let inner = folder.path().join("cache/compiled");
        std::fs::remove_dir_all(&inner).unwrap();
        cache.put(&key(1), b"code");
        cache.put(&key(2), b"code");
        assert!(reports.try_recv().unwrap().unwrap().contains("cannot be written"));
        assert!(reports.try_recv().is_err(), "once");
        assert_eq!(cache.get(&key(1)), None);
    }
}
