//! The host calls that can wait note what they wait for, so that the host can say why a run does not get on.
//!
//! WASI's own implementations do the work. A call that is answered at once notes nothing; one that has to wait stores one number when
//! it begins to and one when it ends, also if it ends by being dropped.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::clocks::WasiClocksView as _;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self, WasiSnapshotPreview1 as _};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::bindings::io::{poll, streams};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, StreamError, StreamResult};

use super::attempt::Probe;
use super::store::Guest;
use crate::core::verdict::HostCall;

struct Waits;

impl HasData for Waits {
    type Data<'a> = &'a mut Guest;
}

/// Lets `probe` know while `future` waits.
async fn noted<T>(probe: &Probe, call: HostCall, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut wait = None;
    std::future::poll_fn(|context| {
        let polled = future.as_mut().poll(context);
        if polled.is_pending() && wait.is_none() {
            wait = Some(Wait::begin(probe, call));
        }
        match polled {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A wait in progress; over when it is dropped.
struct Wait<'a> {
    probe: &'a Probe,
    since_us: u64,
}

impl<'a> Wait<'a> {
    fn begin(probe: &'a Probe, call: HostCall) -> Wait<'a> {
        Wait { probe, since_us: probe.wait_begins(call) }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.probe.wait_ended(self.since_us);
    }
}

impl poll::Host for &mut Guest {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        let are_timers = pollables.iter().all(|pollable| self.timers.contains(&pollable.rep()));
        let call = if are_timers { HostCall::Clock } else { HostCall::Poll };
        let (table, probe) = self.table_and_probe();
        noted(probe, call, poll::Host::poll(table, pollables)).await
    }
}

impl poll::HostPollable for &mut Guest {
    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        let is_timer = self.timers.contains(&pollable.rep());
        let call = if is_timer { HostCall::Clock } else { HostCall::Poll };
        let (table, probe) = self.table_and_probe();
        noted(probe, call, poll::HostPollable::block(table, pollable)).await
    }

    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        poll::HostPollable::ready(self.table_and_probe().0, pollable).await
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.timers.remove(&pollable.rep());
        poll::HostPollable::drop(self.table_and_probe().0, pollable)
    }
}

/// WASI's clock, with a note of which pollables are its timers: bounded by the table that holds them.
impl monotonic_clock::Host for &mut Guest {
    fn now(&mut self) -> wasmtime::Result<monotonic_clock::Instant> {
        monotonic_clock::Host::now(&mut self.clocks())
    }

    fn resolution(&mut self) -> wasmtime::Result<monotonic_clock::Duration> {
        monotonic_clock::Host::resolution(&mut self.clocks())
    }

    fn subscribe_instant(&mut self, when: monotonic_clock::Instant) -> wasmtime::Result<Resource<DynPollable>> {
        let timer = monotonic_clock::Host::subscribe_instant(&mut self.clocks(), when)?;
        self.timers.insert(timer.rep());
        Ok(timer)
    }

    fn subscribe_duration(&mut self, length: monotonic_clock::Duration) -> wasmtime::Result<Resource<DynPollable>> {
        let timer = monotonic_clock::Host::subscribe_duration(&mut self.clocks(), length)?;
        self.timers.insert(timer.rep());
        Ok(timer)
    }
}

impl streams::Host for &mut Guest {
    fn convert_stream_error(&mut self, error: StreamError) -> wasmtime::Result<streams::StreamError> {
        streams::Host::convert_stream_error(self.table_and_probe().0, error)
    }
}

impl streams::HostInputStream for &mut Guest {
    async fn drop(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<()> {
        streams::HostInputStream::drop(self.table_and_probe().0, stream).await
    }

    fn read(&mut self, stream: Resource<DynInputStream>, bytes: u64) -> StreamResult<Vec<u8>> {
        streams::HostInputStream::read(self.table_and_probe().0, stream, bytes)
    }

    async fn blocking_read(&mut self, stream: Resource<DynInputStream>, bytes: u64) -> StreamResult<Vec<u8>> {
        let (table, probe) = self.table_and_probe();
        noted(probe, HostCall::StreamRead, streams::HostInputStream::blocking_read(table, stream, bytes)).await
    }

    fn skip(&mut self, stream: Resource<DynInputStream>, bytes: u64) -> StreamResult<u64> {
        streams::HostInputStream::skip(self.table_and_probe().0, stream, bytes)
    }

    async fn blocking_skip(&mut self, stream: Resource<DynInputStream>, bytes: u64) -> StreamResult<u64> {
        let (table, probe) = self.table_and_probe();
        noted(probe, HostCall::StreamRead, streams::HostInputStream::blocking_skip(table, stream, bytes)).await
    }

    fn subscribe(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        streams::HostInputStream::subscribe(self.table_and_probe().0, stream)
    }
}

impl streams::HostOutputStream for &mut Guest {
    async fn drop(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<()> {
        streams::HostOutputStream::drop(self.table_and_probe().0, stream).await
    }

    fn check_write(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        streams::HostOutputStream::check_write(self.table_and_probe().0, stream)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        streams::HostOutputStream::write(self.table_and_probe().0, stream, bytes)
    }

    fn subscribe(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        streams::HostOutputStream::subscribe(self.table_and_probe().0, stream)
    }

    async fn blocking_write_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        let (table, probe) = self.table_and_probe();
        let write = streams::HostOutputStream::blocking_write_and_flush(table, stream, bytes);
        noted(probe, HostCall::StreamWrite, write).await
    }

    async fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        bytes: u64,
    ) -> StreamResult<()> {
        let (table, probe) = self.table_and_probe();
        let write = streams::HostOutputStream::blocking_write_zeroes_and_flush(table, stream, bytes);
        noted(probe, HostCall::StreamWrite, write).await
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, bytes: u64) -> StreamResult<()> {
        streams::HostOutputStream::write_zeroes(self.table_and_probe().0, stream, bytes)
    }

    fn flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        streams::HostOutputStream::flush(self.table_and_probe().0, stream)
    }

    async fn blocking_flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        let (table, probe) = self.table_and_probe();
        noted(probe, HostCall::StreamWrite, streams::HostOutputStream::blocking_flush(table, stream)).await
    }

    fn splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        bytes: u64,
    ) -> StreamResult<u64> {
        streams::HostOutputStream::splice(self.table_and_probe().0, to, from, bytes)
    }

    async fn blocking_splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        bytes: u64,
    ) -> StreamResult<u64> {
        let (table, probe) = self.table_and_probe();
        let splice = streams::HostOutputStream::blocking_splice(table, to, from, bytes);
        noted(probe, HostCall::StreamWrite, splice).await
    }
}

