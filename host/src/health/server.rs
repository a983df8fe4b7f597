//! The health port: one thread, one runtime, one list of paths.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::connections::{Connections, Place};
use super::liveness::Liveness;
use super::{Options, metrics, render};
use crate::core::health::{Snapshot, Status};

/// How long a client may take over its request's head, the first or a later one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection lives, however well it behaves.
const CONNECTION_TIME: Duration = Duration::from_secs(120);

/// How large a request's head may be.
const HEAD_BYTES: usize = 16 << 10;

/// How many connections may wait to be taken; the kernel allows fewer where `net.core.somaxconn` says so.
const BACKLOG: i32 = 4_096;

/// How many plugins are rendered before others get their turn.
const PIECE: usize = 128;

/// The paths, as an unknown one is answered.
const PATHS: &str =
    "/health\n/health/live\n/health/ready\n/health/startup\n/health/plugins\n/health/plugins/{name}\n/metrics\n";

/// A listener that is bound and not served yet.
pub struct Bound {
    listener: std::net::TcpListener,
}

impl Bound {
    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Binds the health port.
///
/// # Errors
/// If the address is taken or may not be used.
pub fn bind(address: SocketAddr) -> io::Result<Bound> {
    let listener = std::net::TcpListener::bind(address)?;
    // Longer than the 128 that the standard library asks for: who is crowded out of it tries again a second later, which is how long a
    // kubelet waits.
    socket2::SockRef::from(&listener).listen(BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok(Bound { listener })
}

/// What all connections share; the health thread is the only one that touches it.
pub(super) struct State {
    pub(super) options: Options,
    pub(super) liveness: RefCell<Liveness>,
    started: Instant,
    kubelet_probes_report: Cell<bool>,
    /// The entries of the last report, and the snapshot that they were made of.
    entries: RefCell<Option<(Arc<Snapshot>, Bytes)>>,
}

impl State {
    pub(super) fn new(options: Options) -> Rc<State> {
        let liveness = RefCell::new(Liveness::new(&options));
        Rc::new(State {
            options,
            liveness,
            started: Instant::now(),
            kubelet_probes_report: Cell::new(false),
            entries: RefCell::new(None),
        })
    }
}

/// Serves for ever. Must run on a `LocalSet`.
pub(super) async fn serve(bound: Bound, state: Rc<State>) -> io::Result<()> {
    let listener = TcpListener::from_std(bound.listener)?;
    let connections = Rc::new(RefCell::new(Connections::default()));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let full_until = connections.borrow().full_until(Instant::now());
                if let Some(until) = full_until {
                    tokio::time::sleep_until(until.into()).await;
                }
                let (place, closed) = Connections::enter(&connections, Instant::now());
                tokio::task::spawn_local(connection(stream, Rc::new(place), closed, state.clone()));
                // Its request is read before the next one is taken, however many wait.
                tokio::task::yield_now().await;
            }
            // Out of descriptors, most likely: they come back as connections go.
            Err(error) => {
                tracing::warn!(%error, "a connection to the health port could not be taken");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, place: Rc<Place>, closed: tokio::sync::oneshot::Receiver<()>, state: Rc<State>) {
    // Answers are small; waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let answering = place.clone();
    let service = service_fn(move |request| {
        let (state, place) = (state.clone(), answering.clone());
        async move {
            place.answering();
            let response = answer(&request, &state).await;
            place.waiting();
            Ok::<_, Infallible>(response)
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // What a client does wrong is answered or cut off by hyper, and is nobody's business.
        _ = serving => {}
        _ = closed => {}
        () = tokio::time::sleep(CONNECTION_TIME) => {}
    }
}

type Answer = Response<Pieces>;

async fn answer(request: &Request<Incoming>, state: &State) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let path = request.uri().path();
    let board = &state.options.board;
    match path {
        "/health" => report(request, state).await,
        "/health/live" => match state.liveness.borrow().red() {
            None => text(StatusCode::OK, "live\n"),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        "/health/ready" => ready(state),
        "/health/startup" => match board.is_started_up() {
            true => text(StatusCode::OK, "started\n"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        },
        "/health/plugins" => plugins(state).await,
        "/metrics" => all_metrics(state).await,
        _ => match path.strip_prefix("/health/plugins/") {
            Some(name) => plugin(state, name),
            None => text(StatusCode::NOT_FOUND, format!("there is nothing here; the paths are:\n{PATHS}")),
        },
    }
}

fn ready(state: &State) -> Answer {
    let board = &state.options.board;
    let loading = board.snapshot().host.loading;
    let waited = state.started.elapsed();
    match () {
        () if board.is_draining() => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
        () if !board.is_started_up() => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        () if loading > 0 && waited < state.options.ready_timeout => {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("{loading} plugins still load\n"))
        }
        () => text(StatusCode::OK, "ready\n"),
    }
}

async fn report(request: &Request<Incoming>, state: &State) -> Answer {
    let began = Instant::now();
    note_kubelet(request, state);
    let snapshot = state.options.board.snapshot();
    let names_only = state.options.names_only;
    let status = render::overall(&snapshot);
    let note = state.kubelet_probes_report.get().then_some(KUBELET_NOTE);
    let host = render::host_entry(&snapshot.host, note, names_only);
    let entries = entries(state, &snapshot, names_only).await;
    let head = render::head(status, began.elapsed());
    let code = if status == Status::Unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let pieces = vec![Bytes::from(head), Bytes::from(host), entries, Bytes::from_static(render::TAIL.as_bytes())];
    respond(code, "application/json", pieces)
}

async fn entries(state: &State, snapshot: &Arc<Snapshot>, names_only: bool) -> Bytes {
    if let Some((made_of, entries)) = &*state.entries.borrow()
        && Arc::ptr_eq(made_of, snapshot)
    {
        return entries.clone();
    }
    let mut text = String::new();
    for piece in snapshot.plugins.chunks(PIECE) {
        for view in piece {
            text.push_str(&render::plugin_entry(view, names_only));
        }
        tokio::task::yield_now().await;
    }
    let entries = Bytes::from(text);
    state.entries.replace(Some((snapshot.clone(), entries.clone())));
    entries
}

const KUBELET_NOTE: &str = "a kubelet probes /health, so that one sick job would restart all: give it /health/live";

fn note_kubelet(request: &Request<Incoming>, state: &State) {
    let is_kubelet = request
        .headers()
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .is_some_and(|agent| agent.starts_with("kube-probe/"));
    if is_kubelet && !state.kubelet_probes_report.replace(true) {
        tracing::warn!("{KUBELET_NOTE}");
    }
}

async fn plugins(state: &State) -> Answer {
    let snapshot = state.options.board.snapshot();
    let mut text = String::from("{\"plugins\":[");
    for (index, piece) in snapshot.plugins.chunks(PIECE).enumerate() {
        for (place, view) in piece.iter().enumerate() {
            if index + place > 0 {
                text.push(',');
            }
            text.push_str(&render::summary(view, state.options.names_only));
        }
        tokio::task::yield_now().await;
    }
    text.push_str("]}");
    respond(StatusCode::OK, "application/json", vec![Bytes::from(text)])
}

fn plugin(state: &State, name: &str) -> Answer {
    let snapshot = state.options.board.snapshot();
    match snapshot.plugin(name) {
        Some(view) => respond(
            StatusCode::OK,
            "application/json",
            vec![Bytes::from(render::plugin(view, state.options.names_only))],
        ),
        None => {
            let known: Vec<_> = snapshot.plugins.iter().take(1_000).map(|view| view.name.as_str()).collect();
            let known = if known.is_empty() { "there are none".to_owned() } else { known.join("\n") };
            text(StatusCode::NOT_FOUND, format!("there is no such plugin; these are known:\n{known}\n"))
        }
    }
}

async fn all_metrics(state: &State) -> Answer {
    let board = &state.options.board;
    let snapshot = board.snapshot();
    let mut text = metrics::host(board, &snapshot, state.liveness.borrow().red().is_none());
    for family in metrics::FAMILIES {
        text.push_str(&family.head());
        for piece in snapshot.plugins.chunks(PIECE) {
            piece.iter().for_each(|view| family.series(&mut text, view));
            tokio::task::yield_now().await;
        }
    }
    respond(StatusCode::OK, metrics::MEDIA_TYPE, vec![Bytes::from(text)])
}

fn text(code: StatusCode, text: impl Into<Bytes>) -> Answer {
    respond(code, "text/plain; charset=utf-8", vec![text.into()])
}

fn respond(code: StatusCode, media_type: &'static str, pieces: Vec<Bytes>) -> Answer {
    let mut response =
        Response::new(Pieces { pieces: pieces.into_iter().rev().filter(|piece| !piece.is_empty()).collect() });
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache"));
    response
}

/// A body in a few pieces, so that a large one that many ask for is held once.
struct Pieces {
    /// The last comes first.
    pieces: Vec<Bytes>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.pieces.iter().map(|piece| piece.len() as u64).sum())
    }
}
