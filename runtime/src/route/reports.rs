//! What the operator and scrapers see, on a port of their own.

use super::door::Door;
use super::front::ready;
use super::metrics::scrape;
use crate::server::ApiError;
use axum::extract::State;
use axum::http::{Method, Uri};
use axum::routing::get;
use axum::{Json, Router};
use coterie_api::front_door::FrontDoorLoad;
use std::sync::Arc;

/// The paths.
pub fn router(door: Arc<Door>) -> Router {
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/load", get(load))
        .route("/metrics", get(scrape))
        .fallback(|method: Method, uri: Uri| async move { ApiError::not_here(&method, uri.path()) })
        .with_state(door)
}

async fn load(State(door): State<Arc<Door>>) -> Json<FrontDoorLoad> {
    let models = door.fleet.models().iter().map(|served| served.lane.load()).collect();
    Json(FrontDoorLoad { since: door.since, models })
}
