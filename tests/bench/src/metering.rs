//! What metering costs: fuel at the host's slice, against epochs and against nothing, on five programs that are real code.

use std::time::Duration;

use wasmtime::{Config, Engine, InstancePre, Linker, Module, Store};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::WasiP1Ctx;
use windlass::guest::SLICE_FUEL;
use windlass::lanes::clock;
use windlass_tests::guest;

use crate::report::{Report, median};

/// The kernels, and how often each is turned: about 100 ms un-metered.
const KERNELS: [(&str, u32); 5] = [("sort", 40), ("json", 60), ("regex", 60), ("sha256", 500), ("lz4", 700)];

#[derive(Clone, Copy, PartialEq)]
enum Metering {
    Nothing,
    Epochs,
    Fuel,
}

pub(crate) fn run(short: bool) -> Report {
    let rounds = if short { 3 } else { 11 };
    let sides = [Metering::Nothing, Metering::Epochs, Metering::Fuel].map(|metering| (metering, Side::new(metering)));
    let mut report = Report::new("metering");
    let (mut over_none, mut over_epoch) = (Vec::new(), Vec::new());
    for (kernel, turns) in KERNELS {
        let turns = if short { turns / 4 } else { turns };
        let mut times: [Vec<f64>; 3] = Default::default();
        for _ in 0..rounds {
            for ((metering, side), times) in sides.iter().zip(&mut times) {
                times.push(side.time(*metering, kernel, turns).as_secs_f64());
            }
        }
        // Pair by pair, so that a drift of the machine's speed falls out.
        let [none, epochs, fuel] = times;
        let ratio = |other: &[f64]| median(fuel.iter().zip(other).map(|(fuel, other)| fuel / other).collect());
        let (to_none, to_epochs) = (ratio(&none), ratio(&epochs));
        report.figure(format!("{kernel}_fuel_over_none"), to_none);
        over_none.push(to_none);
        over_epoch.push(to_epochs);
    }
    report.at_most("fuel_over_none", geometric_mean(&over_none), 1.25);
    report.at_most("fuel_over_epoch", geometric_mean(&over_epoch), 1.05);
    report
}

fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}

struct Side {
    engine: Engine,
    pre: InstancePre<WasiP1Ctx>,
}

impl Side {
    fn new(metering: Metering) -> Side {
        let mut config = Config::new();
        config
            .consume_fuel(metering == Metering::Fuel)
            .epoch_interruption(metering == Metering::Epochs)
            .wasm_memory64(false)
            .generate_address_map(false);
        let engine = Engine::new(&config).unwrap();
        let module = Module::from_binary(&engine, &guest("kernels")).unwrap();
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut linker, |context: &mut WasiP1Ctx| context).unwrap();
        if metering == Metering::Epochs {
            let ticking = engine.clone();
            std::thread::spawn(move || {
                loop {
                    std::thread::sleep(Duration::from_millis(1));
                    ticking.increment_epoch();
                }
            });
        }
        Side { pre: linker.instantiate_pre(&module).unwrap(), engine }
    }

    fn time(&self, metering: Metering, kernel: &str, turns: u32) -> Duration {
        let context = WasiCtxBuilder::new().args(&["kernels", kernel, &turns.to_string()]).build_p1();
        let mut store = Store::new(&self.engine, context);
        match metering {
            Metering::Nothing => {}
            Metering::Epochs => {
                store.set_epoch_deadline(1);
                store.epoch_deadline_async_yield_and_update(1);
            }
            Metering::Fuel => {
                store.set_fuel(u64::MAX).unwrap();
                store.fuel_async_yield_interval(Some(SLICE_FUEL)).unwrap();
            }
        }
        let before = clock::thread_cpu_ns();
        futures::executor::block_on(async {
            let instance = self.pre.instantiate_async(&mut store).await.unwrap();
            let start = instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap();
            start.call_async(&mut store, ()).await.unwrap();
        });
        Duration::from_nanos(clock::thread_cpu_ns() - before)
    }
}
