//! HTTP to ranks: one pool of connections for all of them.

use axum::body::Bytes;
use axum::http::header::HOST;
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use coterie_api::rank_load::RankLoad;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::error::Error;
use std::time::Duration;
use tokio::time::timeout;

/// A rank is in the same cluster, or it is not there.
const CONNECT: Duration = Duration::from_secs(1);
/// Ranks close idle connections after 75 s; it is better that we do.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes of an answer's head at most, and what is read at once.
const HEAD: usize = 64 << 10;
/// Bytes of a load at most.
const LOAD: usize = 64 << 10;

/// Sends to ranks.
#[derive(Clone, Debug)]
pub struct RankClient(Client<HttpConnector, Full<Bytes>>);

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Nothing was sent.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke before the answer's head, or what came was no HTTP.
    #[error("it broke off before it answered: {0}")]
    Broken(String),
}

impl Default for RankClient {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).http1_max_buf_size(HEAD);
        RankClient(client.build(connector))
    }
}

impl RankClient {
    /// Posts to `address`. Dropping the answer ends the request there.
    pub async fn post(
        &self,
        address: &str,
        path: &PathAndQuery,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Unanswered> {
        self.send(address, Method::POST, path, headers, body).await
    }

    /// What the rank at `address` tells of its load, `within` this time; none if it lives but knows no such question.
    pub async fn load(&self, address: &str, within: Duration) -> Result<Option<RankLoad>, String> {
        let ask = async {
            let path = PathAndQuery::from_static("/load");
            let asked = self.send(address, Method::GET, &path, HeaderMap::new(), Bytes::new()).await;
            let (head, body) = asked.map_err(|error| error.to_string())?.into_parts();
            if head.status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            if head.status != StatusCode::OK {
                return Err(format!("it answered with status {}", head.status.as_u16()));
            }
            let body = Limited::new(body, LOAD).collect().await.map_err(|error| error.to_string())?;
            serde_json::from_slice(&body.to_bytes()).map(Some).map_err(|error| error.to_string())
        };
        timeout(within, ask).await.unwrap_or_else(|_| Err("it did not answer in time".to_owned()))
    }

    async fn send(
        &self,
        address: &str,
        method: Method,
        path: &PathAndQuery,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Unanswered> {
        let unreachable = |error: String| Unanswered::Unreachable(error);
        let authority = Authority::try_from(address).map_err(|error| unreachable(error.to_string()))?;
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path.clone());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.build().map_err(|error| unreachable(error.to_string()))?;
        *request.headers_mut() = headers;
        if let Ok(host) = HeaderValue::from_str(address) {
            request.headers_mut().insert(HOST, host);
        }
        self.0.request(request).await.map_err(|error| {
            let words = chain(&error);
            if error.is_connect() { Unanswered::Unreachable(words) } else { Unanswered::Broken(words) }
        })
    }
}

/// An error with its causes.
pub fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
