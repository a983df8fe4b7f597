//! From a registry's challenge to the header that satisfies it: basic, bearer, a token that is exchanged, Azure's workload identity.
//! Tokens are kept until shortly before they expire, and those who need the same one at once share it.

use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::client::{Answer, Ask, Client};
use super::credentials::{Credentials, Secret, Workload, read_small};
use super::fault::Fault;
use super::reference::{Reference, is_loopback};
use super::shared::Shared;

/// The most that a token's answer may take.
const TOKEN_BYTES: u64 = 256 << 10;
/// How long a token is good for that does not say: what docker's registries grant where nothing is said.
const UNSAID: Duration = Duration::from_secs(60);
/// The longest that a token is kept, whatever it says.
const LONGEST: Duration = Duration::from_secs(12 * 3_600);
/// A token is kept until so long before its end, or for nine tenths of its life where that is sooner.
const BEFORE_END: Duration = Duration::from_secs(300);

/// What may be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Access {
    /// Read.
    Pull,
    /// Read and write.
    Push,
}

/// What a registry wants of whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from elsewhere.
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// Reads the headers of a 401. None where there is no challenge that we know.
    pub(super) fn read(headers: &HeaderMap) -> Option<Challenge> {
        let found: Vec<Challenge> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|header| Challenge::parse(header.to_str().ok()?))
            .collect();
        let bearer = found.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        bearer.or(found.first()).cloned()
    }

    fn parse(header: &str) -> Option<Challenge> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        let mut rest = rest.trim_start();
        while let Some((name, value)) = rest.split_once('=') {
            let (value, after) = match value.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => value.split_once(',').unwrap_or((value, "")),
            };
            match name.trim().to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                _ => {}
            }
            rest = after.trim_start_matches([',', ' ']);
        }
        Some(Challenge::Bearer { realm: realm?, service })
    }
}

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    /// Of the access token, in seconds.
    expires_in: Option<u64>,
}

/// What tokens are kept for, and by whose right.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Purpose {
    host: String,
    repository: String,
    access: Access,
    credentials: Credentials,
}

/// The tokens that were granted and are still good. One per process.
#[derive(Default)]
pub(super) struct Tokens {
    /// By registry and scope: the header that opens it.
    headers: Shared<Purpose, HeaderValue>,
    /// By registry and identity: what Azure's exchange gave for the pod's own token.
    exchanged: Shared<(String, Workload), Secret>,
}

/// What asks for tokens, and for what.
pub(super) struct Login<'a> {
    pub(super) client: &'a Client,
    pub(super) tokens: &'a Tokens,
    pub(super) reference: &'a Reference,
    pub(super) access: Access,
    pub(super) credentials: &'a Credentials,
}

