//! Signatures by another library than the verifier's: made by OpenSSL, and checked in as they came.

#![allow(clippy::unwrap_used, reason = "a test may stop here")]

use super::*;

const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE97LwYDRMjgLmw30KBfqf3qvxN/r+\n\
    kPQSgtdM6OThfWdGaG3E0jDtdM1wrmQIAWZi8oBDruca5wWFI+O8qHxugQ==\n\
    -----END PUBLIC KEY-----\n";
const OTHER_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAt2CDLVHlSnUJf2E5HVlQGrs2fXc\n\
    L/ZsQGj0Zn++U38SpTWUful//REq6l9iZ/MCYKwQ7aGwi+IOqxJRYLzaig==\n\
    -----END PUBLIC KEY-----\n";
const P384_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEiCTAEis5BayZxsLBHGAHdGnj7KsFta3x\n\
    7kHMghcdLYX7pnZp31msQJP3lzkTgAIuYyE+wIxFsZN7EW1hj2r/Ca/2SFr1WE9r\n\
    O0Xf8SKaJrVQnXciyEWwVH58DZt0ixuG\n\
    -----END PUBLIC KEY-----\n";
/// What every signature here is of.
const SIGNED: Digest = Digest([0xab; 32]);
const PAYLOAD: &str = r#"{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":"sha256:abababababababababababababababababababababababababababababababab"},"type":"cosign container image signature"},"optional":null}"#;
const STATEMENT: &str = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"","digest":{"sha256":"abababababababababababababababababababababababababababababababab"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}"#;
const PAYLOAD_SIGNATURE: &str =
    "MEUCIQCTZBTyLFQsqGGJOrvlWUeEjSNQdA/PlwygquGSDlXjswIgTu7rR7tzpDikK+izIe184Ey7flId9J4YO8ZJMlo+ExQ=";
const STATEMENT_SIGNATURE: &str =
    "MEUCIQDLF0SrHGi6Q9TonjBY/nZQWO9U5w0RmCcoO2x6XXCXTgIgNAMn372TCnSxE3FMUFf3S3EkFyyAYJvvl5Wj/vZtMiA=";
/// Over the same statement with the predicate of a provenance.
const ATTESTATION_SIGNATURE: &str =
    "MEQCIH9H7xaVlPoRy96mNM4NdSeaFTDDdgOZ01gZujd7/i/ZAiAsrn1Oad5KQjEmu8HudbKBV2uYFqbr4qoDaDABp6RkFQ==";
const HELLO_SIGNATURE: &str =
    "MEUCIDh63y8bASiTXVkJtHKDlwXJbPwyYvGHPEd9hCKejlZFAiEA+uD9wecFR6i2DhLZIp4pWzLYVzfYWov39oXrOYUa74c=";

fn keys(pem: &str) -> Keys {
    Keys::read(&[pem.to_owned()], Path::new("")).unwrap()
}

fn simple(payload: &str, signature: &str) -> Signature {
    Signature::Simple { payload: payload.as_bytes().to_vec(), signature: signature.to_owned() }
}

fn bundle(statement: &str, signature: &str) -> Signature {
    let envelope = serde_json::json!({
        "payload": STANDARD.encode(statement),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{ "sig": signature }],
    });
    let bundle = serde_json::json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": { "publicKey": { "hint": "x" } },
        "dsseEnvelope": envelope,
    });
    Signature::Bundle { bundle: bundle.to_string().into_bytes() }
}

#[track_caller]
fn refused(keys: &Keys, signatures: &[Signature], said: &str) {
    let why = keys.check_manifest(SIGNED, signatures).unwrap_err();
    assert!(why.contains(said) && why.contains("cosign sign"), "{why:?} lacks {said:?}");
}

#[test]
fn both_forms_of_cosign_are_taken() {
    let good = [simple(PAYLOAD, PAYLOAD_SIGNATURE), bundle(STATEMENT, STATEMENT_SIGNATURE)];
    for signature in &good {
        keys(KEY).check_manifest(SIGNED, std::slice::from_ref(signature)).unwrap();
        refused(&keys(OTHER_KEY), std::slice::from_ref(signature), "by none of the keys");
    }
    // One good one is enough, wherever it stands.
    keys(KEY).check_manifest(SIGNED, &[simple("{}", PAYLOAD_SIGNATURE), good[0].clone()]).unwrap();
    let both = Keys::read(&[OTHER_KEY.to_owned(), KEY.to_owned()], Path::new("")).unwrap();
    both.check_manifest(SIGNED, &good).unwrap();
    Keys::default().check_manifest(SIGNED, &[]).unwrap();
}

