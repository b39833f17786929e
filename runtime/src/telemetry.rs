//! OpenTelemetry: a span for each request, posted to a collector. Without a collector there is no thread, no task and
//! no work. With one, a request leaves its span in a bounded queue and goes on; what a slow collector does not take is
//! lost and counted.

mod endpoint;
mod export;
mod post;
mod request_span;

pub use endpoint::{check as check_endpoint, endpoint};
pub use request_span::{Operation, RequestSpan, words};

use axum::http::HeaderMap;
use export::{Export, Message};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use prometheus_client::metrics::counter::Counter;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// At the end of the process, how long its last spans may take.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// The way of spans to the collector, if there is one; clones share it.
#[derive(Clone, Default)]
pub struct Traces(Option<Active>);

#[derive(Clone)]
struct Active {
    tracer: SdkTracer,
    messages: mpsc::Sender<Message>,
}

impl Traces {
    /// Spans go to `endpoint`; what it does not take is counted in `lost`. An endpoint that cannot work is logged, and
    /// requests are served without spans. Must be called inside the async runtime.
    pub fn to(endpoint: Option<&str>, lost: Counter) -> Traces {
        let Some(endpoint) = endpoint else { return Traces(None) };
        match Active::start(endpoint, lost) {
            Ok(active) => {
                tracing::info!(endpoint, "a span for each request goes to the collector");
                Traces(Some(active))
            }
            Err(why) => {
                tracing::error!(endpoint, why, "no spans will be exported");
                Traces(None)
            }
        }
    }

    /// The span of whoever sent a request with these headers (W3C Trace Context); none without a collector.
    pub fn parent(&self, headers: &HeaderMap) -> Option<Context> {
        self.0.as_ref()?;
        Some(TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers)))
    }

    /// Tells of a request that is over.
    pub fn tell(&self, span: RequestSpan) {
        if let Some(active) = &self.0 {
            span.end(&active.tracer);
        }
    }

    /// Posts what is in the queue, as far as two seconds allow.
    pub async fn flush(&self) {
        let Some(active) = &self.0 else { return };
        let (flushed, wait_flushed) = oneshot::channel();
        let all = async {
            // Either fails only if the exporting task has ended, and then there is nothing to wait for.
            if active.messages.send(Message::Flush(flushed)).await.is_ok() {
                let _ = wait_flushed.await;
            }
        };
        if timeout(LAST_SPANS, all).await.is_err() {
            tracing::warn!("the collector did not take the last spans within {} s", LAST_SPANS.as_secs());
        }
    }
}

impl Active {
    fn start(endpoint: &str, lost: Counter) -> Result<Active, String> {
        let resource = resource();
        let exporter = export::exporter(endpoint, &resource)?;
        let (queue, messages, receiver) = export::queue(lost.clone());
        // The sampler is what OTEL_TRACES_SAMPLER says; without it, the parent's decision, else every span.
        let provider =
            SdkTracerProvider::builder().with_span_processor(queue).with_resource(resource).build();
        tokio::spawn(Export { exporter, messages: receiver, lost }.run());
        Ok(Active { tracer: provider.tracer("coterie"), messages })
    }
}

/// Who sends the spans: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, else `coterie`.
fn resource() -> Resource {
    let detected = Resource::builder().build();
    let name = detected.get(&"service.name".into());
    if name.is_some_and(|name| !name.as_str().starts_with("unknown_service")) {
        return detected;
    }
    Resource::builder().with_service_name("coterie").build()
}
