//! Artifacts in container registries: fetched, checked, kept on disk, pushed. Blocks its callers, which are loaders and commands;
//! what is awaited runs on a runtime of its own, as low as the lanes. Compiles and runs nothing.

mod client;
mod credentials;
mod fault;
mod layout;
mod reference;
mod session;
mod shared;
mod store;
mod token;
mod troubles;

use std::future::Future;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

pub use fault::Fault;
pub use reference::{Reference, SCHEME, Wanted};
pub use troubles::Troubles;

use crate::artifact::{Anatomy, Artifact};
use crate::core::name::Digest;
use crate::lanes::priority::{Niceness, Role};
use crate::verify::{Keys, Signature};
use client::Client;
use credentials::Places;
use session::{Session, Signatures};
use store::{Kept, Store};
use token::{Access, Tokens};

/// How often something is tried that may pass by itself.
const TRIES: u32 = 4;
/// For everything that belongs to one artifact, its login and signatures included.
const WHOLE: Duration = Duration::from_secs(420);

/// The way to all registries. Dropping it waits for nothing.
pub struct Registry {
    /// Made at the first need: most hosts never ask a registry.
    runtime: OnceLock<Result<Runtime, String>>,
    niceness: Niceness,
    client: Client,
    tokens: Tokens,
    places: Places,
    store: Option<Store>,
}

/// An artifact that passed every check but those on its code.
pub struct Fetched {
    /// The digest of its manifest: what a tag stands for, and what a signature signs.
    pub manifest: Digest,
    /// The wasm.
    pub artifact: Artifact,
    /// Whether it is what was kept on disk.
    pub from_disk: bool,
    /// What an operator should know although there is an artifact: it is the kept one since the registry failed, or it could not be kept.
    pub problem: Option<String>,
}

/// What asking for a reference again came to.
pub enum Resolved {
    /// It still stands for the manifest that is known.
    Unchanged,
    /// It stands for this one.
    New(Fetched),
}

