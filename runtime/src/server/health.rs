//! For probes and scrapers.

use super::Front;
use crate::metrics::Exposition;
use crate::readiness::Phase;
use axum::Json;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// 200 while the process can do its work or may come to; 503 once only a restart helps.
pub(super) async fn health(State(front): State<Arc<Front>>) -> (StatusCode, &'static str) {
    match front.readiness.phase() {
        Phase::Dead => (StatusCode::SERVICE_UNAVAILABLE, "the engine died\n"),
        _ => (StatusCode::OK, "ok\n"),
    }
}

/// 200 while requests should come here; else 503 and why not.
pub(super) async fn ready(State(front): State<Arc<Front>>) -> (StatusCode, String) {
    match not_ready(&front) {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Every metric, in the text form that was asked for.
pub(super) async fn metrics(State(front): State<Arc<Front>>, headers: HeaderMap) -> impl IntoResponse {
    let form = Exposition::wanted(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    ([(CONTENT_TYPE, form.content_type())], front.metrics.text(front.load(), form))
}

/// What one rank of several knows of its experts, for the operator; 404 where there is only one.
pub(super) async fn experts(State(front): State<Arc<Front>>) -> Response {
    match front.experts.report() {
        Some(report) => Json(report).into_response(),
        None => (StatusCode::NOT_FOUND, "no exchange with other ranks is open\n").into_response(),
    }
}

/// Why no requests should come here.
pub(super) fn not_ready(front: &Front) -> Option<String> {
    match front.readiness.phase() {
        Phase::Ready => None,
        Phase::Loading => Some(format!(
            "the model is being loaded: {:.0} % of its weights",
            front.metrics.weights_loaded() * 100.0
        )),
        Phase::Testing => {
            let waits = front.experts.unreached().map_or_else(String::new, |ranks| format!("; {ranks}"));
            Some(format!("the model is loaded and generates its first token{waits}"))
        }
        Phase::Draining => Some("the process was asked to end and finishes what runs".to_owned()),
        Phase::Dead => Some("the engine died".to_owned()),
    }
}
