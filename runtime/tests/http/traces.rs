//! A collector that we wrote sees the spans of requests.

use crate::client::exchange_with;
use crate::server::{Server, eventually, named, user};
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use coterie_runtime::serve::Ended;
use coterie_runtime::server::Limits;
use coterie_runtime::signals::Asked;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message;
use serde_json::json;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Remembers what is posted to it.
struct Collector {
    url: String,
    posts: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    async fn start() -> Collector {
        let posts: Arc<Mutex<Vec<ExportTraceServiceRequest>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let seen = posts.clone();
        let take = move |body: Bytes| async move {
            seen.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
            StatusCode::OK
        };
        let (_never, stop) = tokio::sync::watch::channel(false);
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move {
            let _never = _never;
            coterie_runtime::server::accept::accept(listener, router, Limits::default(), stop).await;
        });
        Collector { url, posts }
    }

    fn spans(&self) -> Vec<Span> {
        let posts = self.posts.lock().unwrap();
        let resources = posts.iter().flat_map(|post| &post.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    fn service(&self) -> Option<Value> {
        let posts = self.posts.lock().unwrap();
        let resource = posts[0].resource_spans[0].resource.clone()?;
        value(&resource.attributes, "service.name")
    }
}

fn value(attributes: &[KeyValue], key: &str) -> Option<Value> {
    let AnyValue { value } = attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?;
    value
}

fn text(text: &str) -> Option<Value> {
    Some(Value::StringValue(text.to_owned()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Ends the server, so that every span has left it.
async fn drain(server: Server) {
    server.ask(Asked::Drain);
    assert_eq!(server.ended().await, Ok(Ended::Drained));
}

#[tokio::test]
async fn a_chat_is_one_span_under_its_callers() {
    let collector = Collector::start().await;
    let server = Server::start_traced(&collector.url).await;
    let body = named(user("say:abc", json!({"temperature": 0.5, "max_tokens": 9}))).to_string();
    let header = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    let reply = exchange_with(server.address, "POST", "/v1/chat/completions", &header, &body).await;
    let usage = reply.json()["usage"].clone();
    drain(server).await;

    let spans = collector.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    let span = &spans[0];
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!((span.name.as_str(), span.kind), ("chat scripted", SpanKind::Server as i32));
    assert!(span.start_time_unix_nano < span.end_time_unix_nano);
    let attribute = |key| value(&span.attributes, key);
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    for (key, expected) in [
        ("gen_ai.operation.name", text("chat")),
        ("gen_ai.request.model", text("scripted")),
        ("gen_ai.response.id", text(&id)),
        ("gen_ai.request.temperature", Some(Value::DoubleValue(0.5))),
        ("gen_ai.request.max_tokens", Some(Value::IntValue(9))),
        ("gen_ai.usage.input_tokens", usage["prompt_tokens"].as_i64().map(Value::IntValue)),
        ("gen_ai.usage.output_tokens", Some(Value::IntValue(4))),
        ("error.type", None),
    ] {
        assert_eq!(attribute(key), expected, "{key}");
    }
    let Some(Value::ArrayValue(reasons)) = attribute("gen_ai.response.finish_reasons") else {
        panic!("{span:?}")
    };
    assert_eq!(reasons.values[0].value, text("stop"));
    let seconds = |key| match attribute(key) {
        Some(Value::DoubleValue(seconds)) => seconds,
        other => panic!("{key}: {other:?}"),
    };
    let queue = seconds("gen_ai.latency.time_in_queue");
    let first = seconds("gen_ai.latency.time_to_first_token");
    assert!(0.0 <= queue && queue <= first && first <= seconds("gen_ai.latency.e2e"), "{span:?}");
    assert_eq!(collector.service(), text("coterie"));
}

#[tokio::test]
async fn a_refused_request_is_a_span_with_its_error() {
    let collector = Collector::start().await;
    let server = Server::start_traced(&collector.url).await;
    server.complete(json!({"prompt": "say:a", "model": "another"})).await;
    drain(server).await;

    let spans = collector.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0].name, "text_completion scripted");
    assert_eq!(spans[0].status.as_ref().unwrap().code, SpanStatus::Error as i32);
    assert_eq!(value(&spans[0].attributes, "error.type"), text("model_not_found"));
    assert!(spans[0].parent_span_id.is_empty());
}

#[tokio::test]
async fn what_the_caller_does_not_sample_is_not_sent() {
    let collector = Collector::start().await;
    let server = Server::start_traced(&collector.url).await;
    let body = named(user("say:a", json!({}))).to_string();
    let header = format!("traceparent: 00-{TRACE}-{PARENT}-00");
    exchange_with(server.address, "POST", "/v1/chat/completions", &header, &body).await;
    drain(server).await;
    assert_eq!(collector.spans(), Vec::new());
}

#[tokio::test]
async fn spans_are_sent_while_the_process_serves() {
    let collector = Collector::start().await;
    let server = Server::start_traced(&collector.url).await;
    let reply = server.chat(user("say:a", json!({"stream": true}))).await;
    assert_eq!(reply.status, 200);
    eventually("the span arrives", || collector.spans().len() == 1).await;
}

#[tokio::test]
async fn a_collector_that_is_away_changes_nothing() {
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = Server::start_traced(&format!("http://{away}/v1/traces")).await;
    let reply = server.chat(user("say:abc", json!({}))).await;
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "abc");
    for _ in 0..500 {
        if server.metric("coterie_spans_lost_total").await == 1.0 {
            return drain(server).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the span was never given up");
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_up_neither_requests_nor_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start_traced(&format!("http://{}/", silent.local_addr().unwrap())).await;
    let reply = server.chat(user("say:abc", json!({}))).await;
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "abc");
    drain(server).await;
}

#[tokio::test]
async fn a_collector_that_cannot_be_spoken_to_does_not_stop_the_server() {
    let server = Server::start_traced("https://collector.example:4318/v1/traces").await;
    assert_eq!(server.chat(user("say:abc", json!({}))).await.status, 200);
}
