//! The admin port's paths, and the connections that ask for them.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use super::guard::{self, Caller, No};
use super::{Options, report};
use crate::core::event::Hand;
use crate::driver::Message;

/// How long a client may take over its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection lives.
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// How long the scheduler may take over an answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How many connections are served at once; further ones wait.
const CONNECTIONS: usize = 32;

/// How large a request's head may be. Nothing here has a body, and none is read.
const HEAD_BYTES: usize = 16 << 10;

const PATHS: &str = "GET /status\nPOST /plugins/{name}/swap\nPOST /plugins/{name}/rollback\n";

/// Serves for ever. Must run on a `LocalSet`.
pub(super) async fn serve(listener: std::net::TcpListener, options: Options) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let options = Rc::new(options);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, _)) => {
                let options = options.clone();
                tokio::task::spawn_local(async move {
                    connection(stream, options).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the admin port could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, options: Rc<Options>) {
    let service = service_fn(move |request| {
        let options = options.clone();
        async move { Ok::<_, Infallible>(answer(&request, &options).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(64)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // What a client does wrong is answered or cut off by hyper, and is nobody's business.
    let _ = tokio::time::timeout(CONNECTION_TIME, serving).await;
}

type Answer = Response<Full<Bytes>>;

async fn answer(request: &Request<Incoming>, options: &Options) -> Answer {
    let header = |name: HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
    let caller = Caller { host: header(HOST), origin: header(ORIGIN), authorization: header(AUTHORIZATION) };
    match guard::check(&caller, options.token_file.as_deref()) {
        Ok(()) => {}
        Err(No::Place(why)) => return text(StatusCode::FORBIDDEN, why),
        Err(No::Token(why)) => {
            let mut response = text(StatusCode::UNAUTHORIZED, why);
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return response;
        }
    }
    let parts: Vec<&str> = request.uri().path().trim_start_matches('/').split('/').collect();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["status"]) => {
            let body = report::report(&options.board.snapshot()).to_string();
            respond(StatusCode::OK, "application/json", body)
        }
        (&Method::POST, ["plugins", name, "swap"]) => by_hand(options, name, Hand::Swap).await,
        (&Method::POST, ["plugins", name, "rollback"]) => by_hand(options, name, Hand::Rollback).await,
        _ => text(StatusCode::NOT_FOUND, format!("there is nothing here; the paths are:\n{PATHS}")),
    }
}

async fn by_hand(options: &Options, name: &str, hand: Hand) -> Answer {
    if options.board.snapshot().plugin(name).is_none() {
        return text(StatusCode::NOT_FOUND, format!("there is no plugin `{}`", crate::text::shown(name, 80)));
    }
    let (sender, receiver) = oneshot::channel();
    let reply = Box::new(move |answer| {
        // Whoever asked may have gone away.
        let _ = sender.send(answer);
    });
    tracing::info!(plugin = name, hand = ?hand, "asked by hand");
    options.inbox.send(Message::ByHand { name: name.to_owned(), hand, reply });
    match tokio::time::timeout(ANSWER_TIME, receiver).await {
        Ok(Ok(Ok(done))) => text(StatusCode::OK, done),
        Ok(Ok(Err(why))) => text(StatusCode::CONFLICT, why),
        Ok(Err(_)) | Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the scheduler does not answer"),
    }
}

fn text(code: StatusCode, text: impl Into<String>) -> Answer {
    respond(code, "text/plain; charset=utf-8", text.into() + "\n")
}

fn respond(code: StatusCode, media_type: &'static str, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
