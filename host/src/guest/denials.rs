//! What a guest may not do: refused at the call, and noted with the capability's name.
//!
//! Every interface is linked, since toolchains import more than a job uses; it is the call that is refused.

use std::future::Future;
use std::sync::Arc;

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::Descriptor;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup;
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, SocketError};
use wasmtime_wasi::sockets::{WasiSocketsCtxView, WasiSocketsView};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::attempt::Probe;
use super::store::Guest;

/// Refuses every outgoing request.
pub(super) struct HttpDenied(pub(super) Arc<Probe>);

type HttpIo = Box<dyn Future<Output = Result<(), Error>> + Send>;
type HttpAnswer = Box<dyn Future<Output = wasmtime::Result<(http::Response<WasiBody>, HttpIo), Error>> + Send>;

impl WasiHttpHooks for HttpDenied {
    fn send_request(&mut self, request: http::Request<WasiBody>, _: Option<RequestOptions>, _: HttpIo) -> HttpAnswer {
        // Neither path nor query: both may hold secrets, and the report is public.
        let uri = request.uri();
        let origin =
            format!("{}://{}", uri.scheme_str().unwrap_or("https"), uri.authority().map_or("", |a| a.as_str()));
        let grant = format!("http: [{{ url: \"{origin}/*\" }}]");
        self.0.deny("http", &format!("{} {origin}", request.method()), &grant);
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}

/// Notes what is refused before handing on to WASI's own implementation, which refuses.
struct Noting;

impl HasData for Noting {
    type Data<'a> = &'a mut Guest;
}

impl preopens::Host for &mut Guest {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        self.probe.looked_for_folders();
        Ok(Vec::new())
    }
}

impl network::Host for &mut Guest {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        network::Host::convert_error_code(&mut WasiSocketsView::sockets(*self), error)
    }

    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut WasiSocketsView::sockets(*self), error)
    }
}

impl network::HostNetwork for &mut Guest {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut WasiSocketsView::sockets(*self), network)
    }
}

impl ip_name_lookup::Host for &mut Guest {
    fn resolve_addresses(
        &mut self,
        _: Resource<Network>,
        name: String,
    ) -> Result<Resource<ip_name_lookup::ResolveAddressStream>, SocketError> {
        let grant = format!("sockets: [{{ address: \"{name}\" }}]");
        self.probe.deny("sockets", &format!("name lookup of {name}"), &grant);
        Err(ErrorCode::AccessDenied.into())
    }
}

impl ip_name_lookup::HostResolveAddressStream for &mut Guest {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ip_name_lookup::ResolveAddressStream>,
    ) -> Result<Option<IpAddress>, SocketError> {
        let mut sockets: WasiSocketsCtxView<'_> = WasiSocketsView::sockets(*self);
        ip_name_lookup::HostResolveAddressStream::resolve_next_address(&mut sockets, stream)
    }

    fn subscribe(
        &mut self,
        stream: Resource<ip_name_lookup::ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        let mut sockets = WasiSocketsView::sockets(*self);
        ip_name_lookup::HostResolveAddressStream::subscribe(&mut sockets, stream)
    }

    fn drop(&mut self, stream: Resource<ip_name_lookup::ResolveAddressStream>) -> wasmtime::Result<()> {
        self.ctx().table.delete(stream)?;
        Ok(())
    }
}

/// Puts the noting implementations in the place of WASI's. The linker must allow shadowing.
pub(super) fn shadow(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    preopens::add_to_linker::<Guest, Noting>(linker, |guest| guest)?;
    ip_name_lookup::add_to_linker::<Guest, Noting>(linker, |guest| guest)
}

/// The same for preview 1, which looks for its folders with this function.
pub(super) fn shadow_preview1(linker: &mut wasmtime::Linker<Guest>) -> wasmtime::Result<()> {
    /// `badf` of preview 1: there is no such preopened folder.
    const BAD_DESCRIPTOR: i32 = 8;
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "fd_prestat_get",
        |guest: wasmtime::Caller<'_, Guest>, _descriptor: i32, _out: i32| {
            guest.data().probe.looked_for_folders();
            BAD_DESCRIPTOR
        },
    )?;
    Ok(())
}
