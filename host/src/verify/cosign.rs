//! The two forms in which cosign keeps a signature in a registry: a signed payload (cosign 2), and a Sigstore bundle (cosign 3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::Keys;
use crate::core::name::Digest;

/// What a bundle's statement must be of: an attestation by the same key says something else.
pub const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";
const STATEMENT: &str = "application/vnd.in-toto+json";

/// A signature as it came from a registry or was kept. Not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// cosign 2: a payload that names the manifest, and the signature over it in base64.
    Simple {
        /// The bytes that are signed.
        payload: Vec<u8>,
        /// Base64 of the DER signature.
        signature: String,
    },
    /// cosign 3: a Sigstore bundle with a DSSE envelope.
    Bundle {
        /// Its JSON.
        bundle: Vec<u8>,
    },
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    subject: Vec<Subject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: SubjectDigest,
}

#[derive(Deserialize)]
struct SubjectDigest {
    sha256: String,
}

impl Signature {
    /// The digest of the manifest that one of `keys` has signed here.
    ///
    /// # Errors
    /// If it cannot be read, or none of the keys made it.
    pub(super) fn signed(&self, keys: &Keys) -> Result<Digest, String> {
        match self {
            Signature::Simple { payload, signature } => simple(payload, signature, keys),
            Signature::Bundle { bundle } => from_bundle(bundle, keys),
        }
    }
}

fn not_ours(keys: &Keys) -> String {
    format!("its signature is by none of the keys in verify.keys ({})", keys.names())
}

fn simple(payload: &[u8], signature: &str, keys: &Keys) -> Result<Digest, String> {
    let signature = STANDARD.decode(signature.trim()).map_err(|_| "its signature is not base64".to_owned())?;
    keys.signer(payload, &signature).ok_or_else(|| not_ours(keys))?;
    // Only now is the payload worth reading.
    let payload: Payload = serde_json::from_slice(payload).map_err(|_| "its signature signs no image".to_owned())?;
    Digest::parse(&payload.critical.image.digest).ok_or_else(|| "its signature names no digest".to_owned())
}

fn from_bundle(bundle: &[u8], keys: &Keys) -> Result<Digest, String> {
    let bundle: Bundle =
        serde_json::from_slice(bundle).map_err(|error| format!("its signature bundle cannot be read ({error})"))?;
    let Envelope { payload, payload_type, signatures } = bundle.dsse_envelope;
    let payload =
        STANDARD.decode(payload).map_err(|_| "the payload of its signature bundle is not base64".to_owned())?;
    // DSSE, version 1: what is signed says how long its parts are.
    let mut encoded = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    encoded.extend_from_slice(&payload);
    let is_good = |one: &EnvelopeSignature| {
        STANDARD.decode(&one.sig).is_ok_and(|signature| keys.signer(&encoded, &signature).is_some())
    };
    if !signatures.iter().any(is_good) {
        return Err(not_ours(keys));
    }
    let statement: Option<Statement> = serde_json::from_slice(&payload).ok().filter(|_| payload_type == STATEMENT);
    let statement = statement.ok_or_else(|| "its signature bundle holds no statement".to_owned())?;
    if statement.predicate_type != SIGNED {
        return Err("its signature bundle attests something else than the artifact".to_owned());
    }
    let first = statement.subject.first().map(|subject| format!("sha256:{}", subject.digest.sha256));
    first.as_deref().and_then(Digest::parse).ok_or_else(|| "its signature bundle names no digest".to_owned())
}
