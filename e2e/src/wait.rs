//! Waiting for a state instead of sleeping for a while.

use anyhow::{Result, bail};
use std::future::Future;
use std::time::{Duration, Instant};

/// Asks `look` every 100 ms until it gives a value; after `limit` fails with what was awaited and what was seen last.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Result<T, String>>>,
{
    let start = Instant::now();
    loop {
        let seen = match look().await? {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if start.elapsed() > limit {
            bail!("waited {} s for {what}; last seen: {seen}", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
