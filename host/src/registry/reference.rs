//! Where an artifact is in a registry: `oci://HOST/REPO:TAG` or `oci://HOST/REPO@sha256:…`, read strictly and once.

use std::fmt;

use crate::core::name::Digest;

/// How a reference in a configuration begins.
pub const SCHEME: &str = "oci://";

/// The longest reference that is taken, in bytes.
const MOST_BYTES: usize = 512;

/// A place in a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    repository: String,
    wanted: Wanted,
}

/// Which of a repository's artifacts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// Whatever this name stands for when it is asked.
    Tag(String),
    /// This one and no other.
    Digest(Digest),
}

impl Reference {
    /// Reads a reference.
    ///
    /// # Errors
    /// One line that repeats the reference, and says what is wrong and how it is written.
    pub fn parse(text: &str) -> Result<Reference, String> {
        let bad = |why: &str| {
            let short = crate::text::shown(text, 120);
            format!("`{short}` is no reference: {why}; write oci://HOST/REPO:TAG or oci://HOST/REPO@sha256:…")
        };
        if text.len() > MOST_BYTES {
            return Err(bad("it is too long"));
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| bad("it does not begin with oci://"))?;
        let (host, path) = rest.split_once('/').ok_or_else(|| bad("it has no repository"))?;
        check_host(host).map_err(bad)?;
        let (repository, wanted) = match path.split_once('@') {
            Some((repository, digest)) => {
                if repository.contains(':') {
                    return Err(bad("it has a tag and a digest, and only one can decide"));
                }
                let digest = Digest::parse(digest)
                    .ok_or_else(|| bad("behind @ stands sha256: and 64 hexadecimal digits in small letters"))?;
                (repository, Wanted::Digest(digest))
            }
            None => {
                let (repository, tag) = path
                    .split_once(':')
                    .ok_or_else(|| bad("it has neither tag nor digest, and `latest` is not assumed"))?;
                check_tag(tag).map_err(bad)?;
                (repository, Wanted::Tag(tag.to_owned()))
            }
        };
        check_repository(repository).map_err(bad)?;
        Ok(Reference { host: host.to_owned(), repository: repository.to_owned(), wanted })
    }

    /// `HOST` or `HOST:PORT`, as it was written.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag or digest.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Whether it can never come to mean something else.
    pub fn is_fixed(&self) -> bool {
        matches!(self.wanted, Wanted::Digest(_))
    }

    /// The same repository at this digest.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Reference {
        Reference { wanted: Wanted::Digest(digest), ..self.clone() }
    }

    /// The root of the registry's API. Plain HTTP for this machine alone.
    pub(super) fn api(&self) -> String {
        // Docker Hub's name and its API's differ.
        let host = if self.host == "docker.io" { "registry-1.docker.io" } else { &self.host };
        let scheme = if is_loopback(host) { "http" } else { "https" };
        format!("{scheme}://{host}/v2/")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reference { host, repository, wanted } = self;
        match wanted {
            Wanted::Tag(tag) => write!(f, "{SCHEME}{host}/{repository}:{tag}"),
            Wanted::Digest(digest) => write!(f, "{SCHEME}{host}/{repository}@{digest}"),
        }
    }
}

