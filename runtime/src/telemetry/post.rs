//! An HTTP POST to a collector: one connection for each, of which there is at most one a second.

use axum::body::{Body, to_bytes};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::Scheme;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use std::pin::Pin;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// No answer of a collector is longer, bytes.
const LONGEST_ANSWER: usize = 64 << 10;
const HTTP_PORT: u16 = 80;

/// Posts without TLS.
#[derive(Debug)]
pub(super) struct Post;

impl HttpClient for Post {
    // As #[async_trait], with which the trait is declared, would write it.
    fn send_bytes<'life0, 'async_trait>(
        &'life0 self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(send(request))
    }
}

async fn send(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().ok_or("the collector's URL names no host")?;
    if head.uri.scheme() != Some(&Scheme::HTTP) {
        return Err("only http:// is spoken to collectors".into());
    }
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(HTTP_PORT))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Dropped, and with it the connection, as soon as there is an answer or nobody waits for one.
    let mut connections = JoinSet::new();
    connections.spawn(connection);

    head.headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
    head.uri = head.uri.path_and_query().map_or_else(Uri::default, |path| path.clone().into());
    let response = sender.send_request(Request::from_parts(head, Body::from(body))).await?;
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, to_bytes(Body::new(body), LONGEST_ANSWER).await?))
}
