//! The document and the parser say the same: every parameter that is documented is accepted with every kind of value
//! that it is said to have and refused beyond its limits, and every parameter that the parser takes is documented.

use super::document;
use crate::chat_template::Rendering;
use crate::engine_thread::{TokenSource, spawn};
use crate::grammar::Grammars;
use crate::model_folder as folder;
use crate::served_model::{ServedModel, TextSide};
use crate::server::openai::parameters::recorded;
use crate::server::{Front, Limits, router};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use coterie_engine::{Event, Load, Rejected, RequestId};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use tower::ServiceExt;

const MODEL: &str = "documented";
const ENDPOINTS: [(&str, &str); 2] =
    [("/v1/chat/completions", "ChatRequest"), ("/v1/completions", "CompletionRequest")];

/// What a parameter is accepted with only.
fn needed_by(name: &str, value: &Value) -> Value {
    match name {
        "top_logprobs" => json!({"logprobs": true}),
        "stream_options" | "coterie_replay" => json!({"stream": true}),
        "continuous_usage_stats" => json!({"include_usage": true}),
        "tool_choice" => json!({"tools": [{"type": "function", "function": {"name": "a"}}]}),
        "best_of" => json!({"n": value}),
        "max_tokens" if *value == 0 => json!({"echo": true}),
        _ => json!({}),
    }
}

#[tokio::test]
async fn what_is_documented_is_accepted_and_what_is_taken_is_documented() {
    let router = served().await;
    let document = document(MODEL);
    for (path, name) in ENDPOINTS {
        let schema = &document["components"]["schemas"][name];
        recorded::clear();
        for body in examples(&document, schema) {
            let (status, error) = post(&router, path, &body).await;
            // Which roles may follow which is the template's affair.
            let by_template =
                error["message"].as_str().is_some_and(|said| said.contains("chat template refuses"));
            let accepted = status == 429 || error["code"] == "context_length_exceeded" || by_template;
            assert!(accepted, "{body} is documented, and is answered {status} {error}");
        }
        let documented = names(&document, schema, "");
        let open: Vec<String> =
            documented.iter().filter_map(|name| name.strip_suffix('*')).map(str::to_owned).collect();
        let is_open = |name: &String| open.iter().any(|prefix| name.starts_with(prefix.as_str()));
        let documented: BTreeSet<String> = documented.into_iter().filter(|name| !is_open(name)).collect();
        let taken: BTreeSet<String> = recorded::names().into_iter().filter(|name| !is_open(name)).collect();
        assert_eq!(taken, documented, "{path}: left what the parser takes, right what is documented");
    }
}

#[tokio::test]
async fn what_lies_beyond_a_documented_limit_is_refused() {
    let router = served().await;
    let document = document(MODEL);
    for (path, name) in ENDPOINTS {
        let schema = &document["components"]["schemas"][name];
        let valid = examples(&document, schema).swap_remove(0);
        for (name, property) in schema["properties"].as_object().unwrap() {
            for value in beyond(&document, property) {
                let mut body = valid.clone();
                body[name] = value;
                add(&mut body, needed_by(name, &Value::Null));
                let (status, error) = post(&router, path, &body).await;
                assert_eq!(status, 400, "{name} of {path}: {} {error}", shortened(&body[name]));
                assert_ne!(error["code"], "context_length_exceeded", "{name}: {}", shortened(&body[name]));
            }
        }
    }
}

#[tokio::test]
async fn every_documented_path_is_served() {
    let router = served().await;
    let document = document(MODEL);
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path.replace("{model}", MODEL);
        for method in ["get", "post"] {
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(&path);
            let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let served = response.status() != 405;
            assert_eq!(served, operations.get(method).is_some(), "{method} {path}: {}", response.status());
            assert_ne!(response.status(), 404, "{method} {path}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document(MODEL);
    let text = document.to_string();
    for schema in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(text.contains(&format!("#/components/schemas/{schema}\"")), "{schema} is used nowhere");
    }
    for rest in text.split("\"#/components/schemas/").skip(1) {
        let name = rest.split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "{name} is not there");
    }
}

