//! One question to one rank or router.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A rank that computes answers late; who takes longer says it the next time.
const LIMIT: Duration = Duration::from_secs(1);
/// A hundred layers of thousands of experts, each with a count.
const BYTES: usize = 8 << 20;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// Not in time.
    #[error("no answer within {} s", LIMIT.as_secs())]
    Late(#[from] tokio::time::error::Elapsed),
    /// Not reached.
    #[error("it cannot be reached: {0}")]
    Connect(#[from] std::io::Error),
    /// It does not speak HTTP.
    #[error("its answer is no HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// It says something else.
    #[error("it answers {0}")]
    Status(StatusCode),
    /// The answer broke off, or is too large.
    #[error("its answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The answer is something else than was asked for.
    #[error("its answer is not what was asked for: {0}")]
    Json(#[from] serde_json::Error),
}

/// `GET path` of what listens on `port` of this IP address.
pub async fn ask<T: DeserializeOwned>(address: &str, port: u16, path: &'static str) -> Result<T, NoAnswer> {
    timeout(LIMIT, answer(address, port, path)).await?
}

async fn answer<T: DeserializeOwned>(address: &str, port: u16, path: &'static str) -> Result<T, NoAnswer> {
    let stream = TcpStream::connect((address, port)).await?;
    let (mut sender, connection) = handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = hyper::Uri::from_static(path);
    request.headers_mut().insert(HOST, hyper::header::HeaderValue::from_static("pod"));
    let asked = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(NoAnswer::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), BYTES).collect().await.map_err(NoAnswer::Body)?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    };
    // The connection is driven only for as long as the answer is awaited.
    let mut asked = std::pin::pin!(asked);
    tokio::select! {
        told = &mut asked => told,
        ended = connection => {
            ended?;
            asked.await
        }
    }
}
