//! Where artifacts and configuration come from, and the watch over both. Runs nothing.

mod configuration;
mod fetch;
mod loader;
mod plan;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use crate::core::name::PluginName;
use crate::registry::{Reference, SCHEME};

pub use configuration::{Configuration, Origin};
pub use loader::{Job, Loader, LoaderOptions, Need, check_memory, load};
pub use watch::{Handle, Settings, Watcher};

/// Where one plugin's artifact is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this file.
    File(PathBuf),
    /// In a registry.
    Registry(Reference),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => path.display().fmt(f),
            Place::Registry(reference) => reference.fmt(f),
        }
    }
}

/// What a plugin's `source` says.
///
/// # Errors
/// One line, if it is neither a file inside of the plugins' folder nor a reference.
pub fn place_of(plugins_dir: &Path, source: &str) -> Result<Place, String> {
    match source.starts_with(SCHEME) {
        true => Reference::parse(source).map(Place::Registry),
        false => file_of(plugins_dir, source).map(Place::File),
    }
}

/// What a plugin's `source` says of a file.
///
/// # Errors
/// One line, if it is no `file:NAME` inside of the plugins' folder.
pub fn file_of(plugins_dir: &Path, source: &str) -> Result<PathBuf, String> {
    let Some(name) = source.strip_prefix("file:") else {
        return Err(format!(
            "source `{source}` is neither `file:NAME`, a file in pluginsDir, nor `oci://HOST/REPO:TAG`, an artifact in a registry"
        ));
    };
    let relative = Path::new(name);
    let stays_inside = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if name.is_empty() || !stays_inside {
        return Err(format!("source `{source}` must name a file inside of pluginsDir ({})", plugins_dir.display()));
    }
    Ok(plugins_dir.join(relative))
}

/// The `.wasm` files of a folder, sorted; hidden ones are somebody's temporary files.
///
/// # Errors
/// If the folder cannot be read.
pub fn list(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|extension| extension == "wasm") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Sorted files by the plugin names that they give: the file's name in small letters, with `-` for what a plugin's name may not
/// have. A file that gives no name, or the same as another, is an error of its own.
pub fn name_all(files: impl IntoIterator<Item = PathBuf>) -> Vec<Discovered> {
    let mut taken: BTreeMap<PluginName, PathBuf> = BTreeMap::new();
    files.into_iter().map(|path| name_of(path, &mut taken)).collect()
}

/// A file that was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Discovered {
    /// It gives a plugin of this name.
    Plugin(PluginName, PathBuf),
    /// It gives none, and this is why; the text names the file.
    Unnamed(String),
}

fn name_of(path: PathBuf, taken: &mut BTreeMap<PluginName, PathBuf>) -> Discovered {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let label: String =
        stem.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    match PluginName::new(label.trim_matches('-')) {
        Err(bad) => Discovered::Unnamed(format!("{}: {bad}; rename the file", path.display())),
        Ok(name) => match taken.get(&name) {
            Some(first) => Discovered::Unnamed(format!(
                "{} and {} both give a plugin named {name}; rename one of them",
                first.display(),
                path.display()
            )),
            None => {
                taken.insert(name.clone(), path.clone());
                Discovered::Plugin(name, path)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn a_source_stays_inside_of_the_folder() {
        let dir = Path::new("/plugins");
        assert_eq!(file_of(dir, "file:a.wasm").unwrap(), Path::new("/plugins/a.wasm"));
        assert_eq!(file_of(dir, "file:sub/a.wasm").unwrap(), Path::new("/plugins/sub/a.wasm"));
        for bad in ["file:../a.wasm", "file:/etc/passwd", "file:", "a.wasm", "oci://x/y:1"] {
            let why = file_of(dir, bad).unwrap_err();
            assert!(why.contains(bad), "{why}");
        }
    }

    #[test]
    fn files_give_names_and_two_of_one_name_are_both_said() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["Plain_WASI.wasm", "plain-wasi.wasm", "heart.beat.wasm", "_.wasm", ".tmp.wasm", "notes.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = name_all(list(folder.path()).unwrap());
        let names: Vec<_> = found
            .iter()
            .filter_map(|found| match found {
                Discovered::Plugin(name, _) => Some(name.as_str()),
                Discovered::Unnamed(_) => None,
            })
            .collect();
        assert_eq!(names, ["plain-wasi", "heart-beat"]);
        let said: Vec<_> = found.iter().filter(|found| matches!(found, Discovered::Unnamed(_))).collect();
        assert_eq!(said.len(), 2, "{found:?}");
        assert!(format!("{said:?}").contains("both give a plugin named plain-wasi"), "{said:?}");
    }
}
