//! For the front door and the operator: how much work is here.

use super::Front;
use crate::readiness::Phase;
use axum::Json;
use axum::extract::State;
use coterie_api::rank_load::RankLoad;
use std::sync::Arc;

/// What the rank does now and has done; while there is no model, nothing.
pub(super) async fn load(State(front): State<Arc<Front>>) -> Json<RankLoad> {
    let phase = front.readiness.phase();
    let engine = front.model.get().map(|model| &model.engine);
    let (load, work) = engine.map(|engine| (engine.load(), engine.work())).unwrap_or_default();
    Json(RankLoad {
        since: u64::try_from(front.started.as_millis()).unwrap_or(u64::MAX),
        ready: phase == Phase::Ready,
        draining: phase == Phase::Draining,
        waiting: load.waiting as u64,
        waiting_tokens: load.waiting_tokens as u64,
        prefilling_tokens: load.prefilling_tokens as u64,
        running: load.running as u64,
        max_running: engine.map_or(0, |engine| engine.max_running() as u64),
        kv_usage: f64::from(load.kv_usage),
        requests: load.scheduled.started,
        prompt_tokens: load.scheduled.started_tokens,
        computed_tokens: load.scheduled.prompt_tokens,
        generated_tokens: load.generated_tokens,
        steps: work.steps,
        busy_seconds: work.busy.as_secs_f64(),
    })
}
