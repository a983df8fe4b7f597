//! What is asked of one repository: manifests, blobs, signatures, uploads. Logs in when the registry wants it.

use bytes::Bytes;
use reqwest::header::HeaderValue;
use reqwest::{Method, Url};

use super::client::{Answer, Ask, Client};
use super::credentials::{Credentials, Places};
use super::fault::{Fault, not_allowed};
use super::layout::{self, Descriptor, Layer, Manifest};
use super::reference::{Reference, Wanted};
use super::token::{Access, Challenge, Login, Tokens};
use crate::artifact::digest_of;
use crate::core::name::Digest;
use crate::verify::{SIGNED, Signature};

/// The largest manifest that is taken.
const MANIFEST_BYTES: u64 = 4 << 20;
/// The largest signature that is taken.
const SIGNATURE_BYTES: u64 = 1 << 20;
/// How many signatures of one artifact are looked at, in each of the two forms.
const SIGNATURES: usize = 16;
/// How many pages of referrers are looked at.
const PAGES: usize = 16;

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// What cosign says of a bundle beside it: what it attests.
const PREDICATE_ANNOTATION: &str = "dev.sigstore.bundle.predicateType";

/// What is left of an artifact by those who signed it.
pub(super) struct Signatures {
    pub(super) found: Vec<Signature>,
    /// How many more there are than are looked at.
    pub(super) unread: usize,
}

/// A manifest as it came.
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
    pub(super) media_type: String,
}

/// One visit to one repository.
pub(super) struct Session<'a> {
    client: &'a Client,
    tokens: &'a Tokens,
    reference: &'a Reference,
    access: Access,
    credentials: Credentials,
    authorization: Option<HeaderValue>,
    /// Whether it was granted just now, so that asking for another one is of no use.
    is_fresh: bool,
}

