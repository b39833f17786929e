//! Bodies of requests, through the whole server but the network.

use crate::fuzz::{Target, run};
use crate::{model, script::Script};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use coterie_runtime::chat_template::Rendering;
use coterie_runtime::engine_thread::spawn;
use coterie_runtime::grammar::Grammars;
use coterie_runtime::served_model::{ServedModel, TextSide};
use coterie_runtime::server::{Front, Limits, router};
use serde_json::Value;
use std::sync::Arc;
use tower::ServiceExt;

const WORDS: &[&str] = &[
    "model",
    "scripted",
    "messages",
    "role",
    "user",
    "system",
    "assistant",
    "developer",
    "tool",
    "content",
    "type",
    "text",
    "name",
    "prompt",
    "suffix",
    "echo",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "n",
    "best_of",
    "stream",
    "coterie_replay",
    "begun",
    "id",
    "created",
    "choices",
    "tokens",
    "cached",
    "stream_options",
    "include_usage",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "ignore_eos",
    "response_format",
    "json_schema",
    "json_object",
    "schema",
    "strict",
    "tools",
    "function",
    "parameters",
    "tool_choice",
    "required",
    "auto",
    "none",
    "parallel_tool_calls",
    "tool_calls",
    "tool_call_id",
    "arguments",
    "structured_outputs",
    "regex",
    "choice",
    "grammar",
    "json",
    "reasoning_effort",
    "chat_template_kwargs",
    "user",
    "say:{\"a\": 1}",
    "say:<tool_call>",
    "say:x",
    "wait",
    "[TOOL_CALLS]",
    "<think>",
    "(a+)+$",
    "properties",
    "$ref",
    "#",
    "anyOf",
    "pattern",
    "priority",
    "stop_token_ids",
    "metadata",
    "service_tier",
];

#[test]
fn chat_requests() {
    attack("chat_requests", "/v1/chat/completions");
}

#[test]
fn completion_requests() {
    attack("completion_requests", "/v1/completions");
}

fn attack(name: &'static str, path: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let router = runtime.block_on(served());
    let memory = |input| (64 << 20) + 2000 * input;
    run(&Target { name, inputs: 6_000, json: true, words: WORDS, repair: |_| {}, memory }, |body| {
        runtime.block_on(answer(&router, path, body))
    });
}

async fn served() -> Router {
    let folder = model::folder();
    let front = Arc::new(Front::new("scripted".to_owned(), Limits::default(), None, Default::default()));
    let engine = spawn(|| Ok(Script::new(Arc::default())), front.metrics.clone()).await.unwrap();
    let text = Arc::new(TextSide::load(folder.path(), &Rendering::Within).unwrap());
    let grammars = Arc::new(Grammars::new(text.clone(), engine.vocabulary(), engine.stop_tokens()));
    front.open(ServedModel::new(text, engine, grammars));
    router(front)
}

/// The status, and for a refusal its words.
async fn answer(router: &Router, path: &str, body: &[u8]) -> String {
    let request = Request::post(path).body(Body::from(body.to_vec())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let (status, kind) = (response.status(), response.headers()["content-type"].to_str().unwrap().to_owned());
    let text = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let text = str::from_utf8(&text).expect("answers are UTF-8");
    assert!(!status.is_server_error(), "{status} {text}");
    if kind.starts_with("text/event-stream") {
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        return "streamed".to_owned();
    }
    let json: Value = serde_json::from_str(text).expect("answers are JSON");
    match status.is_success() {
        true => format!("{} choices", json["choices"].as_array().unwrap().len().min(3)),
        false => format!("{status} {}", json["error"]["message"].as_str().expect("errors have a message")),
    }
}
