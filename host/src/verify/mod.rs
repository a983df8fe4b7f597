//! Signatures, fail closed: with keys configured, bytes without a good signature by one of them go no further.
//!
//! What is taken is what cosign makes with a key of its own (ECDSA P-256): beside a file, and on an artifact in a registry.

mod cosign;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;

pub use cosign::{SIGNED, Signature};

use crate::core::name::Digest;

/// The most that a file with a key or a signature may take.
const SMALL_FILE_BYTES: u64 = 64 << 10;

/// What stands before the point in the only kind of public key that is taken: ECDSA on P-256, uncompressed.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The keys that a signature must be by one of. None at all: nothing is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    keys: Vec<Key>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    /// Where it is from, for a person.
    name: String,
    point: Vec<u8>,
}

impl Keys {
    /// Reads keys: each is a path, relative to `folder`, or PEM as it stands.
    ///
    /// # Errors
    /// One line with the path: a file that cannot be read, or holds no public key of the kind that cosign makes.
    pub fn read(said: &[String], folder: &Path) -> Result<Keys, String> {
        let mut keys = Vec::new();
        for (index, text) in said.iter().enumerate() {
            let (name, pem) = if text.contains("-----BEGIN") {
                (format!("key {}", index + 1), text.clone().into_bytes())
            } else {
                let path = folder.join(text);
                let name = path.display().to_string();
                let pem = read_small(&path).map_err(|why| format!("verify.keys: {name}: {why}"))?;
                (name, pem)
            };
            keys.extend(
                points(&pem)
                    .map_err(|why| format!("verify.keys: {name}: {why}"))?
                    .map(|point| Key { name: name.clone(), point }),
            );
        }
        Ok(Keys { keys })
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Checks the signature in the file beside `path`, which is named as it is with `.sig` behind, over these very bytes.
    ///
    /// # Errors
    /// One line with cause and remedy, without the file's name.
    pub fn check_file(&self, path: &Path, bytes: &[u8]) -> Result<(), String> {
        if self.is_empty() {
            return Ok(());
        }
        let beside = signature_beside(path);
        let shown = beside.display();
        let text = match read_small(&beside) {
            Err(why) => {
                return Err(format!(
                    "verify.keys asks for a signature, and {shown} {why}: sign it with `cosign sign-blob --key KEY` and put that there"
                ));
            }
            Ok(text) => text,
        };
        let signature = std::str::from_utf8(&text).ok().and_then(|text| STANDARD.decode(text.trim()).ok());
        let signature = signature.ok_or_else(|| {
            format!("the signature in {shown} is not base64 of one: write it with `cosign sign-blob --key KEY --output-signature`")
        })?;
        match self.signer(bytes, &signature) {
            Some(_) => Ok(()),
            None => Err(format!(
                "the signature in {shown} is by none of the keys in verify.keys ({}), or over other bytes: sign this file again",
                self.names()
            )),
        }
    }

    /// Checks that one of the signatures is by one of the keys, and for this manifest.
    ///
    /// # Errors
    /// One line with cause and remedy, without the reference.
    pub fn check_manifest(&self, manifest: Digest, signatures: &[Signature]) -> Result<(), String> {
        if self.is_empty() {
            return Ok(());
        }
        if signatures.is_empty() {
            return Err(format!(
                "verify.keys asks for a signature, and {manifest} has none: sign it with `cosign sign --key KEY`"
            ));
        }
        let mut why = String::new();
        for signature in signatures {
            match signature.signed(self) {
                Ok(signed) if signed == manifest => return Ok(()),
                Ok(signed) => why = format!("its signature is for {signed}, and this is {manifest}"),
                Err(reason) if why.is_empty() => why = reason,
                Err(_) => {}
            }
        }
        Err(format!("{why}: sign it again with `cosign sign --key KEY`"))
    }

    /// The name of the key that made this signature over these bytes.
    fn signer(&self, bytes: &[u8], signature: &[u8]) -> Option<&str> {
        let made_it =
            |key: &&Key| UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.point).verify(bytes, signature).is_ok();
        self.keys.iter().find(made_it).map(|key| key.name.as_str())
    }

    fn names(&self) -> String {
        self.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// Where the signature of a file is looked for.
pub fn signature_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}

fn points(pem: &[u8]) -> Result<impl Iterator<Item = Vec<u8>>, String> {
    let mut points = Vec::new();
    for key in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
        let der = key.map_err(|_| "is no PEM: its lines are damaged".to_owned())?;
        match der.strip_prefix(&P256_PREFIX) {
            Some(point @ [4, ..]) if point.len() == 65 => points.push(point.to_vec()),
            _ => {
                return Err(
                    "holds a public key of another kind than ECDSA P-256, which `cosign generate-key-pair` makes"
                        .to_owned(),
                );
            }
        }
    }
    match points.is_empty() {
        true => Err("holds no PUBLIC KEY in PEM: give the cosign.pub of `cosign generate-key-pair`".to_owned()),
        false => Ok(points.into_iter()),
    }
}

/// Reads a small plain file.
fn read_small(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let said = |error: std::io::Error| match error.kind() == std::io::ErrorKind::NotFound {
        true => "is missing".to_owned(),
        false => format!("cannot be read ({error})"),
    };
    // Looked at before it is opened: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(said)?.is_file() {
        return Err("is not a plain file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(said)?;
    file.take(SMALL_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(said)?;
    match bytes.len() as u64 > SMALL_FILE_BYTES {
        true => Err("has more than 64 KiB".to_owned()),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests;
