//! `/health` and `/metrics`.

use crate::health::Health;
use crate::metrics::Metrics;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Router, routing::get};
use std::sync::Arc;
use tokio::net::TcpListener;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers on `listener` until dropped.
pub async fn serve(listener: TcpListener, health: Arc<Health>, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/health", get(report_health).with_state(health))
        .route("/metrics", get(report_metrics).with_state(metrics));
    axum::serve(listener, router).await
}

/// 200 `ok`, or 503 and a line for each part that is stuck: a restart is then the best that can be done.
async fn report_health(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    let stuck = health.stuck();
    if stuck.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, stuck.join("\n") + "\n")
}

async fn report_metrics(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], metrics.text())
}
