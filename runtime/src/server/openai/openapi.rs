//! `/openapi.json`: what is served, as an OpenAPI 3.1 document. Its tests hold it to the parser, in both directions.

mod answers;
mod chat;
mod completions;
mod refusals;
mod schema;
mod settings;
#[cfg(test)]
mod tests;

use crate::server::Front;
use axum::Json;
use axum::extract::State;
use refusals::{refusals, text_refusal};
use schema::{reference, string};
use serde_json::{Value, json};
use std::sync::Arc;

pub(in crate::server) async fn published(State(front): State<Arc<Front>>) -> Json<Value> {
    Json(document(&front.served_name))
}

/// The document of a server whose model has this name.
fn document(served_name: &str) -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Coterie", "version": env!("CARGO_PKG_VERSION"),
            "description": "One rank: the OpenAI API for one model. Parameters that are not listed are refused, and so is every value that a listed one does not allow; a parameter that is null counts as not given.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/chat/completions": {"post": {
                "operationId": "createChatCompletion",
                "summary": "Continues a conversation.",
                "requestBody": body("ChatRequest"),
                "responses": answered("ChatCompletion", "ChatCompletionChunk"),
            }},
            "/v1/completions": {"post": {
                "operationId": "createCompletion",
                "summary": "Continues texts or tokens.",
                "requestBody": body("CompletionRequest"),
                "responses": answered("Completion", "Completion"),
            }},
            "/v1/models": {"get": {
                "operationId": "listModels",
                "summary": "The model that is served.",
                "responses": with(success(reference("ModelList")), refusals(&[405, 503])),
            }},
            "/v1/models/{model}": {"get": {
                "operationId": "retrieveModel",
                "summary": "The model, if it is the one that is served. The name may hold slashes.",
                "parameters": [{
                    "name": "model", "in": "path", "required": true, "schema": {"type": "string", "minLength": 1},
                    "example": served_name,
                }],
                "responses": with(success(reference("Model")), refusals(&[404, 405, 503])),
            }},
            "/health": {"get": {
                "operationId": "health",
                "summary": "Whether the process can do its work or may come to.",
                "responses": with(text("ok"), text_refusal(503, "Only a restart helps.")),
            }},
            "/ready": {"get": {
                "operationId": "ready",
                "summary": "Whether requests should come here.",
                "responses": with(text("ready"), text_refusal(503, "Not now; why not.")),
            }},
            "/metrics": {"get": {
                "operationId": "metrics",
                "summary": "What is counted, for Prometheus.",
                "responses": with(metrics(), refusals(&[405])),
            }},
            "/load": {"get": {
                "operationId": "load",
                "summary": "How busy the rank is, for routers and scalers; counts go on from the process's begin.",
                "responses": with(success(reference("RankLoad")), refusals(&[405])),
            }},
            "/openapi.json": {"get": {
                "operationId": "openapi",
                "summary": "This document.",
                "responses": with(success(json!({"type": "object"})), refusals(&[405])),
            }},
        },
        "components": {"schemas": schemas(served_name)},
    })
}

fn schemas(served_name: &str) -> Value {
    let model = json!({"const": served_name, "description": "The name of the model that is served."});
    json!({
        "ChatRequest": chat::request(&model),
        "Message": chat::message(),
        "TextParts": chat::text_parts(),
        "Tool": chat::tool(),
        "ResponseFormat": settings::response_format(),
        "StructuredOutputs": settings::structured_outputs(),
        "StreamOptions": settings::stream_options(),
        "Replay": settings::replay(),
        "ChatCompletion": chat::completion(),
        "ChatCompletionChunk": chat::chunk(),
        "ChatLogprobs": answers::chat_logprobs(),
        "CompletionRequest": completions::request(&model),
        "Completion": completions::completion(),
        "CompletionLogprobs": answers::completion_logprobs(),
        "Usage": answers::usage(),
        "Model": answers::model(),
        "ModelList": answers::list_of_models(),
        "RankLoad": answers::load(),
        "Error": refusals::error(),
    })
}

fn body(schema: &str) -> Value {
    json!({"required": true, "content": {"application/json": {"schema": reference(schema)}}})
}

/// What a request for tokens is answered: whole, as a stream, or by a refusal.
fn answered(whole: &str, chunk: &str) -> Value {
    let stream = format!(
        "With `stream`: events of one `data:` line each, a `{chunk}` as JSON; after the last, `data: [DONE]`. An answer that breaks off ends with an `Error` instead."
    );
    let events = json!({"schema": {"description": stream}, "x-event": reference(chunk)});
    let mut responses = success(reference(whole));
    responses["200"]["content"]["text/event-stream"] = events;
    with(responses, refusals(refusals::OF_REQUESTS_FOR_TOKENS))
}

fn success(schema: Value) -> Value {
    json!({"200": {"description": "The answer.", "content": {"application/json": {"schema": schema}}}})
}

fn text(word: &str) -> Value {
    let schema = json!({"const": format!("{word}\n")});
    json!({"200": {"description": "Yes.", "content": {"text/plain": {"schema": schema}}}})
}

fn metrics() -> Value {
    let schema = string("Metrics, as the request accepts them.");
    let kinds = ["application/openmetrics-text", "text/plain"];
    let content: serde_json::Map<String, Value> =
        kinds.into_iter().map(|kind| (kind.to_owned(), json!({"schema": schema}))).collect();
    json!({"200": {"description": "The metrics.", "content": content}})
}

fn with(mut responses: Value, more: Value) -> Value {
    if let (Value::Object(responses), Value::Object(more)) = (&mut responses, more) {
        responses.extend(more);
    }
    responses
}
