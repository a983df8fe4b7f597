//! The one engine: which WebAssembly is accepted, how it is metered, and the pool that its instances come from.

use anyhow::{Context, Result, bail};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How much fuel a run may burn before it goes back in the queue: 60 to 70 µs of a simple loop.
pub const SLICE_FUEL: u64 = 1_000_000;

/// How much stack WebAssembly itself may use. A guest that wants more has overflowed it, and traps.
pub const WASM_STACK_BYTES: usize = 512 << 10;

/// How many elements all tables of one instance may have together.
pub const TABLE_ELEMENTS: usize = 200_000;

/// An instance in the pool takes about so many map areas: memory and guard, stack and guard, tables.
const MAP_AREAS_PER_RUN: u32 = 12;

/// Map areas left to everything else: code, libraries, threads, the allocator.
const MAP_AREAS_RESERVED: u32 = 8_000;

/// What the engine is sized by.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// The most runs that can be in progress at once.
    pub max_concurrent_runs: u32,
    /// Whether fuel is counted: always, except in the benchmark that asks what counting costs.
    pub metering: Metering,
}

/// How a guest is made to give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metering {
    /// By fuel: what the host does.
    Fuel,
    /// By epochs: for comparison in benchmarks.
    Epochs,
    /// Not at all: for comparison in benchmarks.
    Nothing,
}

/// The engine that all guests share.
#[derive(Clone)]
pub struct Engine(pub(super) wasmtime::Engine);

impl Engine {
    /// Makes the engine and reserves the pool's address space (no memory yet).
    ///
    /// # Errors
    /// If the machine cannot run it, or the address space cannot be had.
    pub fn new(options: EngineOptions) -> Result<Engine> {
        let engine = wasmtime::Engine::new(&config(options))
            .map_err(anyhow::Error::from)
            .context("setting up the WebAssembly engine")?;
        Ok(Engine(engine))
    }
}

/// The most runs that this machine's map areas allow at once.
pub fn runs_that_map_areas_allow() -> u32 {
    let areas = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .unwrap_or(65_530);
    (areas.saturating_sub(MAP_AREAS_RESERVED) / MAP_AREAS_PER_RUN).max(1)
}

/// Settles how many runs may be in progress: what was asked for, or 4,000 and less where the machine allows less.
///
/// # Errors
/// If more was asked for than the machine allows; the message says what to change.
pub fn settle_max_concurrent_runs(asked: Option<u32>) -> Result<u32> {
    let allowed = runs_that_map_areas_allow();
    match asked {
        Some(asked) if asked > allowed => bail!(
            "limits.maxConcurrentRuns is {asked}, and this machine's vm.max_map_count allows {allowed}: \
             lower the one or raise the other"
        ),
        Some(asked) => Ok(asked.max(1)),
        None => Ok(allowed.min(4_000)),
    }
}

fn config(options: EngineOptions) -> Config {
    let runs = options.max_concurrent_runs;
    let mut pool = PoolingAllocationConfig::default();
    // A run is one component instance. Toolchains split one into several core instances (adapters, shims, libraries), of which
    // one, rarely more, has a memory.
    pool.total_component_instances(runs)
        .total_core_instances(runs.saturating_mul(8))
        .total_memories(memory_slots(runs))
        .total_tables(runs.saturating_mul(4))
        .total_stacks(runs.saturating_add(64))
        .total_gc_heaps(runs)
        .table_elements(TABLE_ELEMENTS)
        .max_tables_per_module(8)
        .max_core_instance_size(4 << 20)
        .max_component_instance_size(4 << 20)
        // What a short job touches is wiped instead of given back to the kernel: page faults cost more than the wiping.
        // Only what was touched is wiped where the kernel can tell (6.7 and later); giving pages back or copying them on the next
        // write interrupts every other core, which was half of a short run's cost on two lanes.
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(16 << 10)
        .async_stack_keep_resident(32 << 10)
        .max_unused_warm_slots(64);
    let mut config = code_settings(options.metering);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// What code depends on: the same for the host's engine and for its compilers.
pub(super) fn code_settings(metering: Metering) -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(metering == Metering::Fuel)
        .epoch_interruption(metering == Metering::Epochs)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(2 << 20)
        // One bulk operation cannot be broken up; 32 bits bound it by 4 GiB.
        .wasm_memory64(false)
        // Names come from the name section; offsets into files that nobody has at hand are not worth their memory.
        .generate_address_map(false)
        .native_unwind_info(false);
    config
}

/// How many linear memories the pool holds when `runs` can be in progress.
pub fn memory_slots(runs: u32) -> u32 {
    runs.saturating_add(runs / 4).saturating_add(8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn more_runs_than_the_machine_allows_are_refused_with_the_remedy() {
        let allowed = runs_that_map_areas_allow();
        let refused = settle_max_concurrent_runs(Some(allowed + 1)).unwrap_err().to_string();
        assert!(refused.contains("vm.max_map_count") && refused.contains(&allowed.to_string()), "{refused}");
        assert_eq!(settle_max_concurrent_runs(Some(0)).unwrap(), 1);
        assert!(settle_max_concurrent_runs(None).unwrap() <= 4_000);
    }
}
