//! HTTP: probes, metrics, the OpenAI API. JSON types never leave this folder.

pub mod accept;
mod health;
mod journal;
mod limits;
mod load;
mod openai;
mod places;
mod record;
mod stream;

use crate::engine_thread::EngineHandle;
use crate::exchange::Window;
use crate::metrics::Metrics;
use crate::readiness::{Phase, Readiness};
use crate::served_model::ServedModel;
use crate::telemetry::Traces;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CONNECTION, CONTENT_ENCODING};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use coterie_engine::Load;
pub use limits::Limits;
pub(crate) use openai::{ApiError, BodyRoom, MODEL_RETRY, ROOM_RETRY, discard, receive};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What every request sees.
pub struct Front {
    /// Name that clients put into `model`.
    pub served_name: String,
    /// Where the process is in its life.
    pub readiness: Readiness,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What clients may take.
    pub limits: Limits,
    bodies: BodyRoom,
    /// Where requests are told of.
    pub traces: Traces,
    /// This rank's experts and the other ranks.
    pub experts: Window,
    model: OnceLock<ServedModel>,
    /// When it began, since 1970.
    started: Duration,
}

impl Front {
    /// A front that has no model yet. Spans are posted to `collector`, if there is one; `experts` shows the exchange.
    pub fn new(served_name: String, limits: Limits, collector: Option<&str>, experts: Window) -> Front {
        let metrics = Arc::new(Metrics::new(&served_name, &experts.counts));
        Front {
            served_name,
            readiness: Readiness::default(),
            traces: Traces::to(collector, metrics.spans_lost.clone()),
            metrics,
            limits,
            bodies: BodyRoom::default(),
            experts,
            model: OnceLock::new(),
            started: unix_time(),
        }
    }

    /// From now on requests are served by `model`.
    pub fn open(&self, model: ServedModel) {
        if self.model.set(model).is_ok() {
            self.readiness.advance(Phase::Ready);
        }
    }

    fn load(&self) -> Load {
        self.model.get().map(|model| &model.engine).map_or_else(Load::default, EngineHandle::load)
    }
}

/// Every path that is served.
pub fn router(front: Arc<Front>) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/load", get(load::load))
        .route("/experts", get(health::experts))
        .merge(openai::routes())
        .fallback(openai::unknown_path)
        .method_not_allowed_fallback(openai::wrong_method)
        .layer(from_fn(refuse_encoded))
        .layer(from_fn_with_state(front.clone(), close_while_draining))
        .with_state(front)
}

/// A small compressed body may be gigabytes, so none is taken. The content-type is not looked at: what is no JSON is
/// refused as such, and clients in the wild send what curl sends.
pub(crate) async fn refuse_encoded(request: Request, next: Next) -> Response {
    match request.headers().get(CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            ApiError::encoded_body().into_response()
        }
        _ => next.run(request).await,
    }
}

/// Tells clients not to come back on this connection.
async fn close_while_draining(State(front): State<Arc<Front>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if matches!(front.readiness.phase(), Phase::Draining | Phase::Dead) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Since 1970.
pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