/// An engine whose queue is always full: a request that gets there was accepted by the parser.
struct Full;

impl TokenSource for Full {
    fn submit(&mut self, _: coterie_engine::Request) -> Result<RequestId, Rejected> {
        Err(Rejected::QueueFull { waiting: 1000, limit: 1000 })
    }
    fn cancel(&mut self, _: RequestId) {}
    fn step(&mut self, _: &mut Vec<Event>) {}
    fn is_idle(&self) -> bool {
        true
    }
    fn load_now(&self) -> Load {
        Load::default()
    }
    fn max_running(&self) -> usize {
        1
    }
    fn context_length(&self) -> usize {
        100_000
    }
    fn stop_tokens(&self) -> &[u32] {
        &[folder::END]
    }
    fn vocabulary(&self) -> usize {
        259
    }
}

async fn served() -> Router {
    let folder = folder::folder();
    let front = Arc::new(Front::new(MODEL.to_owned(), Limits::default(), None, Default::default()));
    let engine = spawn(|| Ok(Full), front.metrics.clone()).await.unwrap();
    let text = Arc::new(TextSide::load(folder.path(), &Rendering::Within).unwrap());
    let grammars = Arc::new(Grammars::new(text.clone(), engine.vocabulary(), engine.stop_tokens()));
    front.open(ServedModel::new(text, engine, grammars));
    router(front)
}

async fn post(router: &Router, path: &str, body: &Value) -> (u16, Value) {
    let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    (status, answer["error"].clone())
}

/// The schema itself, where `schema` is a reference.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap(),
        None => schema,
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().map(|kind| kind.as_str().unwrap()).collect(),
        _ => Vec::new(),
    }
}

/// Values that satisfy `schema`, with every property, form, word and limit in at least one of them.
fn examples(document: &Value, schema: &Value) -> Vec<Value> {
    let schema = resolved(document, schema);
    if let Some(value) = schema.get("const") {
        return vec![value.clone()];
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.clone();
    }
    if let Some(forms) = schema["anyOf"].as_array() {
        return forms.iter().flat_map(|form| examples(document, form)).collect();
    }
    types(schema).into_iter().flat_map(|kind| examples_of(document, schema, kind)).collect()
}

fn examples_of(document: &Value, schema: &Value, kind: &str) -> Vec<Value> {
    if let Some(given) = schema["examples"].as_array() {
        return given.clone();
    }
    match kind {
        "null" => vec![Value::Null],
        "boolean" => vec![json!(true), json!(false)],
        "integer" | "number" => {
            let limits =
                ["default", "minimum", "maximum"].into_iter().filter_map(|name| schema.get(name).cloned());
            let limits: Vec<Value> = limits.collect();
            if limits.is_empty() { vec![json!(1)] } else { limits }
        }
        "string" if schema.get("contentMediaType").is_some() => vec![json!("{}")],
        "string" => {
            let longest = schema["maxLength"].as_u64().map(|length| json!("a".repeat(length as usize)));
            std::iter::once(json!("a")).chain(longest).collect()
        }
        "array" => {
            let most = schema["maxItems"].as_u64().map(|most| most as usize);
            if most == Some(0) {
                return vec![json!([])];
            }
            let items = examples(document, &schema["items"]);
            let full =
                most.filter(|_| schema["items"]["type"] != "object").map(|most| json!(vec![&items[0]; most]));
            // Tools must differ.
            let full = full.filter(|_| schema["items"].get("$ref").is_none());
            items.iter().map(|item| json!([item])).chain(full).collect()
        }
        "object" => objects(document, schema),
        other => panic!("{other} in {schema}"),
    }
}

