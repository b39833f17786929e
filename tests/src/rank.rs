//! Ranks as the operator asks them: each answers `GET /experts` on a loopback address of its own.

use anyhow::{Context, Result};
use coterie_api::expert_report::ExpertReport;
use coterie_api::name::HTTP_PORT;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

static RANKS: AtomicU32 = AtomicU32::new(0);

/// One rank; gone when dropped.
pub struct Rank {
    /// Its IP address.
    pub address: String,
    report: Arc<Mutex<ExpertReport>>,
    task: JoinHandle<()>,
}

impl Rank {
    /// A rank that goes by expert map `version` and has seen no token.
    pub async fn start(rank: u16, version: u64) -> Result<Self> {
        let number = RANKS.fetch_add(1, Ordering::Relaxed);
        // One address a rank, as pods have it; the process id keeps test binaries apart.
        let [low, high, ..] = std::process::id().to_le_bytes();
        let address = format!("127.{}.{}.{}", 1 + high % 250, low, 1 + number % 250);
        let listener = TcpListener::bind((address.as_str(), HTTP_PORT))
            .await
            .with_context(|| format!("cannot listen on {address}:{HTTP_PORT}"))?;
        let report = ExpertReport { rank, since: 1, ..Default::default() };
        let report = Arc::new(Mutex::new(report));
        let answers = report.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let text = serde_json::to_string(&*lock(&answers)).unwrap_or_default();
                // Who asks and goes away is no concern of a rank's.
                let _ = answer(stream, &text).await;
            }
        });
        let rank = Self { address, report, task };
        rank.follow(version);
        Ok(rank)
    }

    /// It has read, loaded and goes by another map.
    pub fn follow(&self, version: u64) {
        let mut report = lock(&self.report);
        report.read_version = version;
        report.loaded_version = version;
        report.routing_version = version;
    }

    /// Its requests have sent so many tokens to each expert of each layer.
    pub fn count(&self, tokens: Vec<Vec<u64>>) {
        lock(&self.report).tokens = tokens;
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(report: &Mutex<ExpertReport>) -> MutexGuard<'_, ExpertReport> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(mut stream: TcpStream, text: &str) -> Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < 4096 {
        request.push(stream.read_u8().await?);
    }
    let found = request.starts_with(b"GET /experts HTTP/1.1\r\n");
    let (status, text) = if found { ("200 OK", text) } else { ("404 Not Found", "") };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    Ok(())
}
