//! Who we are to a registry: looked up in a docker config each time, since a mounted pull secret changes; or Azure's workload identity.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::fault::is_azure;
use super::reference::Reference;

/// The most that a docker config or a token's file may take.
const FILE_BYTES: u64 = 1 << 20;

/// A password or token. Shown to nobody.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Secret(pub(super) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// How to log in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Credentials {
    /// Not at all. The note says what else was found, for whoever is then refused.
    Anonymous {
        /// Empty, or what may be the reason.
        note: String,
    },
    /// By name and password.
    Basic { user: String, password: Secret },
    /// By a token that is exchanged for others.
    Identity(Secret),
    /// By the pod's own identity in Azure.
    Workload(Workload),
}

/// What AKS puts into a pod with workload identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Workload {
    /// `AZURE_FEDERATED_TOKEN_FILE`
    pub(super) token_file: PathBuf,
    /// `AZURE_CLIENT_ID`
    pub(super) client: String,
    /// `AZURE_TENANT_ID`
    pub(super) tenant: String,
    /// `AZURE_AUTHORITY_HOST`
    pub(super) authority: String,
}

/// Where credentials are looked for: what the environment said when the process started.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// Files that may be docker configs; the first that is there counts.
    configs: Vec<PathBuf>,
    workload: Option<Workload>,
}

impl Places {
    /// Reads `DOCKER_CONFIG`, `HOME` and Azure's variables.
    pub(super) fn from_env(var: impl Fn(&str) -> Option<String>) -> Places {
        let mut configs = Vec::new();
        if let Some(folder) = var("DOCKER_CONFIG").map(PathBuf::from) {
            // The folder as docker means it, a mounted secret of Kubernetes, or the file itself.
            configs.extend([folder.join("config.json"), folder.join(".dockerconfigjson"), folder]);
        } else if let Some(home) = var("HOME") {
            configs.push(Path::new(&home).join(".docker/config.json"));
        }
        let workload = || {
            Some(Workload {
                token_file: PathBuf::from(var("AZURE_FEDERATED_TOKEN_FILE")?),
                client: var("AZURE_CLIENT_ID")?,
                tenant: var("AZURE_TENANT_ID")?,
                authority: var("AZURE_AUTHORITY_HOST")
                    .unwrap_or_else(|| "https://login.microsoftonline.com/".to_owned()),
            })
        };
        Places { configs, workload: workload() }
    }

    /// Looks up how to log in for a reference.
    ///
    /// # Errors
    /// One line: a docker config that cannot be read. It never quotes what is in it.
    pub(super) fn look_up(&self, reference: &Reference) -> Result<Credentials, String> {
        let found = match self.configs.iter().find(|path| path.is_file()) {
            Some(path) => DockerConfig::read(path)?.credentials(reference, path)?,
            None => Credentials::Anonymous { note: String::new() },
        };
        let name = reference.host().split(':').next().unwrap_or_default();
        match (found, &self.workload) {
            (Credentials::Anonymous { .. }, Some(workload)) if is_azure(name) => {
                Ok(Credentials::Workload(workload.clone()))
            }
            (found, _) => Ok(found),
        }
    }
}