impl Login<'_> {
    /// The header that let us in before and should still do.
    pub(super) fn kept(&self) -> Option<HeaderValue> {
        self.tokens.headers.peek(&self.purpose())
    }

    /// That header does not let us in any more.
    pub(super) fn forget(&self, header: &HeaderValue) {
        self.tokens.headers.forget(&self.purpose(), header);
    }

    /// Gets the header that satisfies `challenge`; none where there is nothing to give.
    pub(super) async fn satisfy(&self, challenge: &Challenge) -> Result<Option<HeaderValue>, Fault> {
        match (challenge, self.credentials) {
            (Challenge::Basic, Credentials::Basic { user, password }) => self.header(&basic(user, password)).map(Some),
            (Challenge::Basic, Credentials::Anonymous { .. }) => Ok(None),
            (Challenge::Basic, Credentials::Identity(_) | Credentials::Workload(_)) => {
                Err(self.fault("it wants name and password, and what is configured is a token"))
            }
            (Challenge::Bearer { realm, service }, _) => {
                let fetch = async {
                    let (token, time) = self.granted(self.realm(realm)?, service.as_deref()).await?;
                    Ok((self.header(&format!("Bearer {}", token.0))?, time))
                };
                Box::pin(self.tokens.headers.get(&self.purpose(), fetch)).await.map(Some)
            }
        }
    }

    fn purpose(&self) -> Purpose {
        Purpose {
            host: self.reference.host().to_owned(),
            repository: self.reference.repository().to_owned(),
            access: self.access,
            credentials: self.credentials.clone(),
        }
    }

    /// A token for this repository, and for how long it may be kept.
    async fn granted(&self, realm: Url, service: Option<&str>) -> Result<(Secret, Duration), Fault> {
        match self.credentials {
            Credentials::Anonymous { .. } => self.token(realm, service, None).await,
            Credentials::Basic { user, password } => self.token(realm, service, Some(basic(user, password))).await,
            Credentials::Identity(refresh) => self.refreshed(realm, service, refresh).await,
            Credentials::Workload(workload) => self.by_workload(realm, service, workload).await,
        }
    }

    /// By what Azure exchanges the pod's own token for. That may have been withdrawn since: then once more from the beginning.
    async fn by_workload(
        &self,
        realm: Url,
        service: Option<&str>,
        workload: &Workload,
    ) -> Result<(Secret, Duration), Fault> {
        let whose = (self.reference.host().to_owned(), workload.clone());
        let exchanged = || Box::pin(self.tokens.exchanged.get(&whose, self.exchanged(workload)));
        let kept = self.tokens.exchanged.peek(&whose);
        let refresh = exchanged().await?;
        let granted = self.refreshed(realm.clone(), service, &refresh).await;
        if !matches!(granted, Err(Fault::Credentials { .. })) {
            return granted;
        }
        self.tokens.exchanged.forget(&whose, &refresh);
        match kept == Some(refresh) {
            true => self.refreshed(realm, service, &exchanged().await?).await,
            false => granted,
        }
    }

    fn fault(&self, why: &str) -> Fault {
        Fault::Credentials { host: self.reference.host().to_owned(), why: why.to_owned() }
    }

    fn header(&self, value: &str) -> Result<HeaderValue, Fault> {
        let mut header = HeaderValue::from_str(value).map_err(|_| self.fault("a token is no header's value"))?;
        header.set_sensitive(true);
        Ok(header)
    }

    /// Where tokens are asked for. Never in the clear, but on this machine.
    fn realm(&self, realm: &str) -> Result<Url, Fault> {
        let url = Url::parse(realm).ok().filter(|url| url.host_str().is_some());
        let url = url.ok_or_else(|| self.fault("the registry sends us to a realm that is no URL"))?;
        let local = is_loopback(self.reference.host()) && url.host_str().is_some_and(is_loopback);
        match url.scheme() {
            "https" => Ok(url),
            "http" if local => Ok(url),
            _ => Err(self.fault("the registry wants the login sent in the clear, to a realm that is not https")),
        }
    }

    fn scope(&self) -> String {
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        format!("repository:{}:{actions}", self.reference.repository())
    }

    /// Asks with name and password, or with nothing, as docker does.
    async fn token(
        &self,
        mut realm: Url,
        service: Option<&str>,
        basic: Option<String>,
    ) -> Result<(Secret, Duration), Fault> {
        {
            let mut query = realm.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", &self.scope());
        }
        let authorization = basic.map(|basic| self.header(&basic)).transpose()?;
        let answer = self.client.ask(&Ask { authorization, ..Ask::get(realm, TOKEN_BYTES) }).await?;
        self.read(&answer, "token", |tokens| tokens.token.or(tokens.access_token))
    }

    /// Exchanges a refresh token for one that opens this repository.
    async fn refreshed(
        &self,
        realm: Url,
        service: Option<&str>,
        refresh: &Secret,
    ) -> Result<(Secret, Duration), Fault> {
        let scope = self.scope();
        let form = [
            ("grant_type", "refresh_token"),
            ("service", service.unwrap_or(self.reference.host())),
            ("scope", &scope),
            ("client_id", "windlass"),
            ("refresh_token", &refresh.0),
        ];
        let answer = self.client.ask(&Ask::form(realm, &form, TOKEN_BYTES)).await?;
        self.read(&answer, "token for the repository", |tokens| tokens.access_token.or(tokens.token))
    }

    /// The pod's own token for one of Azure's directory, and that for the registry's.
    async fn exchanged(&self, workload: &Workload) -> Result<(Secret, Duration), Fault> {
        let assertion = read_small(&workload.token_file).map_err(|why| self.fault(&why))?;
        let authority = workload.authority.trim_end_matches('/');
        let url = self.realm(&format!("{authority}/{}/oauth2/v2.0/token", workload.tenant))?;
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &workload.client),
            ("scope", "https://containerregistry.azure.net/.default"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.trim()),
        ];
        let answer = self.client.ask(&Ask::form(url, &form, TOKEN_BYTES)).await?;
        let (directory, _) = self.read(
            &answer,
            "token of Azure's directory (is the federated credential set up for this service account?)",
            |tokens| tokens.access_token,
        )?;
        let host = self.reference.host();
        let url = self.realm(&format!("https://{host}/oauth2/exchange"))?;
        let form = [
            ("grant_type", "access_token"),
            ("service", host),
            ("tenant", &workload.tenant),
            ("access_token", &directory.0),
        ];
        let answer = self.client.ask(&Ask::form(url, &form, TOKEN_BYTES)).await?;
        self.read(&answer, "exchange of the pod's identity (does it have the role AcrPull?)", |tokens| {
            tokens.refresh_token
        })
    }

    /// Takes a token out of an answer, of which nothing else is ever shown, and says for how long it may be kept.
    fn read(
        &self,
        answer: &Answer,
        what: &str,
        take: impl Fn(Granted) -> Option<String>,
    ) -> Result<(Secret, Duration), Fault> {
        if !answer.status.is_success() {
            return Err(self.fault(&format!(
                "{} was answered when asked for the {what}: check the login",
                answer.status.as_u16()
            )));
        }
        let granted: Option<Granted> = serde_json::from_slice(&answer.body).ok();
        let said = granted.as_ref().and_then(|granted| granted.expires_in).map(Duration::from_secs);
        let token = granted.and_then(take).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| self.fault(&format!("the answer for the {what} holds none")))?;
        let time = kept_for(said.or_else(|| life(&token)));
        Ok((Secret(token), time))
    }
}

