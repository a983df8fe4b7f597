//! The shapes that people have today, each as a process of its own: `windlass-bench rival SHAPE GUESTS` prints where it listens.

use std::io::Write as _;
use std::net::SocketAddr;

use rustix::process::{Signal, set_parent_process_death_signal, setpriority_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, PoolingAllocationConfig, Store,
};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::WasiP1Ctx;
use windlass::guest::SLICE_FUEL;
use windlass_tests::guest;

/// How nice the native loops are: as the lanes.
const NICE: i32 = 10;

/// What a handler says, whatever it is asked.
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlive\n";

/// Runs one shape until it is killed.
pub(crate) fn rival(arguments: &[String]) {
    // Nobody is left behind when the benchmark is killed, not even while it is stopped.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let [_, shape, guests] = arguments else { panic!("rival SHAPE GUESTS") };
    let guests: u32 = guests.parse().unwrap();
    match shape.as_str() {
        "native_loops" => native_loops(),
        "one_runtime" => one_runtime(guests),
        "fuel_yields" => fuel_yields(guests),
        "own_thread" => own_thread(guests),
        other => panic!("there is no shape {other}"),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// One endless loop a core, as nice as the lanes. Listens nowhere.
fn native_loops() {
    setpriority_process(None, NICE).unwrap();
    say("nowhere");
    for _ in 1..cores() {
        std::thread::spawn(|| spin());
    }
    spin()
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

/// A worker service as it is often written: jobs and handler are tasks of one runtime, and the jobs compute without awaiting.
fn one_runtime(jobs: u32) {
    let runtime = runtime();
    runtime.block_on(async {
        let listener = listen().await;
        let handler = tokio::spawn(handle(listener));
        for _ in 0..jobs {
            tokio::spawn(async { spin() });
        }
        handler.await.unwrap();
    });
}

/// The guests with the host's own slice, on the runtime that also answers.
fn fuel_yields(guests: u32) {
    let runtime = runtime();
    runtime.block_on(async {
        let listener = listen().await;
        let handler = tokio::spawn(handle(listener));
        spawn_guests(guests);
        handler.await.unwrap();
    });
}

/// The same guests on a runtime of their own; the handler has a thread and a runtime for itself. All at normal priority.
fn own_thread(guests: u32) {
    let runtime = runtime();
    let handler = std::thread::spawn(|| {
        let own = Builder::new_current_thread().enable_all().build().unwrap();
        own.block_on(async { handle(listen().await).await });
    });
    runtime.block_on(async { spawn_guests(guests) });
    handler.join().unwrap();
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(cores()).enable_all().build().unwrap()
}

async fn listen() -> TcpListener {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    say(&listener.local_addr().unwrap().to_string());
    listener
}

fn say(address: &str) {
    println!("{address}");
    std::io::stdout().flush().unwrap();
}

/// The smallest handler there is: what it costs is left out on purpose.
async fn handle(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            // A client that goes away is nobody's business.
            let _ = answer(stream).await;
        });
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            read => head.extend_from_slice(&piece[..read]),
        }
    }
    stream.write_all(ANSWER).await?;
    stream.shutdown().await
}

fn spawn_guests(guests: u32) {
    let (engine, pre) = prepared(guests);
    for _ in 0..guests {
        let (engine, pre) = (engine.clone(), pre.clone());
        tokio::spawn(async move {
            let mut store = Store::new(&engine, WasiCtxBuilder::new().build_p1());
            store.set_fuel(u64::MAX).unwrap();
            store.fuel_async_yield_interval(Some(SLICE_FUEL)).unwrap();
            let instance = pre.instantiate_async(&mut store).await.unwrap();
            let start = instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap();
            start.call_async(&mut store, ()).await.unwrap();
        });
    }
}

fn prepared(guests: u32) -> (Engine, InstancePre<WasiP1Ctx>) {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_core_instances(guests).total_memories(guests).total_tables(guests).total_stacks(guests);
    let mut config = Config::new();
    config.consume_fuel(true).allocation_strategy(InstanceAllocationStrategy::Pooling(pool)).wasm_memory64(false);
    let engine = Engine::new(&config).unwrap();
    let module = Module::from_binary(&engine, &guest("spins")).unwrap();
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |context: &mut WasiP1Ctx| context).unwrap();
    let pre = linker.instantiate_pre(&module).unwrap();
    (engine, pre)
}
