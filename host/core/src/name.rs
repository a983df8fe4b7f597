//! Identities: a plugin's name, and the small numbers that stand for plugins and runs inside the host.

use std::fmt;
use std::sync::Arc;

/// A plugin's name: a DNS-1123 label of at most 63 characters, and not `windlass`, which is the host's own entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginName(Arc<str>);

/// The name of the host's own entry in every report.
pub const HOST_ENTRY: &str = "windlass";

/// Why a text is no plugin name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no plugin name: {why}")]
pub struct BadName {
    name: String,
    why: &'static str,
}

impl PluginName {
    /// Takes `name` if it is a DNS-1123 label (a-z, 0-9, `-` inside; 1 to 63 characters) and not the host's own.
    pub fn new(name: &str) -> Result<PluginName, BadName> {
        let why = |why| BadName { name: name.chars().take(80).collect(), why };
        if name == HOST_ENTRY {
            return Err(why("this name is the host's own entry in the health report"));
        }
        if name.is_empty() || name.len() > 63 {
            return Err(why("it must have 1 to 63 characters"));
        }
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if !name.bytes().all(inner) {
            return Err(why("only a-z, 0-9 and `-` may stand in it, as in a Kubernetes name"));
        }
        if name.starts_with('-') || name.ends_with('-') {
            return Err(why("it must begin and end with a letter or digit"));
        }
        Ok(PluginName(Arc::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for PluginName {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

/// Stands for one plugin for as long as the host runs; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginId(pub u32);

/// Stands for one run, all its attempts included; never used again while the host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// A version of a plugin, numbered upwards from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct VersionNumber(pub u32);

/// The SHA-256 of an artifact's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads what `Display` writes: `sha256:` and 64 hexadecimal digits in small letters. None for anything else.
    pub fn parse(text: &str) -> Option<Digest> {
        let hex = text.strip_prefix("sha256:")?.as_bytes();
        if hex.len() != 64 {
            return None;
        }
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = match pair {
                [high, low] => nibble(*high)? << 4 | nibble(*low)?,
                _ => return None,
            };
        }
        Some(Digest(bytes))
    }

    /// The 64 hexadecimal digits alone: a name for a file.
    pub fn hex(&self) -> String {
        self.to_string().split_off("sha256:".len())
    }

    /// The first twelve hexadecimal digits, for tables and log lines.
    pub fn short(&self) -> String {
        self.to_string().chars().skip("sha256:".len()).take(12).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written_and_in_no_other_way() {
        let digest = Digest(std::array::from_fn(|at| (at * 37 % 256) as u8));
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(digest.hex().len(), 64);
        let text = digest.to_string();
        for bad in [
            "",
            "sha256:",
            &digest.hex(),
            &text.to_uppercase(),
            &text[..70],
            &format!("{text}0"),
            &text.replace('0', "g"),
        ] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }
}
