//! The paths of the front door.

use super::asked::Asked;
use super::door::{Door, Order};
use super::fleet::Served;
use super::headers::onward;
use super::lane::Need;
use super::record::Record;
use super::relay;
use crate::server::{ApiError, discard, receive, refuse_encoded};
use axum::extract::{Path, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// What clients see.
pub fn router(door: Arc<Door>) -> Router {
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/v1/models", get(list))
        .route("/v1/models/{*model}", get(retrieve))
        .route("/v1/chat/completions", post(create))
        .route("/v1/completions", post(create))
        .fallback(|method: Method, uri: Uri| async move { ApiError::not_here(&method, uri.path()) })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            ApiError::wrong_method(&method, uri.path())
        })
        .layer(from_fn(refuse_encoded))
        .layer(from_fn_with_state(door.clone(), close_while_draining))
        .with_state(door)
}

/// Tells clients not to come back on this connection.
async fn close_while_draining(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if door.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// 200 while requests should come here; else 503 and why not. It does not matter whether any model has a rank: requests
/// wait here until one has.
pub(super) async fn ready(State(door): State<Arc<Door>>) -> (StatusCode, &'static str) {
    if door.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "the process was asked to end and finishes what runs\n")
    } else if !door.fleet.is_known() {
        (StatusCode::SERVICE_UNAVAILABLE, "the models are not known yet\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

async fn list(State(door): State<Arc<Door>>, headers: HeaderMap) -> Result<Json<Value>, ApiError> {
    door.keys.caller(&headers)?;
    if !door.fleet.is_known() {
        return Err(ApiError::no_table());
    }
    let all = door.fleet.models();
    let models: Vec<Value> = all.iter().map(|model| object(&name(model, &all), model.made)).collect();
    Ok(Json(json!({"object": "list", "data": models})))
}

async fn retrieve(
    State(door): State<Arc<Door>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    door.keys.caller(&headers)?;
    let model = door.model(&name)?;
    Ok(Json(object(&name, model.made)))
}

/// What a model is asked for by: its served name, or its whole name where that is not enough.
fn name(model: &Served, all: &[Served]) -> String {
    match model.has_its_name(all) {
        true => model.served_name.to_string(),
        false => model.lane.key.to_string(),
    }
}

/// Every router says the same; 0 where nobody knows when the model was made.
fn object(name: &str, made: Option<i64>) -> Value {
    json!({"id": name, "object": "model", "created": made.unwrap_or(0), "owned_by": "coterie"})
}

/// Answers a request for tokens.
async fn create(State(door): State<Arc<Door>>, request: Request) -> Result<Response, ApiError> {
    let order = match order(&door, request).await {
        Ok(order) => order,
        Err(refused) => {
            door.metrics.refused(refused.name());
            return Err(refused);
        }
    };
    if order.asked.streamed {
        Ok(relay::streamed(door, order).await)
    } else {
        relay::whole(door, order).await
    }
}

/// What a request asks for, if its caller may.
async fn order(door: &Arc<Door>, request: Request) -> Result<Order, ApiError> {
    let arrived = Instant::now();
    let caller = match door.keys.caller(request.headers()) {
        Ok(caller) => caller,
        Err(refused) => {
            discard(request).await;
            return Err(refused);
        }
    };
    let path =
        PathAndQuery::try_from(request.uri().path()).unwrap_or_else(|_| PathAndQuery::from_static("/"));
    let headers = onward(request.headers());
    let (bytes, room) = receive(request, door.limits.body, &door.bodies).await?.into_parts();
    let asked = Asked::read(bytes.into())?;
    let served = door.model(&asked.model)?;
    let permit = caller.admit(asked.prompt_tokens)?;
    let need = Need {
        caller: caller.name.clone(),
        priority: caller.priority(),
        cost: asked.cost(),
        prompt_tokens: asked.prompt_tokens,
        choices: asked.choices,
        bytes: asked.bytes(),
        prefix: asked.prefix.clone(),
    };
    let record = Record::begin(door.clone(), permit, served.lane.key.clone(), arrived);
    Ok(Order { asked, served, need: Arc::new(need), path, headers, arrived, record, _room: room })
}
