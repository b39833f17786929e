//! A steady stream of requests while something happens to the pods; every failure counts.

use crate::chat;
use anyhow::{Result, ensure};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Clients that send one request after the other until told to stop, or for five minutes at most.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    /// Starts `clients` clients, each with connections of its own and every second one streaming.
    pub fn start(endpoint: &str, body: &Value, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |client: usize| {
            let (endpoint, body, stop) = (endpoint.to_owned(), body.clone(), stop.clone());
            tokio::spawn(async move {
                let http = reqwest::Client::new();
                let (mut answered, mut failures) = (0, Vec::new());
                let begin = Instant::now();
                while !stop.load(Ordering::Relaxed) && begin.elapsed() < Duration::from_secs(300) {
                    let answer = if client.is_multiple_of(2) {
                        chat::ask(&http, &endpoint, &body).await
                    } else {
                        chat::stream(&http, &endpoint, &body, |_| ()).await
                    };
                    match answer {
                        Ok(_) => answered += 1,
                        Err(error) => {
                            failures.push(format!("after {} ms: {error:#}", begin.elapsed().as_millis()));
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
                (answered, failures)
            })
        };
        Self { clients: (0..clients).map(start).collect(), stop: stop.clone() }
    }

    /// Ends the stream; gives the number of answers, and fails if a single request failed or none was answered.
    pub async fn finish_without_failure(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let (mut answered, mut failures) = (0, Vec::new());
        for client in self.clients {
            let (more, failed) = client.await?;
            answered += more;
            failures.extend(failed);
        }
        ensure!(
            failures.is_empty(),
            "{} of {} failed: {failures:#?}",
            failures.len(),
            answered + failures.len()
        );
        ensure!(answered > 0, "no request was sent");
        Ok(answered)
    }
}
