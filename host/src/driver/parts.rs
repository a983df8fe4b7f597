//! What a driver is made of.

use std::sync::Arc;

use super::{Clock, Inbox};
use crate::choices::Choices;
use crate::core::name::{Digest, PluginId};
use crate::core::supervisor::Supervisor;
use crate::escalations::Escalations;
use crate::guest::{Ledger, Toolbox};
use crate::health::Board;
use crate::lanes::Lanes;
use crate::lanes::priority::Niceness;

/// Loads a plugin's artifact again, or what was kept of another one.
pub type OnReload = Box<dyn Fn(PluginId, Option<Digest>) + Send>;

/// What the driver works with.
pub struct Parts {
    /// Decides. Already knows all plugins.
    pub supervisor: Supervisor,
    /// Where runs are executed.
    pub lanes: Lanes,
    /// What runs are made with.
    pub toolbox: Arc<Toolbox>,
    /// The guests' memory and places.
    pub ledger: Arc<Ledger>,
    /// Where health is told.
    pub board: Arc<Board>,
    /// Where messages come from.
    pub inbox: Arc<Inbox>,
    /// The clock that the supervisor was started with.
    pub clock: Clock,
    /// Called where an artifact is to be loaded again: a person wants it, or it was chosen. Must not block.
    pub on_reload: OnReload,
    /// Where escalations are remembered; none where there is no `dataDir`.
    pub escalations: Option<Escalations>,
    /// Where chosen versions are remembered, likewise.
    pub choices: Option<Choices>,
    /// How nice threads are, which the scheduler's thread must have.
    pub niceness: Niceness,
}
