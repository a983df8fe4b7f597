//! What a file of the cache holds: a head that names what it is for, and code whose digest the head knows.

use sha2::{Digest as _, Sha256};

use crate::artifact::Kind;
use crate::core::name::Digest;

/// How an entry begins. The digits are the version of this format.
const MAGIC: [u8; 8] = *b"WLCODE01";

/// How long the head is: magic, settings, artifact, kind, length, digest of the code.
pub(super) const HEAD: usize = 8 + 32 + 32 + 1 + 8 + 32;

/// What code is kept by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// The settings of the engine that it is for.
    pub(super) settings: [u8; 32],
    /// The artifact that it was made from.
    pub(super) digest: Digest,
    /// What that was compiled as.
    pub(super) kind: Kind,
}

impl Key {
    /// The file's name: the same for the same key, and another for any other.
    pub(super) fn file_name(&self) -> String {
        let mut name = hex(&self.digest.0);
        name.push('-');
        name += &hex(self.settings.get(..8).unwrap_or_default());
        name.push(char::from(b'0' + kind_byte(self.kind)));
        name
    }

    /// The head of an entry with this code.
    pub(super) fn head(&self, code: &[u8]) -> [u8; HEAD] {
        let length = (code.len() as u64).to_le_bytes();
        let digest: [u8; 32] = Sha256::digest(code).into();
        let kind = [kind_byte(self.kind)];
        let parts: [&[u8]; 6] = [&MAGIC, &self.settings, &self.digest.0, &kind, &length, &digest];
        let mut head = [0; HEAD];
        head.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        head
    }

    /// The code of an entry, if it is whole, unchanged, and for this key.
    pub(super) fn open(&self, mut entry: Vec<u8>) -> Option<Vec<u8>> {
        let head: [u8; HEAD] = entry.get(..HEAD)?.try_into().ok()?;
        if head != self.head(entry.get(HEAD..)?) {
            return None;
        }
        entry.drain(..HEAD);
        Some(entry)
    }
}

fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Job => 0,
        Kind::Command => 1,
        Kind::Preview1 => 2,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    fn key() -> Key {
        Key { settings: [1; 32], digest: Digest([2; 32]), kind: Kind::Job }
    }

    fn entry(code: &[u8]) -> Vec<u8> {
        [key().head(code).as_slice(), code].concat()
    }

    #[test]
    fn an_entry_gives_its_code_to_its_own_key_alone() {
        assert_eq!(key().open(entry(b"code")).unwrap(), b"code");
        assert_eq!(key().open(entry(b"")).unwrap(), b"");
        let others = [
            Key { settings: [3; 32], ..key() },
            Key { digest: Digest([3; 32]), ..key() },
            Key { kind: Kind::Command, ..key() },
        ];
        for other in others {
            assert_eq!(other.open(entry(b"code")), None);
            assert_ne!(other.file_name(), key().file_name());
        }
    }

    #[test]
    fn no_bit_may_change_and_no_byte_may_lack_or_be_added() {
        let whole = entry(b"some code");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            assert_eq!(key().open(changed), None, "byte {at}");
            assert_eq!(key().open(whole[..at].to_vec()), None, "cut at {at}");
        }
        let mut longer = whole;
        longer.push(0);
        assert_eq!(key().open(longer), None);
    }
}
