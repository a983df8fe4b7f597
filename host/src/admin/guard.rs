//! Who may ask: whoever has the token, where there is one; else whoever is on this machine and no web page. Pure but for reading the
//! token's file.

use std::path::Path;

use sha2::{Digest as _, Sha256};

/// The longest token that is taken, in bytes.
const TOKEN_BYTES: u64 = 4 << 10;

/// What a request says of who sent it.
pub(super) struct Caller<'a> {
    pub(super) host: Option<&'a str>,
    pub(super) origin: Option<&'a str>,
    pub(super) authorization: Option<&'a str>,
}

/// Why a request is not answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum No {
    /// It has no token, or a wrong one.
    Token(String),
    /// It comes from where it may not.
    Place(&'static str),
}

/// Lets a request in, or says why not.
pub(super) fn check(caller: &Caller<'_>, token_file: Option<&Path>) -> Result<(), No> {
    // Only browsers send it, and no page has any business here.
    if caller.origin.is_some() {
        return Err(No::Place("requests of web pages are not answered"));
    }
    let Some(file) = token_file else {
        return match caller.host.is_some_and(is_plain) {
            true => Ok(()),
            // A name may be made to point here by whoever owns it.
            false => Err(No::Place("without a token only localhost or an address is taken as the host")),
        };
    };
    let token = read(file).map_err(|error| No::Token(format!("admin.tokenFile cannot be read: {error}")))?;
    let given = caller.authorization.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    // Compared by their hashes: how long that takes says nothing about the token.
    match Sha256::digest(given.trim()) == Sha256::digest(token.trim()) && !token.trim().is_empty() {
        true => Ok(()),
        false => Err(No::Token("a token is required: WINDLASS_TOKEN".to_owned())),
    }
}

/// `localhost` or an address, with or without a port.
fn is_plain(host: &str) -> bool {
    let is_address = host.parse::<std::net::SocketAddr>().is_ok()
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    is_address || name == "localhost"
}

fn read(file: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut token = String::new();
    std::fs::File::open(file)?.take(TOKEN_BYTES).read_to_string(&mut token)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn without_a_token_names_and_pages_are_refused() {
        let ask = |host, origin| check(&Caller { host: Some(host), origin, authorization: None }, None);
        for host in ["localhost", "localhost:8081", "127.0.0.1:8081", "[::1]:8081", "10.0.0.1", "[::1]"] {
            assert_eq!(ask(host, None), Ok(()), "{host}");
        }
        for host in ["evil.example", "evil.example:8081", "localhost.evil.example:1", ""] {
            assert!(matches!(ask(host, None), Err(No::Place(_))), "{host}");
        }
        assert!(matches!(ask("localhost", Some("http://localhost")), Err(No::Place(_))));
    }

    #[test]
    fn with_a_token_only_the_token_counts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        let ask =
            |authorization| check(&Caller { host: Some("windlass.svc"), origin: None, authorization }, Some(&file));
        assert_eq!(ask(Some("Bearer s3cret")), Ok(()));
        for bad in [None, Some("Bearer "), Some("Bearer s3cre"), Some("s3cret")] {
            assert!(matches!(ask(bad), Err(No::Token(_))), "{bad:?}");
        }
        std::fs::write(&file, "\n").unwrap();
        assert!(ask(Some("Bearer ")).is_err(), "an empty token is none");
        std::fs::remove_file(&file).unwrap();
        assert!(ask(Some("Bearer s3cret")).is_err());
    }
}
