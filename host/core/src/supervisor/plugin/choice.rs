//! Which version runs although its source holds another artifact, because a person or the host decided so, and how that outlives the
//! host: it is told to the shell whenever it changes, and taken up again by the next host for as long as the source holds what was
//! decided against. Another artifact in the source is a decision of the operator's that is newer, and ends it.

use std::sync::Arc;

use super::versions::Newest;
use super::{Context, Life, PluginState, Version};
use crate::config::Plugin;
use crate::event::{Action, Chosen, LoadedVersion};
use crate::health::Stage;
use crate::name::Digest;

/// What was chosen before this host is on its way to run again.
#[derive(Debug)]
pub(in crate::supervisor) struct Recalling {
    chosen: Chosen,
    /// What the source holds: it runs if the chosen one cannot be had.
    newer: Version,
}

impl Recalling {
    pub(super) fn newer(&self) -> &Version {
        &self.newer
    }

    pub(super) fn reconfigure(&mut self, config: Arc<Plugin>) {
        self.newer.config = config;
    }
}

/// What was last told to the shell: the version that runs, the artifact that it runs instead of, and whether that proved bad.
pub(super) type ToldChoice = Option<(Digest, Digest, bool)>;

impl PluginState {
    /// The first artifact of this host is there: what a host before chose, if the source holds one of the two artifacts still.
    pub(super) fn chosen_before(&mut self, digest: Digest, context: &mut Context<'_>) -> Option<Chosen> {
        let chosen = context.shared.chosen.remove(&self.name)?;
        self.told_choice = Some((chosen.runs.0, chosen.instead_of.0, chosen.bad.is_some()));
        if digest != chosen.runs.0 && digest != chosen.instead_of.0 {
            return None;
        }
        for (digest, number) in [chosen.runs, chosen.instead_of] {
            self.versions.expect(digest, number);
        }
        Some(chosen)
    }

    /// The source holds what was decided against: the chosen version is asked for instead.
    pub(super) fn recall(&mut self, newer: Version, chosen: Chosen, context: &mut Context<'_>) {
        context.actions.push(Action::Recall { plugin: context.id, digest: chosen.runs.0 });
        self.recalling = Some(Recalling { chosen, newer });
    }

    /// Another artifact came while one is recalled, or the same once more. Returns whether it changes nothing.
    pub(super) fn recalls_still(&mut self, version: &Version, context: &mut Context<'_>) -> bool {
        match self.recalling.take() {
            Some(Recalling { chosen, newer }) if newer.loaded.digest == version.loaded.digest => {
                self.recall(version.clone(), chosen, context);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Nothing new came of the source: what is recalled is asked for once more, since the shell may have dropped it for that.
    pub(super) fn recall_again(&self, context: &mut Context<'_>) {
        if let Some(recalling) = &self.recalling {
            context.actions.push(Action::Recall { plugin: context.id, digest: recalling.chosen.runs.0 });
        }
    }

    /// The chosen version can run again.
    pub(super) fn recalled(&mut self, config: Arc<Plugin>, loaded: Arc<LoadedVersion>, context: &mut Context<'_>) {
        let digest = loaded.digest;
        // One that is not wanted any more is let go by that.
        self.versions.hold(digest);
        let is_it = |recalling: &mut Recalling| recalling.chosen.runs.0 == digest;
        let Some(Recalling { chosen, newer }) = self.recalling.take_if(is_it) else { return };
        let refused = match &self.life {
            Life::Refused { reason } => Some(reason.clone()),
            Life::Loading { .. } | Life::Ready(_) | Life::Ignored | Life::Leaving => None,
        };
        self.leave_loading(context);
        let number = self.versions.number(&loaded);
        self.go_live(Version { number, loaded, since: context.now.wall, config }, context);
        match chosen.bad {
            Some(why) => {
                self.versions.bad = Some((newer.loaded.digest, why.clone()));
                self.versions.newest = Newest::Rejected { why };
            }
            // It is asked what it was asked before.
            None => self.loaded(newer.config, newer.loaded, context),
        }
        if let Some(reason) = refused {
            self.refused(None, reason, context);
        }
    }

    /// The chosen version cannot be had: what the source holds runs, as if nothing had been chosen.
    pub(super) fn not_recalled(&mut self, digest: Digest, reason: &str, context: &mut Context<'_>) {
        let is_it = |recalling: &mut Recalling| recalling.chosen.runs.0 == digest;
        let Some(Recalling { newer, .. }) = self.recalling.take_if(is_it) else { return };
        let why =
            format!("it was chosen before the restart and cannot run again, so that its source decides: {reason}");
        self.note_stage(digest, Stage::Refused, &why, context);
        if matches!(self.life, Life::Loading { .. }) {
            self.leave_loading(context);
            self.go_live(newer, context);
        }
    }

    /// The plugin's file or entry is gone, and with it what was chosen.
    pub(super) fn forget_choice(&mut self, context: &mut Context<'_>) {
        self.recalling = None;
        let before = context.shared.chosen.remove(&self.name).is_some();
        if self.told_choice.take().is_some() || before {
            context.actions.push(Action::Choice { plugin: self.name.clone(), chosen: None });
        }
    }

    /// Tells what is chosen, where that changed. Called after everything that may have changed it.
    pub(in crate::supervisor) fn tell_choice(&mut self, context: &mut Context<'_>) {
        let chosen = match &self.life {
            Life::Ready(live) => {
                self.decided_against().map(|(digest, bad)| (live.loaded.digest, digest, bad.is_some()))
            }
            // It is not known yet, or as it was: what ends it says so itself.
            Life::Loading { .. } | Life::Refused { .. } | Life::Ignored | Life::Leaving => return,
        };
        if chosen != self.told_choice {
            self.told_choice = chosen;
            context.actions.push(Action::Choice { plugin: self.name.clone(), chosen: self.chosen() });
        }
    }

    /// The newer artifact that does not run, and how it proved bad, if it did.
    fn decided_against(&self) -> Option<(Digest, Option<&String>)> {
        match (&self.versions.newest, &self.versions.bad) {
            (Newest::AwaitingGrant { version, .. }, _) => Some((version.loaded.digest, None)),
            (_, Some((digest, why))) => Some((*digest, Some(why))),
            (_, None) => None,
        }
    }

    fn chosen(&self) -> Option<Chosen> {
        let Life::Ready(live) = &self.life else { return None };
        let (digest, bad) = self.decided_against()?;
        Some(Chosen {
            plugin: self.name.clone(),
            runs: (live.loaded.digest, Some(live.number)),
            instead_of: (digest, self.versions.number_of(digest)),
            bad: bad.cloned(),
        })
    }
}
