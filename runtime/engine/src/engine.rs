//! The engine's door: load, submit, step, cancel.

use crate::request::{Event, Rejected, Request, RequestId};
use coterie_api::launch::{Device, Inspection, Quantization};
use std::path::Path;

/// How a model is loaded and how much runs at once.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How the weights are held.
    pub quantization: Quantization,
    /// What to compute on.
    pub device: Device,
    /// Longest request, prompt and answer, tokens; the model's own when absent.
    pub context_length: Option<usize>,
    /// Threads to compute with; 0 takes all cores this process may use.
    pub threads: usize,
    /// Requests in one batch at most.
    pub max_running: usize,
    /// Requests that may wait at most.
    pub max_waiting: usize,
}
// Engine::load(dir: &Path, options: &EngineOptions, progress: &dyn Fn(f32)) -> Result<Engine, LoadError>
//   LoadError: thiserror enum; `fn reason(&self) -> coterie_api::launch::TerminationReason`
// Engine::submit(&mut self, request: Request) -> Result<RequestId, Rejected>
// Engine::cancel(&mut self, id: RequestId)
// Engine::step(&mut self, events: &mut Vec<Event>)      // clears nothing, appends
// Engine::is_idle(&self) -> bool
// Engine::load_now(&self) -> Load { waiting, running: usize, kv_usage: f32, prompt_tokens, generated_tokens: u64 (totals) }
// Engine::context_length(&self) -> usize; Engine::vocabulary(&self) -> usize
// Engine::stop_tokens(&self) -> &[u32]                   // eos ids from generation_config.json, else config.json
// pub fn inspect(dir: &Path) -> Result<Inspection, LoadError>   // headers only, plus the digest