/// For how long a token of this life is kept.
fn kept_for(life: Option<Duration>) -> Duration {
    let life = life.unwrap_or(UNSAID).min(LONGEST);
    life - BEFORE_END.min(life / 10)
}

/// How long a token lives by its own words, if it is a JWT: Azure says it nowhere else. Between two of its own times, so that our
/// clock does not matter.
fn life(token: &str) -> Option<Duration> {
    use base64::Engine as _;
    #[derive(Deserialize)]
    struct Times {
        exp: u64,
        iat: Option<u64>,
        nbf: Option<u64>,
    }
    let payload = token.split('.').nth(1)?;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    let times: Times = serde_json::from_slice(&payload).ok()?;
    Some(Duration::from_secs(times.exp.saturating_sub(times.iat.or(times.nbf)?)))
}

fn basic(user: &str, password: &Secret) -> String {
    use base64::Engine as _;
    let both = format!("{user}:{}", password.0);
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(both))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_until_shortly_before_its_end() {
        let seconds = |life: Option<u64>| kept_for(life.map(Duration::from_secs)).as_secs();
        for (life, kept) in [
            (None, 54),
            (Some(0), 0),
            (Some(60), 54),
            (Some(600), 540),
            (Some(10_800), 10_500),
            (Some(u64::MAX), 12 * 3_600 - 300),
        ] {
            assert_eq!(seconds(life), kept, "{life:?}");
        }
    }

    #[test]
    fn a_token_says_itself_how_long_it_lives() {
        use base64::Engine as _;
        let token =
            |payload: &str| format!("e30.{}.x", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload));
        for (token, seconds) in [
            (token(r#"{"iat":1000,"nbf":5,"exp":11800}"#), Some(10_800)),
            (token(r#"{"nbf":1000,"exp":1060}"#), Some(60)),
            (token(r#"{"iat":1000,"exp":900}"#), Some(0)),
            (token(r#"{"exp":900}"#), None),
            (token(r#"{"iat":-1,"exp":900}"#), None),
            ("e30.%%%.x".to_owned(), None),
            ("opaque".to_owned(), None),
        ] {
            assert_eq!(life(&token).map(|life| life.as_secs()), seconds, "{token}");
        }
    }

    #[test]
    fn challenges_are_read_in_the_forms_that_registries_write() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        for (header, wanted) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://a/token\",service=\"s\",scope=\"repository:a,b:pull\"",
                bearer("https://a/token", Some("s")),
            ),
            ("bearer service=s, realm=\"https://a/token\"", bearer("https://a/token", Some("s"))),
            ("Bearer realm=\"https://a/token?x=1\"", bearer("https://a/token?x=1", None)),
            ("Bearer service=\"s\"", None),
            ("Bearer realm=\"unclosed", None),
            ("Negotiate", None),
        ] {
            assert_eq!(Challenge::parse(header), wanted, "{header}");
        }
    }
}
