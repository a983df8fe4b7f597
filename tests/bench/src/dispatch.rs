//! What a run costs beyond the guest itself: 100,000 empty runs through supervisor, lanes and outcome, against bare wasmtime.
//!
//! On both sides: the SDK's empty job as a component, with WASI context, limiter, fuel and pooling. CPU time of the whole process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, StoreLimits,
    StoreLimitsBuilder,
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use windlass::compile::Means;
use windlass::core::event::{Event, Payload};
use windlass::core::name::PluginId;
use windlass::driver::{Inbox, Message};
use windlass::health::Board;
use windlass::host::{self, Host, Resources, Setup};
use windlass::lanes::{cgroup, clock, priority};
use windlass::source::{Origin, Settings, Watcher};
use windlass_tests::{Scene, guest};

use crate::report::{Report, median};

mod bindings {
    #![allow(missing_docs, clippy::all, reason = "generated")]
    wasmtime::component::bindgen!({
        path: "../../guest-sdk/wit",
        world: "windlass:job/plugin",
        exports: { default: async },
    });
}
use bindings::exports::windlass::job::job::Invocation;
use bindings::windlass::job::types::TriggerKind;

/// Plugins that the runs are spread over: at most 1,000 starts wait for each.
const PLUGINS: u32 = 100;

pub(crate) fn run(short: bool) -> Report {
    let (rounds, runs) = if short { (3, 10_000) } else { (10, 10_000) };
    let bare = Bare::new();
    let windlass = Windlass::start();
    // One round to warm up, then both sides in turn.
    bare.runs(1_000);
    windlass.runs(1_000);
    let mut ratios = Vec::new();
    let (mut bare_us, mut windlass_us) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let own = bare.runs(runs).as_secs_f64() * 1e6 / f64::from(runs);
        let ours = windlass.runs(runs).as_secs_f64() * 1e6 / f64::from(runs);
        ratios.push(ours / own);
        bare_us.push(own);
        windlass_us.push(ours);
    }
    let mut report = Report::new("dispatch");
    report.at_most("ratio", median(ratios), 1.5);
    report.figure("bare_cpu_us_per_run", median(bare_us));
    report.figure("windlass_cpu_us_per_run", median(windlass_us));
    report.figure("runs", f64::from(rounds * runs));
    report.figure("lone_run_latency_us", windlass.lone_latency_us());
    windlass.stop();
    report
}

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    limits: StoreLimits,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

struct Bare {
    engine: Engine,
    pre: bindings::PluginPre<State>,
}

impl Bare {
    fn new() -> Bare {
        let mut pool = PoolingAllocationConfig::default();
        pool.pagemap_scan(Enabled::Auto)
            .linear_memory_keep_resident(256 << 10)
            .table_keep_resident(16 << 10)
            .async_stack_keep_resident(32 << 10);
        let mut config = Config::new();
        config.consume_fuel(true).allocation_strategy(InstanceAllocationStrategy::Pooling(pool)).wasm_memory64(false);
        let engine = Engine::new(&config).unwrap();
        let component = Component::from_binary(&engine, &guest("empty")).unwrap();
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        linker.define_unknown_imports_as_traps(&component).unwrap();
        let pre = bindings::PluginPre::new(linker.instantiate_pre(&component).unwrap()).unwrap();
        Bare { engine, pre }
    }

    fn runs(&self, runs: u32) -> Duration {
        let before = clock::process_cpu();
        futures::executor::block_on(async {
            for number in 0..runs {
                self.one(number).await;
            }
        });
        clock::process_cpu() - before
    }

    async fn one(&self, number: u32) {
        let state = State {
            wasi: WasiCtxBuilder::new().args(&["empty"]).build(),
            table: ResourceTable::new(),
            limits: StoreLimitsBuilder::new().memory_size(256 << 20).build(),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_fuel(u64::MAX).unwrap();
        store.fuel_async_yield_interval(Some(1_000_000)).unwrap();
        let instance = self.pre.instantiate_async(&mut store).await.unwrap();
        let invocation = Invocation {
            run_id: number.to_string(),
            plugin: "empty".to_owned(),
            version: 1,
            attempt: 1,
            trigger: TriggerKind::Manual,
            due_ms: 0,
            made_up: false,
            deadline_ms: None,
            payload: Vec::new(),
            content_type: None,
        };
        let done = instance.windlass_job_job().call_run(&mut store, &invocation).await.unwrap();
        assert!(done.is_ok());
    }
}

struct Windlass {
    host: Host,
    board: Arc<Board>,
    inbox: Arc<Inbox>,
    _scene: Scene,
}

impl Windlass {
    fn start() -> Windlass {
        let scene = Scene::new().guest("empty");
        let mut yaml = String::from("plugins:\n");
        for number in 0..PLUGINS {
            yaml += &format!("  p{number}: {{ source: file:empty.wasm }}\n");
        }
        let mut origin = Origin::find(None, Some(&scene.configure(&yaml))).unwrap();
        let read = origin.read().unwrap();
        let resources = Resources::settle(&read.config, &cgroup::Roots::default()).unwrap();
        let settings = Settings { every: Duration::from_secs(60), events: false };
        let board = Board::new(resources.plan.most(), host::empty_snapshot());
        let inbox = Inbox::new();
        let compile = Means { program: windlass_tests::binary(), ..Means::default() };
        let setup = Setup {
            drain: read.config.drain,
            data_dir: None,
            watcher: Watcher::new(origin, read, settings).unwrap(),
            resources,
            governed_by: None,
            compile,
            board: board.clone(),
            inbox: inbox.clone(),
            seed: 7,
            niceness: priority::Niceness::among_others().unwrap(),
        };
        let host = Host::start(setup).unwrap();
        while !board.snapshot().all_loaded() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Windlass { host, board, inbox, _scene: scene }
    }

    fn ended(&self) -> u64 {
        self.board.snapshot().plugins.iter().flat_map(|plugin| plugin.totals.runs.values()).sum()
    }

    fn runs(&self, runs: u32) -> Duration {
        let wanted = self.ended() + u64::from(runs);
        let before = clock::process_cpu();
        for number in 0..runs {
            self.trigger(number % PLUGINS);
        }
        while self.ended() < wanted {
            std::thread::sleep(Duration::from_millis(5));
        }
        clock::process_cpu() - before
    }

    fn trigger(&self, plugin: u32) {
        self.inbox.send(Message::Event(Event::Triggered { plugin: PluginId(plugin), payload: Payload::default() }));
    }

    /// From the start by hand of one run to its end in the report, on a host that does nothing else. The report is up to 50 ms old, so
    /// this is the time on the run itself.
    fn lone_latency_us(&self) -> f64 {
        let mut latencies = Vec::new();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(60));
            let wanted = self.ended() + 1;
            let began = Instant::now();
            self.trigger(0);
            while self.ended() < wanted {
                std::hint::spin_loop();
            }
            latencies.push(began.elapsed().as_secs_f64() * 1e6);
        }
        median(latencies)
    }

    fn stop(self) {
        self.inbox.send(Message::Shutdown);
        self.host.wait().unwrap();
    }
}
