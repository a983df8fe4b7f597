//! A plugin's versions: what becomes of a newer one, when the live one is trusted, and which one takes over when it is not.
//!
//! A newer version is a candidate until it has been accepted, checked and tried, as far as each applies. The switch is one assignment:
//! starts from then on use it, runs in flight end on the version they began with. Nothing here starts or ends anything else.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Version;
use crate::event::LoadedVersion;
use crate::health::VersionRecord;
use crate::name::{Digest, RunId, VersionNumber};
use crate::time::Mono;

/// How many versions' lives are kept.
const RECORDS: usize = 10;

/// How much of a version's life is kept.
pub(super) const HISTORY: usize = 16;

/// The newest artifact, in relation to the live version.
#[derive(Debug, Clone)]
pub(in crate::supervisor) enum Newest {
    /// It is the live version.
    Live,
    /// It is on its way to be compiled; what is wrong with the one before it is so until then.
    Loading { matter: Option<String> },
    /// It wants what the live one did not.
    AwaitingGrant { version: Version, asks: String },
    /// Its own health check is asked.
    Checking { version: Version },
    /// `trial: OneRun`; no run while it waits for its turn.
    Trying { version: Version, run: Option<RunId> },
    /// It is not taken, and this is why.
    Rejected { why: String },
}

/// How far the live version is trusted.
#[derive(Debug, Clone)]
pub(in crate::supervisor) enum Tenure {
    /// Fully: it proved itself, or there was nothing before it.
    Trusted,
    /// Watched. `previous` takes over if it breaks.
    Probation { runs_left: u32, until: Option<Mono>, previous: Version, before: Before },
}

/// How the version before was doing: what it failed at as well is not held against the newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervisor) struct Before {
    pub(super) failing: Option<&'static str>,
    pub(super) unwell: bool,
}

/// Everything about a plugin's versions but the live one itself, which is in [`Life::Ready`].
#[derive(Debug)]
pub(in crate::supervisor) struct Versions {
    pub(in crate::supervisor) newest: Newest,
    pub(super) tenure: Tenure,
    /// What `rollback` goes to, once the live version is trusted.
    pub(super) previous: Option<Version>,
    /// The artifact that proved bad, and how: not tried again unless a person asks.
    pub(super) bad: Option<(Digest, String)>,
    pub(super) last_live: Option<Digest>,
    numbered: u32,
    /// What the shell holds code of.
    pub(super) held: Vec<Digest>,
    pub(super) records: VecDeque<VersionRecord>,
    /// The same as the report shares it: made when something changes, and that is seldom.
    shown: Arc<[VersionRecord]>,
}

impl Default for Versions {
    fn default() -> Versions {
        Versions {
            newest: Newest::Live,
            tenure: Tenure::Trusted,
            previous: None,
            bad: None,
            last_live: None,
            numbered: 0,
            held: Vec::new(),
            records: VecDeque::new(),
            shown: Arc::from([]),
        }
    }
}

/// In which part a run that ends was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervisor) enum Part {
    /// On the live version: it counts.
    Live,
    /// On a version that was replaced meanwhile.
    Old,
    /// The trial of a candidate.
    Trial,
}

impl Versions {
    /// What is the matter with the newest artifact, if anything.
    pub(in crate::supervisor) fn matter(&self) -> Option<String> {
        match &self.newest {
            Newest::Live | Newest::Checking { .. } | Newest::Trying { .. } => None,
            Newest::Loading { matter } => matter.clone(),
            Newest::AwaitingGrant { version, asks } => Some(format!(
                "version {} asks for what the present one does not ({asks}): `windlass swap` accepts it",
                version.number.0
            )),
            Newest::Rejected { why } => Some(why.clone()),
        }
    }

    /// The version on its way to be the live one.
    pub(super) fn coming(&mut self) -> Option<&mut Version> {
        match &mut self.newest {
            Newest::AwaitingGrant { version, .. } | Newest::Checking { version } | Newest::Trying { version, .. } => {
                Some(version)
            }
            Newest::Live | Newest::Loading { .. } | Newest::Rejected { .. } => None,
        }
    }

    /// Whether a newer version waits for a person's word.
    pub(in crate::supervisor) fn awaits_grant(&self) -> bool {
        matches!(self.newest, Newest::AwaitingGrant { .. })
    }

    /// What a newer version is at, while it is on its way.
    pub(in crate::supervisor) fn candidate(&self) -> Option<String> {
        let of = |version: &Version, what: &str| Some(format!("version {} {what}", version.number.0));
        match &self.newest {
            Newest::Live | Newest::Rejected { .. } => None,
            Newest::Loading { .. } => Some("a newer file is being loaded".to_owned()),
            Newest::AwaitingGrant { version, .. } => of(version, "awaits a grant"),
            Newest::Checking { version } => of(version, "is asked for its health"),
            Newest::Trying { version, run: None } => of(version, "waits for its trial run"),
            Newest::Trying { version, run: Some(_) } => of(version, "is on its trial run"),
        }
    }

    /// The lives of the last versions, newest first.
    pub(in crate::supervisor) fn records(&self) -> Arc<[VersionRecord]> {
        self.shown.clone()
    }

    /// Brings what [`Versions::records`] returns up to date.
    pub(super) fn refresh(&mut self) {
        self.shown = self.records.iter().cloned().collect();
    }

    /// When the probation of a continuous plugin's version is over.
    pub(in crate::supervisor) fn probation_ends(&self) -> Option<Mono> {
        match &self.tenure {
            Tenure::Trusted => None,
            Tenure::Probation { until, .. } => *until,
        }
    }

    pub(super) fn record(&mut self, digest: Digest) -> &mut VersionRecord {
        match self.records.iter().position(|record| record.digest == digest) {
            Some(at) => &mut self.records[at],
            None => {
                if self.records.len() >= RECORDS {
                    // The oldest that is over; the live one and the one before it are still of interest.
                    let over = self.records.iter().rposition(|record| !self.held.contains(&record.digest));
                    self.records.remove(over.unwrap_or(RECORDS - 1));
                }
                self.records.push_front(VersionRecord {
                    number: None,
                    digest,
                    author_version: None,
                    history: Vec::new(),
                });
                &mut self.records[0]
            }
        }
    }

    /// The shell holds this artifact's code.
    pub(super) fn hold(&mut self, digest: Digest) {
        if !self.held.contains(&digest) {
            self.held.push(digest);
        }
    }

    /// An artifact that will come, if it does, has a number from before.
    pub(super) fn expect(&mut self, digest: Digest, number: Option<VersionNumber>) {
        if let Some(number) = number {
            self.record(digest).number.get_or_insert(number);
            self.numbered = self.numbered.max(number.0);
        }
    }

    /// The number of an artifact whose life is still known.
    pub(super) fn number_of(&self, digest: Digest) -> Option<VersionNumber> {
        self.records.iter().find(|record| record.digest == digest)?.number
    }

    pub(super) fn number(&mut self, loaded: &LoadedVersion) -> VersionNumber {
        let next = self.numbered + 1;
        let record = self.record(loaded.digest);
        record.author_version.clone_from(&loaded.author_version);
        let number = *record.number.get_or_insert(VersionNumber(next));
        self.numbered = self.numbered.max(number.0);
        self.refresh();
        number
    }
}