impl<'a> Session<'a> {
    /// Begins a visit. Nothing is sent yet.
    pub(super) fn begin(
        client: &'a Client,
        tokens: &'a Tokens,
        places: &Places,
        reference: &'a Reference,
        access: Access,
    ) -> Result<Session<'a>, Fault> {
        let credentials =
            places.look_up(reference).map_err(|why| Fault::Credentials { host: reference.host().to_owned(), why })?;
        let mut session =
            Session { client, tokens, reference, access, credentials, authorization: None, is_fresh: false };
        session.authorization = session.login().kept();
        Ok(session)
    }

    /// The manifest that the reference stands for.
    pub(super) async fn manifest(&mut self) -> Result<Found, Fault> {
        let name = match self.reference.wanted() {
            Wanted::Tag(tag) => tag.clone(),
            Wanted::Digest(digest) => digest.to_string(),
        };
        let what = format!("{} in {}", name, self.reference.repository());
        let found = self.manifest_named(&name).await?.ok_or_else(|| self.missing(&what))?;
        match self.reference.wanted() {
            Wanted::Digest(wanted) if *wanted != found.digest => Err(self.wrong(*wanted, found.digest)),
            Wanted::Digest(_) | Wanted::Tag(_) => Ok(found),
        }
    }

    /// What the reference stands for, without fetching it; none if the registry does not say.
    pub(super) async fn digest(&mut self) -> Result<Option<Digest>, Fault> {
        let Wanted::Tag(tag) = self.reference.wanted() else { return Ok(None) };
        let url = self.url(&format!("manifests/{tag}"))?;
        let ask = Ask { method: Method::HEAD, accept: Some(layout::ACCEPT), ..Ask::get(url, MANIFEST_BYTES) };
        let answer = self.ask(ask).await?;
        Ok(answer.header("docker-content-digest").filter(|_| answer.status.is_success()).and_then(Digest::parse))
    }

    /// A manifest by tag or digest; none if there is none.
    async fn manifest_named(&mut self, name: &str) -> Result<Option<Found>, Fault> {
        let url = self.url(&format!("manifests/{name}"))?;
        let answer = self.ask(Ask { accept: Some(layout::ACCEPT), ..Ask::get(url, MANIFEST_BYTES) }).await?;
        if answer.status.as_u16() == 404 {
            return Ok(None);
        }
        let answer = self.expect_success(answer)?;
        let digest = digest_of(&answer.body);
        let media_type = answer.media_type().to_owned();
        if media_type.contains("html") {
            return Err(self.odd("it answers with a web page".to_owned()));
        }
        if let Some(said) = answer.header("docker-content-digest").and_then(Digest::parse)
            && said != digest
        {
            return Err(self.wrong(said, digest));
        }
        Ok(Some(Found { digest, bytes: answer.body, media_type }))
    }

    /// The wasm.
    pub(super) async fn layer(&mut self, layer: Layer) -> Result<Vec<u8>, Fault> {
        let found = self.blob(layer.digest, layer.size).await?;
        found.ok_or_else(|| self.missing(&format!("blob {} in {}", layer.digest, self.reference.repository())))
    }

    async fn blob(&mut self, digest: Digest, most_bytes: u64) -> Result<Option<Vec<u8>>, Fault> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let answer = self.ask(Ask::get(url, most_bytes)).await?;
        if answer.status.as_u16() == 404 {
            return Ok(None);
        }
        let answer = self.expect_success(answer)?;
        match digest_of(&answer.body) {
            found if found == digest => Ok(Some(answer.body)),
            found => Err(self.wrong(digest, found)),
        }
    }

    /// All signatures of a manifest that cosign left: under the tag of its digest, and as referrers.
    pub(super) async fn signatures(&mut self, signed: Digest) -> Result<Signatures, Fault> {
        let mut signatures = Vec::new();
        if let Some(found) = self.manifest_named(&format!("sha256-{}.sig", signed.hex())).await? {
            for layer in read(&found)?.layers.iter().take(SIGNATURES) {
                let Some(signature) = layer.annotations.get(SIGNATURE_ANNOTATION) else { continue };
                if layer.media_type != SIMPLE_SIGNING {
                    continue;
                }
                if let Some(payload) = self.small_blob(&layer.digest).await? {
                    signatures.push(Signature::Simple { payload, signature: signature.clone() });
                }
            }
        }
        let mut bundles = self.referrers(signed).await?;
        let unread = bundles.len().saturating_sub(SIGNATURES);
        bundles.truncate(SIGNATURES);
        for digest in bundles {
            let Some(found) = self.manifest_named(&digest.to_string()).await? else { continue };
            if found.digest != digest {
                return Err(self.wrong(digest, found.digest));
            }
            for layer in read(&found)?.layers.iter().take(1).filter(|layer| layer.media_type.starts_with(BUNDLE)) {
                if let Some(bundle) = self.small_blob(&layer.digest).await? {
                    signatures.push(Signature::Bundle { bundle });
                }
            }
        }
        Ok(Signatures { found: signatures, unread })
    }

    /// The digests of manifests that refer to this one and hold a bundle: from the API, or under the tag that stands in for it.
    async fn referrers(&mut self, signed: Digest) -> Result<Vec<Digest>, Fault> {
        let mut bundles = Vec::new();
        let mut next = Some(self.url(&format!("referrers/{signed}"))?);
        for page in 0..PAGES {
            let Some(url) = next.take() else { break };
            let answer = self.ask(Ask { accept: Some(layout::INDEX), ..Ask::get(url.clone(), MANIFEST_BYTES) }).await?;
            let Some(found) = index(&answer.body).filter(|_| answer.status.is_success()) else {
                // No such API here, or something in between that answers for it. Later pages are another matter.
                return if page == 0 { self.referrers_by_tag(signed).await } else { Ok(bundles) };
            };
            // Whether or not the registry filters: whoever else refers to it is of no interest.
            bundles.extend(bundles_of(found));
            next = next_page(&url, answer.header("link"));
        }
        Ok(bundles)
    }

    async fn referrers_by_tag(&mut self, signed: Digest) -> Result<Vec<Digest>, Fault> {
        let found = self.manifest_named(&format!("sha256-{}", signed.hex())).await?;
        // What is no index holds no signature; the artifact is then refused for want of one.
        Ok(found.and_then(|found| index(&found.bytes)).map(bundles_of).unwrap_or_default())
    }

    async fn small_blob(&mut self, digest: &str) -> Result<Option<Vec<u8>>, Fault> {
        match Digest::parse(digest) {
            Some(digest) => self.blob(digest, SIGNATURE_BYTES).await,
            None => Ok(None),
        }
    }

    /// Uploads a blob, unless it is there.
    pub(super) async fn upload(&mut self, bytes: Bytes) -> Result<Digest, Fault> {
        let digest = digest_of(&bytes);
        let url = self.url(&format!("blobs/{digest}"))?;
        let there = self.ask(Ask { method: Method::HEAD, ..Ask::get(url, 0) }).await?;
        if there.status.is_success() {
            return Ok(digest);
        }
        let url = self.url("blobs/uploads/")?;
        let begun = self.ask(Ask { method: Method::POST, ..Ask::get(url.clone(), MANIFEST_BYTES) }).await?;
        let begun = self.expect_success(begun)?;
        let location = begun.header("location").and_then(|location| url.join(location).ok());
        let mut location = location.ok_or_else(|| self.odd("it does not say where to upload to".to_owned()))?;
        location.query_pairs_mut().append_pair("digest", &digest.to_string());
        let put = Ask {
            method: Method::PUT,
            content_type: Some("application/octet-stream"),
            body: bytes,
            ..Ask::get(location, MANIFEST_BYTES)
        };
        let done = self.ask(put).await?;
        self.expect_success(done)?;
        Ok(digest)
    }

    /// Uploads a manifest under the reference's tag.
    pub(super) async fn tag(&mut self, tag: &str, manifest: Bytes) -> Result<Digest, Fault> {
        let url = self.url(&format!("manifests/{tag}"))?;
        let digest = digest_of(&manifest);
        let put = Ask {
            method: Method::PUT,
            content_type: Some(layout::MANIFEST),
            body: manifest,
            ..Ask::get(url, MANIFEST_BYTES)
        };
        let done = self.ask(put).await?;
        self.expect_success(done)?;
        Ok(digest)
    }

    fn login(&self) -> Login<'_> {
        Login {
            client: self.client,
            tokens: self.tokens,
            reference: self.reference,
            access: self.access,
            credentials: &self.credentials,
        }
    }

    /// Asks, and once more with a login if the registry wants one, or another than it took before.
    async fn ask(&mut self, mut ask: Ask) -> Result<Answer, Fault> {
        // An upload may be sent elsewhere; the login stays here.
        let is_ours = ask.url.origin() == self.url("")?.origin();
        ask.authorization = self.authorization.clone().filter(|_| is_ours);
        let answer = self.client.ask(&ask).await?;
        if answer.status.as_u16() != 401 || !is_ours || self.is_fresh {
            // What is taken now may have expired by the time of a later request.
            self.is_fresh &= answer.status.as_u16() == 401;
            return Ok(answer);
        }
        if let Some(expired) = self.authorization.take() {
            self.login().forget(&expired);
        }
        let Some(challenge) = Challenge::read(&answer.headers) else { return Ok(answer) };
        self.authorization = match Box::pin(self.login().satisfy(&challenge)).await {
            Ok(authorization) => authorization,
            // Whoever has no login and is refused a token needs to hear how to get one.
            Err(Fault::Credentials { .. }) if matches!(self.credentials, Credentials::Anonymous { .. }) => {
                return Ok(answer);
            }
            Err(fault) => return Err(fault),
        };
        ask.authorization = self.authorization.clone();
        if ask.authorization.is_none() {
            return Ok(answer);
        }
        let answer = self.client.ask(&ask).await?;
        self.is_fresh = answer.status.as_u16() == 401;
        Ok(answer)
    }

    fn expect_success(&self, answer: Answer) -> Result<Answer, Fault> {
        let status = answer.status.as_u16();
        let note = match &self.credentials {
            Credentials::Anonymous { note } => note.as_str(),
            Credentials::Basic { .. } | Credentials::Identity(_) | Credentials::Workload(_) => "",
        };
        match status {
            200..=299 => Ok(answer),
            401 | 403 => Err(not_allowed(self.reference.host(), status, self.reference.repository(), note)),
            404 => Err(self.missing(&format!("repository {}", self.reference.repository()))),
            _ => Err(self.odd(format!("it answers {status}{}", error_code(&answer.body)))),
        }
    }

    fn url(&self, path: &str) -> Result<Url, Fault> {
        let root = self.reference.api();
        let whole = if path.is_empty() { root } else { format!("{root}{}/{path}", self.reference.repository()) };
        Url::parse(&whole).map_err(|error| Fault::Machine(format!("{}: {error}", self.reference)))
    }

    fn missing(&self, what: &str) -> Fault {
        Fault::NotFound { host: self.reference.host().to_owned(), what: what.to_owned() }
    }

    fn wrong(&self, wanted: Digest, found: Digest) -> Fault {
        Fault::WrongDigest { host: self.reference.host().to_owned(), wanted, found }
    }

    fn odd(&self, why: String) -> Fault {
        Fault::NotARegistry { host: self.reference.host().to_owned(), why }
    }
}

