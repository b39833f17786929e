//! A request as a span, in the words of OpenTelemetry's semantic conventions for generative AI; its times under the names
//! that vLLM gives them.

use opentelemetry::trace::{Span, SpanBuilder, SpanKind, Status, Tracer};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SdkTracer;
use std::time::{Duration, SystemTime};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The next message of a conversation.
    Chat,
    /// What follows a text.
    TextCompletion,
}

impl Operation {
    /// As `gen_ai.operation.name` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Chat => "chat",
            Operation::TextCompletion => "text_completion",
        }
    }
}

/// A request that is over.
#[derive(Clone, Debug)]
pub struct RequestSpan {
    /// Whose work it is part of.
    pub parent: Context,
    /// What was asked for.
    pub operation: Operation,
    /// The model's name.
    pub model: String,
    /// When it came.
    pub arrived: SystemTime,
    /// From then to its end.
    pub took: Duration,
    /// What is known of it beside; nothing for what never was.
    pub attributes: Vec<KeyValue>,
    /// Why it was not answered: a word for machines and a sentence.
    pub error: Option<(&'static str, String)>,
}

impl RequestSpan {
    pub(super) fn end(self, tracer: &SdkTracer) {
        let mut attributes = self.attributes;
        attributes.extend([
            KeyValue::new("gen_ai.operation.name", self.operation.name()),
            KeyValue::new("gen_ai.provider.name", "coterie"),
            KeyValue::new("gen_ai.request.model", self.model.clone()),
            KeyValue::new("gen_ai.latency.e2e", self.took.as_secs_f64()),
        ]);
        let status = match self.error {
            None => Status::Unset,
            Some((kind, sentence)) => {
                attributes.push(KeyValue::new("error.type", kind));
                Status::error(sentence)
            }
        };
        let builder = SpanBuilder::from_name(format!("{} {}", self.operation.name(), self.model))
            .with_kind(SpanKind::Server)
            .with_start_time(self.arrived)
            .with_attributes(attributes);
        let mut span = tracer.build_with_context(builder, &self.parent);
        span.set_status(status);
        span.end_with_timestamp(self.arrived + self.took);
    }
}

/// An attribute that is a list of words.
pub fn words(key: &'static str, words: impl IntoIterator<Item = &'static str>) -> KeyValue {
    let words = words.into_iter().map(StringValue::from).collect();
    KeyValue::new(key, Value::Array(Array::String(words)))
}