fn objects(document: &Value, schema: &Value) -> Vec<Value> {
    let Some(properties) = schema["properties"].as_object() else {
        let values = schema.get("additionalProperties").filter(|values| values.is_object());
        let named = values.map(|values| examples(document, values)).unwrap_or_default();
        return named.into_iter().map(|value| json!({"1": value})).chain([json!({})]).collect();
    };
    let required: Vec<&str> =
        schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let least: Map<String, Value> = required
        .iter()
        .map(|name| ((*name).to_owned(), examples(document, &properties[*name]).swap_remove(0)))
        .collect();
    let mut objects = vec![Value::Object(least)];
    for (name, property) in properties {
        for value in examples(document, property) {
            let mut object = objects[0].clone();
            add(&mut object, needed_by(name, &value));
            object[name] = value;
            objects.push(object);
        }
    }
    objects
}

fn add(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

/// Values just beyond the limits of `schema`, and of a type that it has not.
fn beyond(document: &Value, schema: &Value) -> Vec<Value> {
    let schema = resolved(document, schema);
    let mut values = vec![json!([[[]]])];
    if let Some(minimum) = schema.get("minimum") {
        let below = minimum.as_i64().map(|least| least.checked_sub(1).map_or(json!(-1e30), Value::from));
        values.push(below.unwrap_or_else(|| json!(minimum.as_f64().unwrap() - 0.001)));
    }
    if let Some(maximum) = schema.get("maximum") {
        let above = maximum.as_i64().map(|most| most.checked_add(1).map_or(json!(1e30), Value::from));
        values.push(above.unwrap_or_else(|| json!(maximum.as_f64().unwrap() + 0.001)));
    }
    if let Some(longest) = schema["maxLength"].as_u64() {
        values.push(json!("a".repeat(longest as usize + 1)));
    }
    if schema.get("minLength").is_some() {
        values.push(json!(""));
    }
    if schema.get("enum").is_some() {
        values.push(json!("no such word"));
    }
    if schema["type"] == "null" || types(schema) == ["boolean", "null"] {
        values.push(json!("yes"));
    }
    if let Some(most) = schema["maxItems"].as_u64() {
        let item = schema.get("items").map_or(json!({}), |items| examples(document, items).swap_remove(0));
        values.push(json!(vec![item; most as usize + 1]));
    }
    if let Some(most) = schema["maxProperties"].as_u64() {
        let many: Map<String, Value> = (0..=most).map(|at| (at.to_string(), json!(0))).collect();
        values.push(Value::Object(many));
    }
    if schema["additionalProperties"] == false {
        values.push(json!({"no_such_thing": 1}));
    }
    values.extend(schema["anyOf"].as_array().into_iter().flatten().flat_map(|form| {
        let form = resolved(document, form);
        let long = form["maxItems"].as_u64().filter(|most| *most < 1000);
        long.map(|most| json!(vec![examples(document, &form["items"]).swap_remove(0); most as usize + 1]))
    }));
    values
}

/// The paths of all properties; `*` stands for any name.
fn names(document: &Value, schema: &Value, prefix: &str) -> BTreeSet<String> {
    let schema = resolved(document, schema);
    let mut found = BTreeSet::new();
    for form in schema["anyOf"].as_array().into_iter().flatten() {
        found.extend(names(document, form, prefix));
    }
    if let Some(items) = schema.get("items") {
        found.extend(names(document, items, &format!("{}[].", prefix.trim_end_matches('.'))));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        found.extend(names(document, property, &format!("{path}.")));
        found.insert(path);
    }
    if schema["additionalProperties"].is_object() {
        found.insert(format!("{prefix}*"));
    }
    found
}

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(100).collect()
}

#[test]
fn the_load_is_described_field_by_field() {
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let load = serde_json::to_value(coterie_api::rank_load::RankLoad::default()).unwrap();
    assert_eq!(keys(&super::answers::load()["properties"]), keys(&load));
}