/// Whether a host, with or without port, is this machine by one of the names for which plain HTTP is taken.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix("[::1]") {
        Some(port) => return port.is_empty() || port.starts_with(':'),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name == "127.0.0.1"
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.contains('@') {
        return Err("a login does not belong in it, but in a docker config");
    }
    let (name, port) = match host.strip_prefix("[::1]") {
        Some("") => ("localhost", None),
        Some(port) => ("localhost", Some(port.strip_prefix(':').unwrap_or("-"))),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    if port.is_some_and(|port| !port.bytes().all(|c| c.is_ascii_digit()) || port.parse::<u16>().is_err()) {
        return Err("its port is no number up to 65535");
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match name.split('.').all(label) {
        true => Ok(()),
        false => Err("its host is no host name in small letters"),
    }
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    match tag.as_bytes() {
        [first, ..] if tag.len() <= 128 && *first != b'.' && *first != b'-' && tag.bytes().all(inner) => Ok(()),
        _ => Err("its tag may have A-Z, a-z, 0-9, `_`, `.` and `-`, at most 128, and neither `.` nor `-` first"),
    }
}

/// Components of small letters and digits, with `.`, `_`, `__` or dashes inside.
fn check_repository(repository: &str) -> Result<(), &'static str> {
    let component = |part: &str| {
        let words: Vec<&str> = part.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit()).collect();
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        let inside =
            words.first().is_some_and(|word| !word.is_empty()) && words.last().is_some_and(|word| !word.is_empty());
        inside && part.chars().all(allowed) && !part.contains("..") && !part.contains("___")
    };
    if repository.chars().any(|c| c.is_ascii_uppercase()) {
        return Err("a repository is written in small letters");
    }
    match !repository.is_empty() && repository.len() <= 255 && repository.split('/').all(component) {
        true => Ok(()),
        false => Err("its repository may have a-z, 0-9, and `.`, `_`, `-` inside of each part between slashes"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn what_is_written_is_read_and_shown_again() {
        for good in [
            "oci://myregistry.azurecr.io/jobs/report:1.4".to_owned(),
            "oci://localhost:5000/a:latest".to_owned(),
            "oci://[::1]:5000/a_b/c--d/e.f:V_1.0-x".to_owned(),
            format!("oci://127.0.0.1/a@sha256:{HEX}"),
        ] {
            assert_eq!(Reference::parse(&good).unwrap().to_string(), good);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let both = format!("oci://h.io/a:1@sha256:{HEX}");
        let upper = format!("oci://h.io/a@sha256:{}", HEX.to_uppercase());
        for (bad, said) in [
            ("https://h.io/a:1", "begin with oci://"),
            ("oci://h.io", "no repository"),
            ("oci:///a:1", "no host name"),
            ("oci://H.io/a:1", "no host name"),
            ("oci://h..io/a:1", "no host name"),
            ("oci://h.io:99999/a:1", "port"),
            ("oci://[::1]5000/a:1", "port"),
            ("oci://user:secret@h.io/a:1", "docker config"),
            ("oci://h.io/a", "`latest` is not assumed"),
            ("oci://h.io/a:", "its tag"),
            ("oci://h.io/a:-x", "its tag"),
            ("oci://h.io/A:1", "small letters"),
            ("oci://h.io//a:1", "its repository"),
            ("oci://h.io/../a:1", "its repository"),
            ("oci://h.io/a?x=1:1", "its repository"),
            ("oci://h.io/a@sha256:abc", "64 hexadecimal"),
            ("oci://h.io/a@sha512:abc", "64 hexadecimal"),
            (&both, "tag and a digest"),
            (&upper, "64 hexadecimal"),
        ] {
            let why = Reference::parse(bad).unwrap_err();
            assert!(why.contains(said) && why.contains("oci://HOST/REPO:TAG"), "{bad}: {why}");
        }
        assert!(Reference::parse(&format!("oci://h.io/{}:1", "a".repeat(600))).unwrap_err().contains("too long"));
    }

    #[test]
    fn plain_http_is_for_this_machine_alone() {
        let api = |text: &str| Reference::parse(text).unwrap().api();
        assert_eq!(api("oci://localhost:5000/a:1"), "http://localhost:5000/v2/");
        assert_eq!(api("oci://[::1]:5000/a:1"), "http://[::1]:5000/v2/");
        assert_eq!(api("oci://127.0.0.1:1/a:1"), "http://127.0.0.1:1/v2/");
        assert_eq!(api("oci://127.0.0.2:1/a:1"), "https://127.0.0.2:1/v2/");
        assert_eq!(api("oci://localhost.example.com/a:1"), "https://localhost.example.com/v2/");
        assert_eq!(api("oci://10.0.0.1/a:1"), "https://10.0.0.1/v2/");
        assert_eq!(api("oci://docker.io/a/b:1"), "https://registry-1.docker.io/v2/");
    }
}
