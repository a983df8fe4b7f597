//! Gets artifacts from registries for the loader, and knows which manifest each plugin's artifact came with, so that what did not change
//! is not loaded again. Looks into no artifact.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::loader::Job;
use crate::artifact::Artifact;
use crate::core::event::Event;
use crate::core::name::{Digest, PluginId};
use crate::driver::{Clock, Inbox, Message};
use crate::registry::{Fault, Fetched, Reference, Registry, Resolved, Troubles};
use crate::verify::Keys;

/// See the module.
pub(super) struct Fetcher {
    registry: Registry,
    troubles: Troubles,
    /// Says since when a registry is in trouble.
    clock: Clock,
    inbox: Arc<Inbox>,
    known: Mutex<HashMap<PluginId, Known>>,
}

/// What was last learnt for a plugin.
struct Known {
    reference: Reference,
    keys: Arc<Keys>,
    /// The manifest of the artifact that was handed out.
    manifest: Option<Digest>,
    /// Health says that something newer is no good: the next answer that is good is handed out, though it be the same once more.
    in_doubt: bool,
    /// What stays true until something else is fetched.
    problem: Option<String>,
}

impl Fetcher {
    pub(super) fn new(registry: Registry, clock: Clock, inbox: Arc<Inbox>) -> Fetcher {
        Fetcher { registry, troubles: Troubles::default(), clock, inbox, known: Mutex::default() }
    }

    /// Where artifacts are kept.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Gets a job's artifact, signed where that is asked for. None if there is nothing to do: it is asked again, and the tag did not move
    /// or the registry does not answer while there is a version.
    ///
    /// # Errors
    /// One line with the reference, the cause and the remedy.
    pub(super) fn artifact(&self, job: &Job, reference: &Reference) -> Result<Option<Artifact>, String> {
        let has_one = self.begin(job, reference);
        let known = self.known().get(&job.plugin).filter(|known| !known.in_doubt).and_then(|known| known.manifest);
        let answer = match job.again {
            true => self.registry.resolve(reference, &job.keys, known),
            false => self.registry.load(reference, &job.keys).map(Resolved::New),
        };
        match answer {
            Ok(Resolved::Unchanged) => {
                let problem = self.known().get(&job.plugin).and_then(|known| known.problem.clone());
                self.note(job, reference, problem);
                Ok(None)
            }
            Ok(Resolved::New(fetched)) => {
                self.note(job, reference, fetched.problem.clone());
                Ok(Some(self.take(job, fetched)))
            }
            Err(fault) => self.failed(job, reference, &fault, has_one).map(|()| None),
        }
    }

    /// A plugin is gone.
    pub(super) fn forget(&self, plugin: PluginId) {
        if let Some(gone) = self.known().remove(&plugin) {
            self.tell(&gone.reference, None);
        }
    }

    /// Notes what is asked for. Returns whether an artifact of just that was handed out before.
    fn begin(&self, job: &Job, reference: &Reference) -> bool {
        let fresh = || Known {
            reference: reference.clone(),
            keys: job.keys.clone(),
            manifest: None,
            in_doubt: false,
            problem: None,
        };
        let mut all = self.known();
        let known = all.entry(job.plugin).or_insert_with(fresh);
        let is_same = known.reference == *reference && known.keys == job.keys;
        let before = (!is_same).then(|| std::mem::replace(known, fresh()));
        let has_one = known.manifest.is_some();
        drop(all);
        if let Some(before) = before {
            self.tell(&before.reference, None);
        }
        has_one
    }

    fn take(&self, job: &Job, fetched: Fetched) -> Artifact {
        tracing::info!(
            plugin = job.name.as_str(),
            manifest = %fetched.manifest,
            digest = %fetched.artifact.digest,
            "fetched from a registry"
        );
        if let Some(known) = self.known().get_mut(&job.plugin) {
            known.manifest = Some(fetched.manifest);
            known.in_doubt = false;
            known.problem = fetched.problem.filter(|_| !fetched.from_disk);
        }
        fetched.artifact
    }

    fn failed(&self, job: &Job, reference: &Reference, fault: &Fault, has_one: bool) -> Result<(), String> {
        let why = fault.to_string();
        self.note(job, reference, fault.is_outage().then(|| why.clone()));
        if job.again && has_one && fault.is_outage() {
            // The entry `windlass` says it; the version that there is goes on.
            return Ok(());
        }
        if let Some(known) = self.known().get_mut(&job.plugin) {
            known.in_doubt = true;
        }
        Err(why)
    }

    /// Notes how the registry fares, unless nobody asks for it any more.
    fn note(&self, job: &Job, reference: &Reference, problem: Option<String>) {
        if let Some(problem) = &problem {
            tracing::warn!(plugin = job.name.as_str(), problem, "a registry is in trouble");
        }
        if self.known().contains_key(&job.plugin) {
            self.tell(reference, problem);
        }
    }

    fn tell(&self, reference: &Reference, problem: Option<String>) {
        self.troubles.note(reference, problem, self.clock.now().wall, |problem| {
            self.inbox.send(Message::Event(Event::HostFault { key: "registry", problem }));
        });
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PluginId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