impl Registry {
    /// Connects to nothing and starts no thread yet. Artifacts are kept under `data_dir`, if there is one; credentials and proxies
    /// are those of the environment.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn new(data_dir: Option<&Path>, niceness: Niceness) -> Result<Registry> {
        Ok(Registry {
            runtime: OnceLock::new(),
            niceness,
            client: Client::new(TRIES),
            tokens: Tokens::default(),
            places: Places::from_env(|name| std::env::var(name).ok().filter(|value| !value.is_empty())),
            store: data_dir.map(Store::open).transpose()?,
        })
    }

    /// Gets an artifact for a plugin that has none: a digest from disk, if it is there; a tag from the registry, and if that fails, as
    /// it was when it last was good. Returns after seven minutes at most.
    ///
    /// # Errors
    /// Why there is none, and no good copy on disk.
    pub fn load(&self, reference: &Reference, keys: &Keys) -> Result<Fetched, Fault> {
        let kept = self.kept(reference, keys);
        match (kept, reference.is_fixed()) {
            (Some(kept), true) => Ok(kept),
            (Some(kept), false) => match self.wait(self.fetch(&self.client.trying_once(), reference, keys)) {
                Ok(fetched) => Ok(fetched),
                Err(fault) => Ok(Fetched { problem: Some(format!("{fault}; what was kept of it is used")), ..kept }),
            },
            (None, _) => self.wait(self.fetch(&self.client, reference, keys)),
        }
    }

    /// Asks again what a reference stands for, given the manifest of the version at hand. A digest is never asked for again.
    ///
    /// # Errors
    /// Why nothing was learnt, or why what is there now is no good; the version at hand is not touched by it.
    pub fn resolve(&self, reference: &Reference, keys: &Keys, known: Option<Digest>) -> Result<Resolved, Fault> {
        if known.is_some() && reference.is_fixed() {
            return Ok(Resolved::Unchanged);
        }
        self.wait(async {
            if known.is_some() {
                let mut session = Session::begin(&self.client, &self.tokens, &self.places, reference, Access::Pull)?;
                if session.digest().await? == known {
                    if let Some(store) = &self.store {
                        store.is_used(reference);
                    }
                    return Ok(Resolved::Unchanged);
                }
            }
            let fetched = self.fetch(&self.client, reference, keys).await?;
            Ok(if Some(fetched.manifest) == known { Resolved::Unchanged } else { Resolved::New(fetched) })
        })
    }

    /// Pushes a wasm file in the CNCF's layout, and returns its manifest's digest. `created` is a time in RFC 3339.
    ///
    /// # Errors
    /// If the reference has no tag, or the registry does not take it.
    pub fn push(
        &self,
        reference: &Reference,
        artifact: Artifact,
        anatomy: &Anatomy,
        created: &str,
    ) -> Result<Digest, Fault> {
        let Wanted::Tag(tag) = reference.wanted() else {
            return Err(Fault::Machine(format!("{reference}: push to a tag; the digest comes of the content")));
        };
        let written = layout::write(artifact.digest, artifact.bytes.len(), anatomy, created);
        self.wait(async {
            let mut session = Session::begin(&self.client, &self.tokens, &self.places, reference, Access::Push)?;
            session.upload(Bytes::from(artifact.bytes)).await?;
            session.upload(Bytes::from(written.config)).await?;
            session.tag(tag, Bytes::from(written.manifest)).await
        })
    }

    async fn fetch(&self, client: &Client, reference: &Reference, keys: &Keys) -> Result<Fetched, Fault> {
        let mut session = Session::begin(client, &self.tokens, &self.places, reference, Access::Pull)?;
        let found = session.manifest().await?;
        let layer = layout::wasm_layer(&found.bytes, &found.media_type).map_err(|why| not_a_plugin(reference, why))?;
        // Before the wasm: what nobody signed is not worth the way.
        let signatures = match keys.is_empty() {
            true => Vec::new(),
            false => signatures(&mut session, reference, found.digest, keys).await?,
        };
        let bytes = match self.store.as_ref().and_then(|store| store.blob(layer.digest)) {
            Some(bytes) => bytes,
            None => session.layer(layer).await?,
        };
        let kept = Kept { manifest: found.bytes, media_type: found.media_type, signatures };
        let stored = self.store.as_ref().map(|store| store.keep(reference, layer.digest, &bytes, &kept));
        let problem = stored
            .and_then(Result::err)
            .map(|error| format!("{reference}: it is not kept for a restart ({error:#}): look at dataDir's disk"));
        Ok(Fetched { manifest: found.digest, artifact: Artifact::from_bytes(bytes), from_disk: false, problem })
    }

    /// What was kept of a reference, if it passes today's checks.
    fn kept(&self, reference: &Reference, keys: &Keys) -> Option<Fetched> {
        let store = self.store.as_ref()?;
        let kept = store.kept(reference)?;
        let manifest = crate::artifact::digest_of(&kept.manifest);
        if matches!(reference.wanted(), Wanted::Digest(wanted) if *wanted != manifest) {
            return None;
        }
        let layer = layout::wasm_layer(&kept.manifest, &kept.media_type).ok()?;
        // Kept while nothing was asked for, perhaps: the registry then has to give the signature.
        keys.check_manifest(manifest, &kept.signatures).ok()?;
        let bytes = store.blob(layer.digest)?;
        Some(Fetched { manifest, artifact: Artifact::from_bytes(bytes), from_disk: true, problem: None })
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let made = self.runtime.get_or_init(|| runtime(self.niceness));
        let runtime = made.as_ref().map_err(|why| Fault::Machine(why.clone()))?;
        let bounded = async { tokio::time::timeout(WHOLE, work).await };
        runtime.block_on(bounded).unwrap_or_else(|_| {
            Err(Fault::Machine(format!("nothing whole came of it within {} minutes", WHOLE.as_secs() / 60)))
        })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(Ok(runtime)) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn runtime(niceness: Niceness) -> Result<Runtime, String> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        // Looking up names blocks.
        .max_blocking_threads(4)
        .thread_name("registry")
        .on_thread_start(move || {
            if let Err(error) = niceness.take(Role::Guest) {
                tracing::error!(error = format!("{error:#}"), "the registry's thread has not the niceness of its role");
            }
        })
        .enable_all()
        .build();
    runtime
        .map_err(|error| format!("no runtime for registries ({error}): is there a limit of processes or descriptors?"))
}

/// What was left of a manifest by those who signed it, if one of the keys is among them.
async fn signatures(
    session: &mut Session<'_>,
    reference: &Reference,
    manifest: Digest,
    keys: &Keys,
) -> Result<Vec<Signature>, Fault> {
    let Signatures { found, unread } = session.signatures(manifest).await?;
    let more = match unread {
        0 => String::new(),
        _ => format!(" ({unread} more that refer to it were not looked at: remove those that are of no use)"),
    };
    let unverified = |why| Fault::Unverified { what: reference.to_string(), why: format!("{why}{more}") };
    keys.check_manifest(manifest, &found).map_err(unverified)?;
    Ok(found)
}

fn not_a_plugin(reference: &Reference, why: String) -> Fault {
    Fault::NotAPlugin { what: reference.to_string(), why }
}

#[cfg(test)]
mod tests;
