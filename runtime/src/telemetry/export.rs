//! From the end of a span to the collector: a bounded queue, and a task that posts what is in it, many spans at once.

use super::post::Post;
use opentelemetry::Context;
use opentelemetry_otlp::{SpanExporter as Exporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use prometheus_client::metrics::counter::Counter;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

/// Spans that may wait for the collector; more are lost.
const QUEUE: usize = 2048;
/// Spans in one post at most.
const BATCH: usize = 512;
/// A batch is posted so long after its first span, or when it is full.
const DELAY: Duration = Duration::from_secs(1);
/// A post that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// That posts fail is logged at most so often.
const QUIET: Duration = Duration::from_secs(60);

/// What passes through the queue.
#[derive(Debug)]
pub(super) enum Message {
    /// A span that ended.
    Span(Box<SpanData>),
    /// To be answered once everything before it has been posted, or has failed.
    Flush(oneshot::Sender<()>),
}

/// What posts spans to `endpoint`. OTEL_EXPORTER_OTLP_HEADERS go along.
pub(super) fn exporter(endpoint: &str, resource: &Resource) -> Result<Exporter, String> {
    super::check_endpoint(endpoint)?;
    let built = Exporter::builder().with_http().with_http_client(Post).with_endpoint(endpoint).build();
    let mut exporter = built.map_err(|error| error.to_string())?;
    exporter.set_resource(resource);
    Ok(exporter)
}

/// The queue's end for spans.
#[derive(Debug)]
pub(super) struct Queue {
    messages: mpsc::Sender<Message>,
    lost: Counter,
}

/// A queue: its end for spans, its end for all messages, and where they come out.
pub(super) fn queue(lost: Counter) -> (Queue, mpsc::Sender<Message>, mpsc::Receiver<Message>) {
    let (messages, receiver) = mpsc::channel(QUEUE);
    (Queue { messages: messages.clone(), lost }, messages, receiver)
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _parent: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.messages.try_send(Message::Span(Box::new(span))).is_err() {
            self.lost.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The task that empties the queue.
pub(super) struct Export {
    pub exporter: Exporter,
    pub messages: mpsc::Receiver<Message>,
    pub lost: Counter,
}

impl Export {
    /// Posts until nobody can send any more.
    pub async fn run(mut self) {
        let mut logged: Option<Instant> = None;
        while let Some(first) = self.messages.recv().await {
            let (batch, flushed) = self.batch(first).await;
            let spans = batch.len() as u64;
            if spans > 0
                && let Err(error) = self.post(batch).await
            {
                self.lost.inc_by(spans);
                if logged.is_none_or(|at| at.elapsed() >= QUIET) {
                    logged = Some(Instant::now());
                    tracing::warn!(error, lost = self.lost.get(), "spans could not be exported");
                }
            }
            if let Some(flushed) = flushed {
                // Whoever asked may have stopped waiting.
                let _ = flushed.send(());
            }
        }
    }

    /// The spans to post next, from `first` on, and who waits for that.
    async fn batch(&mut self, first: Message) -> (Vec<SpanData>, Option<oneshot::Sender<()>>) {
        let due = Instant::now() + DELAY;
        let mut batch = Vec::new();
        let mut next = Ok(Some(first));
        while let Ok(Some(message)) = next {
            match message {
                Message::Span(span) => batch.push(*span),
                Message::Flush(flushed) => return (batch, Some(flushed)),
            }
            if batch.len() == BATCH {
                break;
            }
            next = timeout_at(due, self.messages.recv()).await;
        }
        (batch, None)
    }

    async fn post(&self, batch: Vec<SpanData>) -> Result<(), String> {
        match timeout(PATIENCE, self.exporter.export(batch)).await {
            Ok(posted) => posted.map_err(|error| error.to_string()),
            Err(_) => Err(format!("the collector did not answer within {} s", PATIENCE.as_secs())),
        }
    }
}
