//! One bounded HTTP exchange after another: time, size, tries and redirects have limits, and a login goes to its own host alone.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use rustls::{ClientConfig, RootCertStore};

use super::fault::Fault;

const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection may give nothing while something is expected.
const SILENCE: Duration = Duration::from_secs(10);
/// For everything but the wasm itself, with all tries.
const SMALL: Duration = Duration::from_secs(30);
/// For the wasm, with all tries: the largest artifact at less than 1 MiB a second.
const LARGE: Duration = Duration::from_secs(300);
/// What counts as small, in bytes.
const SMALL_BYTES: u64 = 8 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(400);
const MOST_PAUSE: Duration = Duration::from_secs(8);
/// The longest that a registry may tell us to wait before the next try.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(20);
const REDIRECTS: usize = 5;

/// Talks HTTP. One per process, since it keeps connections.
#[derive(Clone)]
pub(super) struct Client {
    connections: Arc<Connections>,
    /// How often something is tried that may pass by itself.
    tries: u32,
}

/// Made when they are first needed: a machine without roots of trust can still use a registry of its own.
#[derive(Default)]
struct Connections {
    secure: OnceLock<Result<reqwest::Client, String>>,
    plain: OnceLock<Result<reqwest::Client, String>>,
}

/// One exchange.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: Option<&'static str>,
    pub(super) content_type: Option<&'static str>,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) body: Bytes,
    /// The most that is read, in bytes; more is a fault.
    pub(super) most_bytes: u64,
}

impl Ask {
    pub(super) fn get(url: Url, most_bytes: u64) -> Ask {
        Ask {
            method: Method::GET,
            url,
            accept: None,
            content_type: None,
            authorization: None,
            body: Bytes::new(),
            most_bytes,
        }
    }

    /// A POST of a form.
    pub(super) fn form(url: Url, fields: &[(&str, &str)], most_bytes: u64) -> Ask {
        let mut encoded = Url::parse("form:").ok();
        if let Some(encoded) = &mut encoded {
            encoded.query_pairs_mut().extend_pairs(fields);
        }
        let body = encoded.as_ref().and_then(Url::query).unwrap_or_default().to_owned();
        Ask {
            method: Method::POST,
            content_type: Some("application/x-www-form-urlencoded"),
            body: Bytes::from(body),
            ..Ask::get(url, most_bytes)
        }
    }
}

/// What came back, whatever its status.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// A header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The media type, without parameters.
    pub(super) fn media_type(&self) -> &str {
        self.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim()
    }
}

/// What one try came to, if it may be tried again.
struct Passing {
    fault: Fault,
    retry_after: Option<Duration>,
}

impl Client {
    /// A client that tries so often.
    pub(super) fn new(tries: u32) -> Client {
        Client { connections: Arc::default(), tries }
    }

    /// The same connections for one who has something else to fall back on.
    pub(super) fn trying_once(&self) -> Client {
        Client { tries: 1, ..self.clone() }
    }

