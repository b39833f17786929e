//! Connections: taken until told to stop, then each may finish what it is doing. Only so many are taken; a few more may
//! ask whether we live, also while the last ones finish.

use super::Limits;
use super::openai::{ApiError, discard};
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

/// Connections above the limit, or after the stop, that may ask for [`FOR_PROBES`], once each. More are dropped
/// unanswered.
pub(super) const RESERVE: usize = 32;
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

/// Room for connections.
struct Places {
    all: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
}

/// One connection's room, free again when it is dropped.
enum Place {
    /// For any requests.
    Full(OwnedSemaphorePermit),
    /// For one probe; anything else gets the refusal.
    Probe(OwnedSemaphorePermit, Refusal),
}

/// What is said to who asks for more than a probe.
type Refusal = fn() -> ApiError;

impl Places {
    fn new(connections: usize) -> Places {
        let most = connections.min(Semaphore::MAX_PERMITS);
        Places { all: Arc::new(Semaphore::new(most)), reserve: Arc::new(Semaphore::new(RESERVE)) }
    }

    fn take(&self) -> Option<Place> {
        let full = self.all.clone().try_acquire_owned().ok().map(Place::Full);
        full.or_else(|| self.probe(ApiError::too_many_connections))
    }

    /// After the stop.
    fn late(&self) -> Option<Place> {
        self.probe(ApiError::ending)
    }

    fn probe(&self, refusal: Refusal) -> Option<Place> {
        let place = self.reserve.clone().try_acquire_owned().ok();
        place.map(|place| Place::Probe(place, refusal))
    }
}

/// Serves one connection and gives its place back.
async fn serve(stream: TcpStream, router: Router, limits: Limits, place: Place, stop: watch::Receiver<bool>) {
    match place {
        Place::Full(_place) => converse(stream, router, limits, None, stop).await,
        Place::Probe(_place, refusal) => {
            let _ = timeout(PROBE_TIME, converse(stream, router, limits, Some(refusal), stop)).await;
        }
    }
}

async fn converse(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    refusal: Option<Refusal>,
    mut stop: watch::Receiver<bool>,
) {
    // A token is a small packet, and it must not wait for the next one.
    let _ = stream.set_nodelay(true);
    // Not TCP_USER_TIMEOUT: that counts from the last acknowledged byte, differs between kernels where the window is
    // zero, and would end a connection whose other side was only away. Linux says that a socket can be written to once
    // a third of its buffer is free, so a client must take about that much in this time, not a byte.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write));
    let service = service_fn(move |request| answer(router.clone(), request, refusal));
    let lasting = refusal.is_none();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD)
        .keep_alive(lasting)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        // A probe has its own time.
        () = told(&mut stop), if lasting => None,
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

async fn answer(
    router: Router,
    request: Request<Incoming>,
    refusal: Option<Refusal>,
) -> Result<Response, Infallible> {
    let request = request.map(Body::new);
    if let Some(refusal) = refusal
        && !FOR_PROBES.contains(&request.uri().path())
    {
        discard(request).await;
        return Ok(refusal().into_response());
    }
    router.oneshot(request).await
}

/// Returns once `stop` is true, or nobody is left to say so.
async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
