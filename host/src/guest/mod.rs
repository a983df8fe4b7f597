//! Guests: the only place that knows WebAssembly. Compiles, links, makes stores, holds guests to their limits, and turns
//! whatever they do into values. It does not schedule, and it does not know why a run takes place.

mod attempt;
mod bindings;
mod code;
mod denials;
mod engine;
mod imports;
mod memory;
mod output;
mod prepare;
mod run;
mod store;
mod waits;

pub use attempt::{Line, LineSource, Listener, Probe, Progress, Waits};
pub use code::CodeMaker;
pub use engine::{
    Engine, EngineOptions, Metering, SLICE_FUEL, memory_slots, runs_that_map_areas_allow, settle_max_concurrent_runs,
};
pub use memory::{Lack, Ledger, Reservation, SetAside};
pub use prepare::{Prepared, Toolbox, Unloadable};
pub use run::{CheckAnswer, Executable, Invocation, attempt, check};
pub use store::Grants;
