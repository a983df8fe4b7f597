//! Why nothing came from a registry: each fault is one line with cause and remedy, and never holds a token or password.

use crate::core::name::Digest;

/// See the module. What an operator does next differs from fault to fault; so does whether asking again may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nobody answered, or the answer broke off.
    #[error("registry {host} cannot be reached ({why}): check its name, the network and HTTPS_PROXY")]
    Unreachable {
        /// `HOST:PORT`
        host: String,
        /// What went wrong.
        why: String,
    },
    /// It answered that it cannot now, also after all tries.
    #[error("registry {host} answers {status} after {tries} tries: it is overloaded or broken; see its own status")]
    Busy {
        /// `HOST:PORT`
        host: String,
        /// The HTTP status.
        status: u16,
        /// How often it was asked.
        tries: u32,
    },
    /// It does not let us in.
    #[error("registry {host} answers {status} for {repository}: {remedy}")]
    NotAllowed {
        /// `HOST:PORT`
        host: String,
        /// 401 or 403.
        status: u16,
        /// The repository.
        repository: String,
        /// What to do, which depends on the registry.
        remedy: String,
    },
    /// The credentials that are configured cannot be used.
    #[error("credentials for registry {host}: {why}")]
    Credentials {
        /// `HOST:PORT`
        host: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// There is no such thing.
    #[error("registry {host} answers 404: there is no {what}; check repository and tag, and that it was pushed")]
    NotFound {
        /// `HOST:PORT`
        host: String,
        /// What was asked for.
        what: String,
    },
    /// It does not speak as a registry does.
    #[error("{host} does not answer as a registry ({why}): is the host right, or is a proxy or login page in between?")]
    NotARegistry {
        /// `HOST:PORT`
        host: String,
        /// What it did.
        why: String,
    },
    /// What came is not what its digest says.
    #[error("registry {host} gave bytes of {found} for {wanted}: the content was changed or damaged; push it again")]
    WrongDigest {
        /// `HOST:PORT`
        host: String,
        /// What was asked for.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// What is there is no plugin.
    #[error("{what}: {why}")]
    NotAPlugin {
        /// The reference.
        what: String,
        /// What it is instead, and what to do.
        why: String,
    },
    /// No signature by one of the keys.
    #[error("{what}: {why}")]
    Unverified {
        /// The reference or file.
        what: String,
        /// What is missing or wrong, and what to do.
        why: String,
    },
    /// The host's own machine failed.
    #[error("{0}")]
    Machine(String),
}

impl Fault {
    /// Whether it is the registry's or the network's outage, which passes by itself.
    pub fn is_outage(&self) -> bool {
        match self {
            Fault::Unreachable { .. } | Fault::Busy { .. } => true,
            Fault::NotAllowed { .. }
            | Fault::Credentials { .. }
            | Fault::NotFound { .. }
            | Fault::NotARegistry { .. }
            | Fault::WrongDigest { .. }
            | Fault::NotAPlugin { .. }
            | Fault::Unverified { .. }
            | Fault::Machine(_) => false,
        }
    }
}

/// What whoever is not let in should do. On AKS the usual surprise is whose identity asks.
pub(super) fn not_allowed(host: &str, status: u16, repository: &str, note: &str) -> Fault {
    let name = host.split(':').next().unwrap_or_default();
    let remedy = if is_azure(name) {
        "the node's identity may pull images, but this pod's may not: give the pod workload identity with the role AcrPull, or \
         mount a pull secret and set DOCKER_CONFIG"
    } else {
        "log in: mount a docker config (a pull secret) and set DOCKER_CONFIG, and check that the account may read this repository"
    };
    let remedy = if note.is_empty() { remedy.to_owned() } else { format!("{remedy} ({note})") };
    Fault::NotAllowed { host: host.to_owned(), status, repository: repository.to_owned(), remedy }
}

/// Whether a host is a registry of Azure's, in any of its clouds.
pub(super) fn is_azure(host: &str) -> bool {
    [".azurecr.io", ".azurecr.cn", ".azurecr.us"].iter().any(|suffix| host.ends_with(suffix))
}