fn read(found: &Found) -> Result<Manifest, Fault> {
    serde_json::from_slice(&found.bytes).map_err(|error| Fault::Unverified {
        what: found.digest.to_string(),
        why: format!("the manifest of its signature cannot be read ({error}): sign it again"),
    })
}

/// What an index lists; none if it is none.
fn index(bytes: &[u8]) -> Option<Vec<Descriptor>> {
    serde_json::from_slice::<Manifest>(bytes).ok()?.manifests
}

/// The digests of those that hold a bundle, but for those that say that they attest something else.
fn bundles_of(listed: Vec<Descriptor>) -> Vec<Digest> {
    let is_bundle = |one: &Descriptor| one.artifact_type.as_ref().is_some_and(|kind| kind.starts_with(BUNDLE));
    let may_sign = |one: &Descriptor| one.annotations.get(PREDICATE_ANNOTATION).is_none_or(|of| of == SIGNED);
    let bundles = listed.iter().filter(|one| is_bundle(one) && may_sign(one));
    bundles.filter_map(|one| Digest::parse(&one.digest)).collect()
}

/// Where `Link` says that the next page is, if that is the same registry.
fn next_page(url: &Url, link: Option<&str>) -> Option<Url> {
    let (target, rest) = link?.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = rest.split(';').any(|part| matches!(part.trim(), "rel=next" | "rel=\"next\""));
    url.join(target).ok().filter(|next| is_next && next.origin() == url.origin())
}

/// The code of a registry's error. Its message is left out: it is the registry's to choose what it repeats there.
fn error_code(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let code = json.as_ref().and_then(|json| json.pointer("/errors/0/code")?.as_str());
    match code.filter(|code| code.len() <= 40 && code.bytes().all(|c| c.is_ascii_uppercase() || c == b'_')) {
        Some(code) => format!(" {code}"),
        None => String::new(),
    }
}
