//! A request's body, bounded in size and time.

use super::error::ApiError;
use axum::body::{Body, BodyDataStream};
use futures::StreamExt;
use std::time::Duration;
use tokio::time::timeout;

/// Larger bodies are refused, bytes.
pub(super) const LIMIT: usize = 10 << 20;
/// A body must have come whole in this time.
const TIME: Duration = Duration::from_secs(60);
/// Of a body that is too large so much more is read and thrown away: a client that is still sending would not see
/// our answer but a broken connection.
const THROWN_AWAY: usize = 64 << 20;
const THROWING_TIME: Duration = Duration::from_secs(5);

/// The whole body.
pub(super) async fn read(body: Body) -> Result<Vec<u8>, ApiError> {
    let mut stream = body.into_data_stream();
    let whole = timeout(TIME, collect(&mut stream)).await.unwrap_or_else(|_| Err(ApiError::too_slow()))?;
    match whole {
        Some(whole) => Ok(whole),
        None => {
            let _ = timeout(THROWING_TIME, throw_away(&mut stream)).await;
            Err(ApiError::too_large(LIMIT))
        }
    }
}

/// `None` if there is more than [`LIMIT`].
async fn collect(stream: &mut BodyDataStream) -> Result<Option<Vec<u8>>, ApiError> {
    let mut whole = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| ApiError::body_broke())?;
        if whole.len() + chunk.len() > LIMIT {
            return Ok(None);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(Some(whole))
}

async fn throw_away(stream: &mut BodyDataStream) {
    let mut thrown = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        thrown += chunk.len();
        if thrown > THROWN_AWAY {
            return;
        }
    }
}
