//! One question to one rank.

use coterie_api::expert_report::ExpertReport;
use coterie_api::name::HTTP_PORT;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A rank that computes answers late; one that takes longer says it the next time.
const LIMIT: Duration = Duration::from_secs(1);
/// A hundred layers of thousands of experts, each with a count.
const BYTES: usize = 8 << 20;

/// Why a rank did not report.
#[derive(Debug, thiserror::Error)]
pub enum NoReport {
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
    /// The answer is no report.
    #[error("its answer is no report: {0}")]
    Json(#[from] serde_json::Error),
}

/// `GET /experts` of the rank at this IP address.
pub async fn ask(address: &str) -> Result<ExpertReport, NoReport> {
    timeout(LIMIT, answer(address)).await?
}

async fn answer(address: &str) -> Result<ExpertReport, NoReport> {
    let stream = TcpStream::connect((address, HTTP_PORT)).await?;
    let (mut sender, connection) = handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = hyper::Uri::from_static("/experts");
    request.headers_mut().insert(HOST, hyper::header::HeaderValue::from_static("rank"));
    let asked = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(NoReport::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), BYTES).collect().await.map_err(NoReport::Body)?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    };
    // The connection is driven only for as long as the answer is awaited.
    let mut asked = std::pin::pin!(asked);
    tokio::select! {
        report = &mut asked => report,
        ended = connection => {
            ended?;
            asked.await
        }
    }
}
