//! The engine: schedule, forward, sample, emit. Synchronous, and deterministic given each request's seed.
//!
//! [`Engine::load`] reads a model folder, [`Engine::submit`] queues a request, [`Engine::step`] computes the next
//! token of every running request. Whoever owns the engine calls `step` from one thread until [`Engine::is_idle`].

pub mod engine;
pub mod request;

pub use engine::{Engine, EngineOptions};
pub use request::{Event, Finish, Rejected, Request, RequestId, Sampling, TokenLogprobs};