#[test]
fn whatever_is_not_a_good_signature_of_this_manifest_is_refused() {
    let keys = keys(KEY);
    refused(&keys, &[], "has none");
    refused(&keys, &[simple(PAYLOAD, "%%%")], "not base64");
    refused(&keys, &[simple(PAYLOAD, HELLO_SIGNATURE)], "by none of the keys");
    refused(&keys, &[simple(&PAYLOAD.replace("abab", "abac"), PAYLOAD_SIGNATURE)], "by none of the keys");
    refused(&keys, &[simple("hello", HELLO_SIGNATURE)], "signs no image");
    refused(&keys, &[Signature::Bundle { bundle: b"<html>".to_vec() }], "cannot be read");
    refused(&keys, &[bundle(&STATEMENT.replace("abab", "abac"), STATEMENT_SIGNATURE)], "by none of the keys");
    let attestation = STATEMENT.replace("https://sigstore.dev/cosign/sign/v1", "https://slsa.dev/provenance/v1");
    refused(&keys, &[bundle(&attestation, ATTESTATION_SIGNATURE)], "attests something else");
    let other = Digest([1; 32]);
    let why = keys.check_manifest(other, &[simple(PAYLOAD, PAYLOAD_SIGNATURE)]).unwrap_err();
    assert!(why.contains(&SIGNED.to_string()) && why.contains(&other.to_string()), "{why}");
}

#[test]
fn a_file_has_its_signature_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.wasm");
    let beside = folder.path().join("job.wasm.sig");
    let check = |bytes: &[u8]| keys(KEY).check_file(&file, bytes);
    assert!(check(b"hello").unwrap_err().contains("job.wasm.sig is missing"));
    std::fs::write(&beside, HELLO_SIGNATURE).unwrap();
    check(b"hello").unwrap();
    assert!(check(b"hell0").unwrap_err().contains("over other bytes"));
    assert!(keys(OTHER_KEY).check_file(&file, b"hello").unwrap_err().contains("by none of the keys"));
    std::fs::write(&beside, format!("{HELLO_SIGNATURE}\n")).unwrap();
    check(b"hello").unwrap();
    for (bad, said) in [("", "by none"), ("???", "not base64"), ("\u{ff}", "not base64")] {
        std::fs::write(&beside, bad).unwrap();
        assert!(check(b"hello").unwrap_err().contains(said), "{bad}");
    }
    std::fs::write(&beside, "A".repeat(100_000)).unwrap();
    assert!(check(b"hello").unwrap_err().contains("64 KiB"));
    std::fs::remove_file(&beside).unwrap();
    std::fs::create_dir(&beside).unwrap();
    assert!(check(b"hello").unwrap_err().contains("not a plain file"));
    Keys::default().check_file(&file, b"hello").unwrap();
}

#[test]
fn keys_are_files_or_pem_and_of_one_kind() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cosign.pub"), format!("{KEY}{OTHER_KEY}")).unwrap();
    let read = |text: &str| Keys::read(&[text.to_owned()], folder.path());
    assert_eq!(read("cosign.pub").unwrap().keys.len(), 2, "a file may hold the old and the new key");
    assert_eq!(read(KEY).unwrap().keys.len(), 1);
    std::fs::write(folder.path().join("cosign.key"), KEY.replace("PUBLIC KEY", "ENCRYPTED SIGSTORE PRIVATE KEY"))
        .unwrap();
    std::fs::write(folder.path().join("cut.pub"), &KEY[..100]).unwrap();
    for (bad, said) in [
        ("none.pub", "none.pub: is missing"),
        ("cosign.key", "no PUBLIC KEY"),
        ("cut.pub", "cut.pub: is no PEM"),
        (P384_KEY, "another kind than ECDSA P-256"),
        ("", "not a plain file"),
    ] {
        let why = read(bad).unwrap_err();
        assert!(why.contains(said) && why.contains("verify.keys"), "{why}");
    }
}
