//! Change events of folders, from inotify: a reason to look at once. What is true is found by looking: shares without events, lost
//! events and symbolic links make no difference but that it takes until the next round.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;

/// The folders that are watched, and which of their files somebody is writing.
pub(super) struct Events {
    /// None where the system has no more to give: then there is only looking.
    inotify: Option<OwnedFd>,
    watches: BTreeMap<PathBuf, i32>,
    /// Files that were written to and not closed since.
    writing: BTreeSet<PathBuf>,
    bell: std::sync::Arc<Bell>,
}

/// Wakes whoever waits for events.
pub(super) struct Bell(OwnedFd);

impl Bell {
    /// Rings; never blocks.
    pub(super) fn ring(&self) {
        // The counter is far from full, and if it were, it would ring all the same.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl Events {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// If there is no descriptor for the bell.
    pub(super) fn new(with_events: bool) -> std::io::Result<Events> {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let bell = std::sync::Arc::new(Bell(eventfd(0, flags)?));
        let open = || inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
        let inotify = with_events.then(open).and_then(|opened| {
            opened
                .inspect_err(|error| tracing::warn!(%error, "no change events; files are looked at in rounds only"))
                .ok()
        });
        Ok(Events { inotify, watches: BTreeMap::new(), writing: BTreeSet::new(), bell })
    }

    /// What wakes [`Events::wait`].
    pub(super) fn bell(&self) -> std::sync::Arc<Bell> {
        self.bell.clone()
    }

    /// Watches these folders and no others. A folder that is another than before, though of the same name, is watched anew.
    pub(super) fn watch(&mut self, folders: &BTreeSet<PathBuf>) {
        let Some(inotify) = &self.inotify else { return };
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        self.watches.retain(|folder, watch| {
            let stays = folders.contains(folder);
            if !stays {
                // It may be gone by itself.
                let _ = inotify::remove_watch(inotify, *watch);
            }
            stays
        });
        for folder in folders {
            // Adding what is there already changes nothing; a new folder of the name gives another watch.
            match inotify::add_watch(inotify, folder, flags) {
                Ok(watch) => {
                    self.watches.insert(folder.clone(), watch);
                }
                Err(_) => {
                    self.watches.remove(folder);
                }
            }
        }
    }

    /// Waits for an event, the bell or `patience`. Returns whether it was an event.
    pub(super) fn wait(&mut self, patience: Duration) -> bool {
        let timeout = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        let mut fds = vec![PollFd::new(&self.bell.0, PollFlags::IN)];
        if let Some(inotify) = &self.inotify {
            fds.push(PollFd::from_borrowed_fd(inotify.as_fd(), PollFlags::IN));
        }
        // Interrupted or not: the caller looks.
        let _ = poll(&mut fds, Some(&timeout));
        let mut count = [0_u8; 8];
        let _ = rustix::io::read(&self.bell.0, &mut count);
        self.drain()
    }

    /// Whether somebody has written to the file and not closed it since, as far as events tell.
    pub(super) fn is_being_written(&self, path: &Path) -> bool {
        self.writing.contains(path)
    }

    fn drain(&mut self) -> bool {
        /// More open files than this are not remembered: they settle by looking alone.
        const WRITING: usize = 10_000;
        let Some(inotify) = &self.inotify else { return false };
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        let mut any = false;
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => return any,
            };
            any = true;
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                self.writing.clear();
                continue;
            }
            let folder = self.watches.iter().find(|(_, watch)| **watch == event.wd()).map(|(folder, _)| folder);
            let (Some(folder), Some(name)) = (folder, event.file_name()) else { continue };
            let path = folder.join(OsString::from_vec(name.to_bytes().to_vec()));
            if flags.contains(ReadFlags::MODIFY) {
                if self.writing.len() < WRITING {
                    self.writing.insert(path);
                }
            } else if flags
                .intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO | ReadFlags::MOVED_FROM | ReadFlags::DELETE)
            {
                self.writing.remove(&path);
            }
        }
    }
}
