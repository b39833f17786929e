//! `/v1/models`: the one model that is served.

use super::{ApiError, model};
use crate::server::Front;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn list(State(front): State<Arc<Front>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({"object": "list", "data": [object(&front)?]})))
}

pub(super) async fn retrieve(
    State(front): State<Arc<Front>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    // No name that is not UTF-8 is that of a model.
    let name = name.map_or(String::from("\u{fffd}"), |Path(name)| name);
    if name != front.served_name {
        return Err(ApiError::unknown_model(&name, &front.served_name));
    }
    Ok(Json(object(&front)?))
}

fn object(front: &Front) -> Result<Value, ApiError> {
    let context = model(front)?.engine.context_length();
    Ok(json!({
        "id": front.served_name, "object": "model", "created": front.started.as_secs(), "owned_by": "coterie",
        "max_model_len": context,
    }))
}