/// Puts the noting implementations in the place of WASI's. The linker must allow shadowing.
pub(super) fn shadow(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    poll::add_to_linker::<Guest, Waits>(linker, |guest| guest)?;
    streams::add_to_linker::<Guest, Waits>(linker, |guest| guest)?;
    monotonic_clock::add_to_linker::<Guest, Waits>(linker, |guest| guest)
}

/// The same for preview 1, of whose calls only this one can wait for as long as a guest has neither folders nor an input.
pub(super) fn shadow_preview1(linker: &mut wasmtime::Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        "wasi_snapshot_preview1",
        "poll_oneoff",
        |mut caller: wasmtime::Caller<'_, Guest>, (asked, answers, count, out): (i32, i32, i32, i32)| {
            Box::new(async move {
                let Some(memory) = caller.get_export("memory").and_then(wasmtime::Extern::into_memory) else {
                    return Err(wasmtime::Error::msg("missing required memory export"));
                };
                let copied_bytes = wasmtime::AsContextMut::as_context_mut(&mut caller).hostcall_fuel();
                let (bytes, guest) = memory.data_and_store_mut(&mut caller);
                let call = match are_clocks(bytes, asked, count) {
                    true => HostCall::Preview1Clock,
                    false => HostCall::Preview1Poll,
                };
                let (wasi, probe) = guest.preview1_and_probe();
                wasi.set_hostcall_fuel(copied_bytes);
                let mut memory = wiggle::GuestMemory::Unshared(bytes);
                let poll = wasi_snapshot_preview1::poll_oneoff(wasi, &mut memory, asked, answers, count, out);
                noted(probe, call, poll).await
            })
        },
    )?;
    Ok(())
}

/// Whether each of the `count` subscriptions at `at` is for a clock; false where they lie outside of the memory.
fn are_clocks(memory: &[u8], at: i32, count: i32) -> bool {
    /// Of one subscription, and of the byte in it that says what it is for: 0 is a clock.
    const SIZE: usize = 48;
    const TAG: usize = 8;
    let (at, count) = (at.cast_unsigned() as usize, count.cast_unsigned() as usize);
    let end = count.checked_mul(SIZE).and_then(|size| at.checked_add(size));
    let asked = end.and_then(|end| memory.get(at..end)).unwrap_or_default();
    !asked.is_empty() && asked.chunks_exact(SIZE).all(|one| one.get(TAG) == Some(&0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use std::sync::Arc;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use super::super::attempt::{Line, Listener, Progress};
    use super::*;
    use crate::core::health::Report;

    struct Deaf;

    impl Listener for Deaf {
        fn line(&self, _: &Line<'_>) {}
        fn reported(&self, _: Report) {}
        fn progressed(&self, _: &Progress) {}
    }

    #[test]
    fn a_wait_is_noted_while_it_lasts_and_a_dropped_one_is_over() {
        let probe = Probe::new(Arc::new(Deaf), None, 0);
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(noted(&probe, HostCall::Poll, async {})).poll(&mut context).is_ready());
        assert_eq!(probe.waits().call, None, "what is answered at once is no wait");
        {
            let mut endless = pin!(noted(&probe, HostCall::Clock, std::future::pending::<()>()));
            assert!(endless.as_mut().poll(&mut context).is_pending());
            std::thread::sleep(Duration::from_millis(5));
            assert!(endless.as_mut().poll(&mut context).is_pending());
            let waits = probe.waits();
            assert_eq!(waits.call, Some(HostCall::Clock));
            assert!(waits.in_call >= Some(Duration::from_millis(4)) && waits.in_all >= Duration::from_millis(4));
        }
        let waits = probe.waits();
        assert_eq!((waits.call, waits.in_call), (Some(HostCall::Clock), None));
        assert!(waits.in_all >= Duration::from_millis(4));
        assert_eq!(probe.waits().in_all, waits.in_all, "it is over");
    }

    #[test]
    fn subscriptions_are_clocks_only_if_all_are_and_lie_in_memory() {
        let mut memory = vec![0; 200];
        assert!(are_clocks(&memory, 0, 1) && are_clocks(&memory, 8, 4));
        assert!(!are_clocks(&memory, 0, 0) && !are_clocks(&memory, 9, 4) && !are_clocks(&memory, -1, -1));
        memory[48 + 8] = 1;
        assert!(are_clocks(&memory, 0, 1) && !are_clocks(&memory, 0, 2));
    }

    #[test]
    fn every_call_is_told_by_its_number() {
        let probe = Probe::new(Arc::new(Deaf), None, 0);
        for call in HostCall::ALL {
            let since = probe.wait_begins(call);
            assert_eq!(probe.waits().call, Some(call));
            probe.wait_ended(since);
        }
    }
}