/// Reads a small file of text.
pub(super) fn read_small(path: &Path) -> Result<String, String> {
    let at = |why: &dyn fmt::Display| format!("{} cannot be read ({why})", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| at(&error))?;
    file.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| at(&error))?;
    match text.len() as u64 > FILE_BYTES {
        true => Err(at(&"it has more than 1 MiB")),
        false => Ok(text),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Login>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Login {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl DockerConfig {
    fn read(path: &Path) -> Result<DockerConfig, String> {
        // The parser's own words could quote a password.
        serde_json::from_str(&read_small(path)?).map_err(|error| {
            format!("{} is no docker config (line {}, column {})", path.display(), error.line(), error.column())
        })
    }

    fn credentials(&self, reference: &Reference, path: &Path) -> Result<Credentials, String> {
        let place = format!("{}/{}", reference.host(), reference.repository());
        // As Kubernetes does: the longest entry that the place begins with, part by part.
        let fits = |key: &str| {
            let key = plain(key);
            let at = place.strip_prefix(key).filter(|rest| rest.starts_with('/')).map(|_| key.len());
            at.or_else(|| (reference.host() == "docker.io" && key == "index.docker.io").then_some(0))
        };
        let best =
            self.auths.iter().filter_map(|(key, login)| Some((fits(key)?, login))).max_by_key(|(length, _)| *length);
        let login = match best {
            Some((_, login)) => login.credentials().map_err(|why| {
                format!(
                    "{}: the entry for {} {why}: log in again, or make the pull secret anew",
                    path.display(),
                    reference.host()
                )
            })?,
            None => None,
        };
        if let Some(login) = login {
            return Ok(login);
        }
        let helper = self.cred_helpers.iter().find(|(key, _)| plain(key) == reference.host()).map(|(_, helper)| helper);
        let note = match helper.or(self.creds_store.as_ref()) {
            Some(helper) => format!(
                "{} leaves it to the credential helper {}, and helpers are not supported: put the login itself under `auths`",
                path.display(),
                crate::text::shown(helper, 60)
            ),
            None => format!("{} has no login for {}", path.display(), reference.host()),
        };
        Ok(Credentials::Anonymous { note })
    }
}

/// A key of `auths` without what docker puts around the host.
fn plain(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

impl Login {
    /// None for an empty entry, which docker leaves where a helper keeps the login.
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = some(&self.identitytoken) {
            return Ok(Some(Credentials::Identity(Secret(token))));
        }
        if let (Some(user), Some(password)) = (some(&self.username), some(&self.password)) {
            return Ok(Some(Credentials::Basic { user, password: Secret(password) }));
        }
        let Some(auth) = some(&self.auth) else { return Ok(None) };
        let decoded = STANDARD.decode(auth.trim()).map_err(|_| "has an `auth` that is not base64")?;
        let decoded = String::from_utf8(decoded).map_err(|_| "has an `auth` that is not text")?;
        let (user, password) = decoded.split_once(':').ok_or("has an `auth` that is not user:password")?;
        Ok(Some(Credentials::Basic { user: user.to_owned(), password: Secret(password.to_owned()) }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    fn look_up(config: &str, reference: &str) -> Result<Credentials, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".dockerconfigjson"), config).unwrap();
        let places = Places::from_env(|name| (name == "DOCKER_CONFIG").then(|| folder.path().display().to_string()));
        places.look_up(&Reference::parse(reference).unwrap())
    }

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Basic { user: user.to_owned(), password: Secret(password.to_owned()) }
    }

    #[test]
    fn every_form_of_a_login_is_taken() {
        let auth = STANDARD.encode("me:pass:word");
        let config = format!(r#"{{"auths":{{"https://r.io/v1/":{{"auth":"{auth}"}}}}}}"#);
        assert_eq!(look_up(&config, "oci://r.io/a:1").unwrap(), basic("me", "pass:word"));
        let config = r#"{"auths":{"r.io:5000":{"username":"u","password":"p"}}}"#;
        assert_eq!(look_up(config, "oci://r.io:5000/a:1").unwrap(), basic("u", "p"));
        let config = r#"{"auths":{"r.io":{"auth":"eDp5","identitytoken":"t"}}}"#;
        assert_eq!(look_up(config, "oci://r.io/a:1").unwrap(), Credentials::Identity(Secret("t".to_owned())));
        let config = r#"{"auths":{"https://index.docker.io/v1/":{"username":"u","password":"p"}}}"#;
        assert_eq!(look_up(config, "oci://docker.io/a/b:1").unwrap(), basic("u", "p"));
    }

    #[test]
    fn the_longest_entry_wins_and_a_name_is_not_cut_in_its_middle() {
        let config =
            r#"{"auths":{"r.io":{"username":"all","password":"p"},"r.io/team":{"username":"team","password":"p"}}}"#;
        assert_eq!(look_up(config, "oci://r.io/team/a:1").unwrap(), basic("team", "p"));
        assert_eq!(look_up(config, "oci://r.io/teamwork:1").unwrap(), basic("all", "p"));
        let other = look_up(config, "oci://r.io.evil.com/a:1").unwrap();
        assert!(matches!(other, Credentials::Anonymous { .. }), "{other:?}");
    }

    #[test]
    fn helpers_are_named_as_unsupported() {
        for config in [r#"{"auths":{"r.io":{}},"credsStore":"desktop"}"#, r#"{"credHelpers":{"r.io":"desktop"}}"#] {
            let found = look_up(config, "oci://r.io/a:1").unwrap();
            assert!(format!("{found:?}").contains("helper desktop, and helpers are not supported"), "{found:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_without_what_is_in_it() {
        let token_in_the_wrong_place = r#"{"auths": "hunter2"}"#;
        for (config, said) in [
            (token_in_the_wrong_place, "is no docker config"),
            (r#"{"auths":{"r.io":{"auth":"hunter2!"}}}"#, "not base64"),
            (r#"{"auths":{"r.io":{"auth":"aHVudGVyMg=="}}}"#, "not user:password"),
        ] {
            let why = look_up(config, "oci://r.io/a:1").unwrap_err();
            assert!(why.contains(said) && !why.contains("hunter2"), "{why}");
        }
        assert!(!format!("{:?}", basic("u", "hunter2")).contains("hunter2"));
    }

    #[test]
    fn a_pod_with_workload_identity_uses_it_for_azure_alone() {
        let var = |name: &str| match name {
            "AZURE_FEDERATED_TOKEN_FILE" => Some("/t".to_owned()),
            "AZURE_CLIENT_ID" | "AZURE_TENANT_ID" => Some("id".to_owned()),
            _ => None,
        };
        let places = Places::from_env(var);
        let found = |reference: &str| places.look_up(&Reference::parse(reference).unwrap()).unwrap();
        assert!(matches!(found("oci://x.azurecr.io/a:1"), Credentials::Workload(_)));
        assert!(matches!(found("oci://azurecr.io.example.com/a:1"), Credentials::Anonymous { .. }));
    }
}