    /// Asks until there is an answer that is neither 429 nor 5xx, as often and as long as the limits allow.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Answer, Fault> {
        let is_small = ask.most_bytes <= SMALL_BYTES && (ask.body.len() as u64) <= SMALL_BYTES;
        let limit = if is_small { SMALL } else { LARGE };
        let tried = self.ask_again(ask);
        tokio::time::timeout(limit, tried)
            .await
            .unwrap_or_else(|_| Err(unreachable(&ask.url, format!("no whole answer within {} s", limit.as_secs()))))
    }

    async fn ask_again(&self, ask: &Ask) -> Result<Answer, Fault> {
        let http = self.http(&ask.url)?;
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let passing = match self.ask_once(http, ask, attempt).await? {
                Ok(answer) => return Ok(answer),
                Err(passing) => passing,
            };
            if attempt >= self.tries {
                return Err(passing.fault);
            }
            // Half to three halves of the pause: hosts that were refused together come back apart.
            let jitter = pause.mul_f64(0.5 + f64::from(attempt_jitter(&ask.url, attempt)) / 256.0);
            tokio::time::sleep(passing.retry_after.unwrap_or(jitter)).await;
            pause = (pause * 2).min(MOST_PAUSE);
        }
        Err(unreachable(&ask.url, "it was never tried".to_owned()))
    }

    /// The outer fault is final, the inner one may pass.
    async fn ask_once(
        &self,
        http: &reqwest::Client,
        ask: &Ask,
        attempt: u32,
    ) -> Result<Result<Answer, Passing>, Fault> {
        let mut request = http.request(ask.method.clone(), ask.url.clone());
        if let Some(accept) = ask.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(content_type) = ask.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if let Some(authorization) = &ask.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if ask.method != Method::GET && ask.method != Method::HEAD {
            request = request.body(ask.body.clone());
        }
        let passing = |why: String| Passing { fault: unreachable(&ask.url, why), retry_after: None };
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Ok(Err(passing(said(error)))),
        };
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            let fault = Fault::Busy { host: host_of(&ask.url), status: status.as_u16(), tries: attempt };
            return Ok(Err(Passing { fault, retry_after: retry_after(response.headers()) }));
        }
        let headers = response.headers().clone();
        let mut body = Vec::new();
        // What an error says is cut rather than refused.
        let most = if status.is_success() { ask.most_bytes } else { ask.most_bytes.min(64 << 10) };
        loop {
            match response.chunk().await {
                Ok(None) => break,
                Ok(Some(chunk)) if body.len() as u64 + chunk.len() as u64 <= most => body.extend_from_slice(&chunk),
                Ok(Some(_)) if !status.is_success() => break,
                Ok(Some(_)) => {
                    let why = format!("its answer has more than the {most} bytes that were expected");
                    return Err(Fault::NotARegistry { host: host_of(&ask.url), why });
                }
                Err(_) => {
                    let got = body.len();
                    return Ok(Err(passing(format!("the answer broke off after {got} bytes"))));
                }
            }
        }
        Ok(Ok(Answer { status, headers, body }))
    }

    fn http(&self, url: &Url) -> Result<&reqwest::Client, Fault> {
        let made = match url.scheme() {
            "http" => self.connections.plain.get_or_init(|| build(RootCertStore::empty(), false)),
            _ => self.connections.secure.get_or_init(|| roots().and_then(|roots| build(roots, true))),
        };
        made.as_ref().map_err(|why| Fault::Machine(why.clone()))
    }
}

/// The machine's roots of trust: `SSL_CERT_FILE` and `SSL_CERT_DIR`, else where the system keeps them.
fn roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    for error in &found.errors {
        tracing::warn!(%error, "certificates to trust registries by could not be read");
    }
    match roots.is_empty() {
        false => Ok(roots),
        true => Err(format!(
            "there are no certificates to trust a registry by{}: set SSL_CERT_FILE to a file of CA certificates in PEM, or install \
             ca-certificates",
            found.errors.first().map_or(String::new(), |error| format!(" ({error})"))
        )),
    }
}

fn build(roots: RootCertStore, is_secure: bool) -> Result<reqwest::Client, String> {
    let failed = |error: &dyn std::fmt::Display| format!("setting up the client for registries failed ({error})");
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("windlass/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .redirect(reqwest::redirect::Policy::limited(REDIRECTS))
        .https_only(is_secure);
    // This machine is never asked for through a proxy.
    let builder = if is_secure { builder } else { builder.no_proxy() };
    builder.build().map_err(|error| failed(&error))
}

/// `HOST` or `HOST:PORT`.
fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn unreachable(url: &Url, why: String) -> Fault {
    Fault::Unreachable { host: host_of(url), why }
}

/// An error in its innermost words, which say most. Without the URL, whose query may hold a token.
fn said(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let error = error.without_url();
    let mut inner: &dyn std::error::Error = &error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let said = crate::text::shown(&inner.to_string(), 200);
    match inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref).and_then(|tls| tls.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(_)) => {
            format!("{said}; if it is of a CA of your own, name that in SSL_CERT_FILE")
        }
        Some(_) | None => said,
    }
}

/// `Retry-After` in seconds; its other form, a date, is not worth a clock here.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MOST_RETRY_AFTER))
}

/// A byte that differs from process to process and try to try.
fn attempt_jitter(url: &Url, attempt: u32) -> u8 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write(url.as_str().as_bytes());
    hasher.write_u32(attempt);
    hasher.finish().to_le_bytes()[0]
}
