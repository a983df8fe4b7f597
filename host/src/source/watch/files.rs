//! Plugins' files: which there are, which have come to rest as others than before, and whether their folder is still the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::list;
use super::look::Look;
use super::settle::Settle;

/// See the module.
pub(super) struct Files {
    folder: PathBuf,
    /// Which folder it was when files were last seen in it: a share that is unmounted leaves another one of the same name.
    identity: Option<(u64, u64)>,
    files: BTreeMap<PathBuf, Settle<Look>>,
    /// Those of the folder itself, as against those that only an entry names.
    listed: BTreeSet<PathBuf>,
    problem: Option<String>,
}

impl Files {
    /// Looks for the first time, and takes what it sees.
    pub(super) fn new(folder: &Path) -> Files {
        let mut files = Files {
            folder: folder.to_owned(),
            identity: None,
            files: BTreeMap::new(),
            listed: BTreeSet::new(),
            problem: None,
        };
        if let Some(listed) = files.list() {
            files.files = listed.iter().map(|path| (path.clone(), Settle::new(Look::at(path)))).collect();
            files.listed = listed.into_iter().collect();
        }
        files
    }

    /// What is wrong with the folder, for the host's entry.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.clone()
    }

    /// The files of the folder that have come to rest, sorted.
    pub(super) fn found(&self) -> Vec<PathBuf> {
        self.listed.iter().filter(|path| !self.is_gone(path)).cloned().collect()
    }

    /// Whether the file is settled as not being there.
    pub(super) fn is_gone(&self, path: &Path) -> bool {
        self.files.get(path).is_none_or(|file| *file.settled() == Look::Absent)
    }

    /// Looks at a file from now on that an entry names and that is about to be loaded: what is there now is taken as it is.
    pub(super) fn track(&mut self, path: &Path) {
        self.files.entry(path.to_owned()).or_insert_with(|| Settle::new(Look::at(path)));
    }

    pub(super) fn are_moving(&self) -> bool {
        self.files.values().any(Settle::is_moving)
    }

    /// Looks at all files, and keeps those that `entries` name though they are not there. Returns those that came to rest as others
    /// than before. While the folder is away nothing is looked at: that is a fault, and no removal.
    pub(super) fn look(
        &mut self,
        now: Duration,
        entries: &BTreeSet<PathBuf>,
        quiet: impl Fn(&Path, &Look) -> Duration,
    ) -> BTreeSet<PathBuf> {
        let mut changed = BTreeSet::new();
        let Some(listed) = self.list() else { return changed };
        for path in listed {
            self.files.entry(path.clone()).or_insert_with(|| Settle::new(Look::Absent));
            self.listed.insert(path);
        }
        for (path, file) in &mut self.files {
            let seen = Look::at(path);
            let parent_is_away = seen == Look::Absent && !path.parent().is_some_and(Path::is_dir);
            if !parent_is_away && file.look(now, seen, quiet(path, &seen)) {
                changed.insert(path.clone());
            }
        }
        let over = |file: &Settle<Look>| *file.settled() == Look::Absent && !file.is_moving();
        self.files.retain(|path, file| entries.contains(path) || !over(file));
        let files = &self.files;
        self.listed.retain(|path| files.contains_key(path));
        changed
    }

    /// The folder's files; none while it is away, and then it is said why.
    fn list(&mut self) -> Option<Vec<PathBuf>> {
        let folder = self.folder.display();
        let listed = match list(&self.folder) {
            Ok(listed) => listed,
            Err(error) => {
                self.problem = Some(format!(
                    "pluginsDir {folder} cannot be read ({error}): check the mount and its permissions; what runs goes on"
                ));
                return None;
            }
        };
        let identity = Look::at(&self.folder).identity();
        let had: Vec<&PathBuf> = self.listed.iter().filter(|path| !self.is_gone(path)).collect();
        if identity != self.identity && !had.is_empty() && !had.iter().any(|path| listed.contains(path)) {
            self.problem = Some(format!(
                "pluginsDir {folder} is another folder than before, without any of its files: is the share mounted? What runs goes on"
            ));
            return None;
        }
        self.identity = identity;
        self.problem = None;
        Some(listed)
    }
}
