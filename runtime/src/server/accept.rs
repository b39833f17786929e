//! Connections: taken until told to stop, then each may finish what it is doing. Only so many are taken; a few more may
//! ask whether we live, also while the last ones finish.

use super::Limits;
use super::openai::{ApiError, discard};
use super::places::{Place, Places, Refusal, Seat};
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

/// What is still answered when all connections are taken, and to the end.
const FOR_PROBES: [&str; 4] = ["/health", "/ready", "/metrics", "/load"];
/// A connection of the reserve is over after this time, whatever it does.
const PROBE_TIME: Duration = Duration::from_secs(5);
/// Bytes of one request's head at most. hyper answers a longer one with status 431 (414 if it is the URI that is too
/// long, 400 where it is no HTTP), as it does more than 100 headers. It writes these heads itself and leaves no place
/// for a body, so these errors alone do not have OpenAI's shape. It is also the most that is buffered of an answer
/// before it goes into the socket.
const HEAD: usize = 64 << 10;
/// Of each of a connection's two buffers in the kernel, bytes; the kernel adds as much for itself, and without a bound
/// would let them grow to several MiB. So a client that does not read holds half a MiB of the kernel's memory, [`HEAD`]
/// of ours, and those of its answer's tokens that it did not read: about 250 bytes each with 20 log probabilities,
/// bounded by the context.
const SOCKET_BUFFER: u32 = 128 << 10;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Wait after the system could not give us a connection (too many open files, as a rule).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Listens on `address`. What is accepted inherits the bounds of the listener's buffers.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `router` on `listener` until `stop`, and probes until the last connection from before is done; then returns.
pub async fn accept(listener: TcpListener, router: Router, limits: Limits, mut stop: watch::Receiver<bool>) {
    let places = Places::new(limits.connections);
    let (mut connections, mut late) = (JoinSet::new(), JoinSet::new());
    let mut stopped = false;
    while !(stopped && connections.is_empty()) {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (place, among) = match stopped {
                        false => (places.take(), &mut connections),
                        true => (places.late(), &mut late),
                    };
                    if let Some(place) = place {
                        among.spawn(serve(stream, router.clone(), limits, place, stop.clone()));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(_) = connections.join_next() => {}
            Some(_) = late.join_next() => {}
            () = told(&mut stop), if !stopped => stopped = true,
        }
    }
}

/// Serves one connection and gives its place back.
async fn serve(stream: TcpStream, router: Router, limits: Limits, place: Place, stop: watch::Receiver<bool>) {
    match place {
        Place::Full(seat) => {
            let service = service_fn({
                let seat = seat.clone();
                move |request| answer(router.clone(), request, seat.clone())
            });
            tokio::select! {
                () = converse(stream, limits, service, Some(stop)) => {}
                () = seat.lost() => {}
            }
        }
        Place::Probe(_place, refusal) => {
            let service = service_fn(move |request| answer_probe(router.clone(), request, refusal));
            // A probe has its own time.
            let _ = timeout(PROBE_TIME, converse(stream, limits, service, None)).await;
        }
    }
}

/// Until the other side is done, or `stop`; a connection that knows no stop is over after one request.
async fn converse<S>(stream: TcpStream, limits: Limits, service: S, stop: Option<watch::Receiver<bool>>)
where
    S: HttpService<Incoming, ResBody = Body, Error = Infallible>,
{
    // A token is a small packet, and it must not wait for the next one.
    let _ = stream.set_nodelay(true);
    // Not TCP_USER_TIMEOUT: that counts from the last acknowledged byte, differs between kernels where the window is
    // zero, and would end a connection whose other side was only away. Linux says that a socket can be written to once
    // a third of its buffer is free, so a client must take about that much in this time, not a byte.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD)
        .keep_alive(stop.is_some())
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stopped(stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

async fn answer(router: Router, request: Request<Incoming>, seat: Arc<Seat>) -> Result<Response, Infallible> {
    if !seat.claim() {
        // The connection is about to be closed, and what came on it crossed that on the way.
        return Ok(ApiError::too_many_connections().into_response());
    }
    let under_way = UnderWay(seat);
    let response = router.oneshot(request.map(Body::new)).await?;
    Ok(response.map(|body| {
        // Goes when the body goes.
        Body::new(body.map_err(move |error| {
            let _ = &under_way;
            error
        }))
    }))
}

/// Keeps a connection's place until an answer is sent, or given up.
struct UnderWay(Arc<Seat>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lend();
    }
}

async fn answer_probe(
    router: Router,
    request: Request<Incoming>,
    refusal: Refusal,
) -> Result<Response, Infallible> {
    let request = request.map(Body::new);
    if !FOR_PROBES.contains(&request.uri().path()) {
        discard(request).await;
        return Ok(refusal().into_response());
    }
    router.oneshot(request).await
}

async fn stopped(stop: Option<watch::Receiver<bool>>) {
    match stop {
        Some(mut stop) => told(&mut stop).await,
        None => std::future::pending().await,
    }
}

/// Returns once `stop` is true, or nobody is left to say so.
async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
