//! The one place where stores are made: everything that holds a guest to its limits is attached here.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use wasmtime::{CallHook, CallHookHandler, Store, StoreContextMut};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{ResourceTable, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::attempt::{LineSource, Probe};
use super::denials::HttpDenied;
use super::engine::{Engine, SLICE_FUEL};
use super::memory::{Limiter, Reservation};
use super::output::Output;
use crate::lanes::slice;

/// How much one call may carry out of or into a guest where its size is the guest's to choose: messages, reports, random numbers. Nothing
/// ends a slice within a call, and wasmtime's own bounds, 64 and 128 MiB, are some 100 ms.
const CALL_BYTES: usize = 1 << 20;

/// What a store needs to know of the plugin: the same for all its runs.
#[derive(Debug, Default)]
pub struct Grants {
    /// The program's name and arguments, as a command sees them.
    pub args: Vec<String>,
    /// What wasi:config tells.
    pub config: Vec<(String, String)>,
    /// The most that one instance may hold, in bytes.
    pub memory_bytes: u64,
    /// Fuel per attempt; none for no budget.
    pub fuel: Option<u64>,
    /// Bytes of log per attempt.
    pub log_bytes: u64,
}

/// The host's state inside of one store.
pub(super) struct Guest {
    wasi: WasiP1Ctx,
    http: WasiHttpCtx,
    http_denied: HttpDenied,
    pub(super) config: WasiConfigVariables,
    limiter: Limiter,
    /// Which pollables are timers.
    pub(super) timers: HashSet<u32>,
    pub(super) probe: Arc<Probe>,
}

impl Guest {
    pub(super) fn preview1(&mut self) -> &mut WasiP1Ctx {
        &mut self.wasi
    }

    pub(super) fn preview1_and_probe(&mut self) -> (&mut WasiP1Ctx, &Probe) {
        (&mut self.wasi, &self.probe)
    }

    pub(super) fn table_and_probe(&mut self) -> (&mut ResourceTable, &Probe) {
        (self.wasi.ctx().table, &self.probe)
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: self.wasi.ctx().table, hooks: &mut self.http_denied }
    }
}

/// Makes a store that burns fuel by slices, gives way after host calls, and grows no further than it may. Gives back its two
/// output streams, to be finished when the guest has ended.
pub(super) fn new_store(
    engine: &Engine,
    grants: &Grants,
    reservation: Reservation,
    probe: &Arc<Probe>,
) -> wasmtime::Result<(Store<Guest>, [Output; 2])> {
    let outputs = [LineSource::Stdout, LineSource::Stderr].map(|source| Output::new(probe.clone(), source));
    let [stdout, stderr] = &outputs;
    let checked = probe.clone();
    let wasi = WasiCtxBuilder::new()
        .args(&grants.args)
        .stdout(stdout.clone())
        .stderr(stderr.clone())
        .max_random_size(CALL_BYTES as u64)
        // Sockets may be asked for, so that the refusal happens at a call that has an address, and is noted.
        .allow_tcp(true)
        .allow_udp(true)
        .socket_addr_check(move |address, purpose| {
            // A library binds to any address before it connects; only then is there one to name.
            let (what, address) = match address.ip().is_unspecified() && address.port() == 0 {
                true => ("opening a socket".to_owned(), "HOST:PORT".to_owned()),
                false => (format!("{purpose:?} {address}"), address.to_string()),
            };
            checked.deny("sockets", &what, &format!("sockets: [{{ address: \"{address}\" }}]"));
            Box::pin(async { false })
        })
        .build_p1();
    let guest = Guest {
        wasi,
        http: WasiHttpCtx::new(),
        http_denied: HttpDenied(probe.clone()),
        config: grants.config.iter().cloned().collect(),
        limiter: Limiter {
            limit_bytes: grants.memory_bytes,
            memory_bytes: 0,
            table_elements: 0,
            reservation,
            probe: probe.clone(),
        },
        timers: HashSet::new(),
        probe: probe.clone(),
    };
    let mut store = Store::new(&engine.0, guest);
    store.limiter_async(|guest| &mut guest.limiter);
    // Once, and before the first poll: setting fuel again would start the slice anew.
    store.set_fuel(probe.fuel_given())?;
    store.fuel_async_yield_interval(Some(SLICE_FUEL))?;
    store.set_hostcall_fuel(CALL_BYTES);
    store.call_hook_async(Boundary);
    Ok((store, outputs))
}

/// Stands between guest and host: ends slices in time, and reads the fuel when the guest is left.
struct Boundary;

#[async_trait::async_trait]
impl CallHookHandler<Guest> for Boundary {
    async fn handle_call_event(&self, context: StoreContextMut<'_, Guest>, hook: CallHook) -> wasmtime::Result<()> {
        match hook {
            // Also called while the store of a killed run is dropped: nothing may be awaited here.
            CallHook::ReturningFromWasm | CallHook::CallingHost => {
                let left = context.get_fuel()?;
                context.data().probe.set_fuel_left(left);
            }
            CallHook::ReturningFromHost if slice::is_over() => Yield(false).await,
            CallHook::ReturningFromHost | CallHook::CallingWasm => {}
        }
        Ok(())
    }
}

/// Pending once.
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
