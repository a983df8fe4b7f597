//! Small files in `dataDir` that a host leaves to the next one: read within bounds, and written so that whoever reads finds all of it or
//! what was there before. Knows nothing of what they say.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};

/// The text of a plain file of at most so many bytes; none if there is no file.
///
/// # Errors
/// One line, without the file's name.
pub fn read(path: &Path, most_bytes: u64) -> Result<Option<String>, String> {
    // Looked at before it is opened: opening a pipe would wait for its other end.
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if !about.is_file() {
        return Err("it is not a plain file".to_owned());
    }
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(most_bytes + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    match text.len() as u64 > most_bytes {
        true => Err("it is too large".to_owned()),
        false => Ok(Some(text)),
    }
}

/// Puts a text in a file, for this user alone: under another name first, and on the disk before it takes the file's place.
///
/// # Errors
/// If that cannot be done; the file is then as it was.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let half = path.with_extension("json.new");
    let written = || -> std::io::Result<()> {
        let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&half)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&half, path)
    };
    let done = written();
    if done.is_err() {
        let _ = fs::remove_file(&half);
    }
    done.with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn what_is_written_is_read_and_half_a_file_is_never_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.json");
        assert_eq!(read(&path, 10), Ok(None));
        write(&path, "0123456789").unwrap();
        assert_eq!(read(&path, 10).unwrap().as_deref(), Some("0123456789"));
        assert!(read(&path, 9).unwrap_err().contains("too large"));
        assert!(read(folder.path(), 9).unwrap_err().contains("plain"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
