//! From a registry's challenge to the header that satisfies it: basic, bearer, a token that is exchanged, Azure's workload identity.

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::client::{Answer, Ask, Client};
use super::credentials::{Credentials, Secret, Workload, read_small};
use super::fault::Fault;
use super::reference::{Reference, is_loopback};

/// The most that a token's answer may take.
const TOKEN_BYTES: u64 = 256 << 10;

/// What may be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
struct Tokens {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
}

/// What asks for tokens, and for what.
pub(super) struct Login<'a> {
    pub(super) client: &'a Client,
    pub(super) reference: &'a Reference,
    pub(super) access: Access,
}

impl Login<'_> {
    /// Gets the header that satisfies `challenge`; none where there is nothing to give.
    pub(super) async fn satisfy(
        &self,
        challenge: &Challenge,
        credentials: &Credentials,
    ) -> Result<Option<HeaderValue>, Fault> {
        match (challenge, credentials) {
            (Challenge::Basic, Credentials::Basic { user, password }) => self.header(&basic(user, password)).map(Some),
            (Challenge::Basic, Credentials::Anonymous { .. }) => Ok(None),
            (Challenge::Basic, Credentials::Identity(_) | Credentials::Workload(_)) => {
                Err(self.fault("it wants name and password, and what is configured is a token"))
            }
            (Challenge::Bearer { realm, service }, credentials) => {
                let realm = self.realm(realm)?;
                let token = match credentials {
                    Credentials::Anonymous { .. } => self.token(realm, service.as_deref(), None).await?,
                    Credentials::Basic { user, password } => {
                        self.token(realm, service.as_deref(), Some(basic(user, password))).await?
                    }
                    Credentials::Identity(refresh) => self.refreshed(realm, service.as_deref(), refresh).await?,
                    Credentials::Workload(workload) => {
                        let refresh = self.exchanged(workload).await?;
                        self.refreshed(realm, service.as_deref(), &refresh).await?
                    }
                };
                self.header(&format!("Bearer {}", token.0)).map(Some)
            }
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
    async fn token(&self, mut realm: Url, service: Option<&str>, basic: Option<String>) -> Result<Secret, Fault> {
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
    async fn refreshed(&self, realm: Url, service: Option<&str>, refresh: &Secret) -> Result<Secret, Fault> {
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
    async fn exchanged(&self, workload: &Workload) -> Result<Secret, Fault> {
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
        let directory = self.read(
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

    /// Takes a token out of an answer, of which nothing else is ever shown.
    fn read(&self, answer: &Answer, what: &str, take: impl Fn(Tokens) -> Option<String>) -> Result<Secret, Fault> {
        if !answer.status.is_success() {
            return Err(self.fault(&format!(
                "{} was answered when asked for the {what}: check the login",
                answer.status.as_u16()
            )));
        }
        let token = serde_json::from_slice(&answer.body).ok().and_then(take).filter(|token| !token.is_empty());
        token.map(Secret).ok_or_else(|| self.fault(&format!("the answer for the {what} holds none")))
    }
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
