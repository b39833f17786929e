//! The engine: schedule, forward, sample, emit. Synchronous, and deterministic given each request's seed.
//!
//! [`Engine::load`] reads a model folder, [`Engine::submit`] queues a request, [`Engine::step`] computes the next
//! token of every running request. Whoever owns the engine calls `step` from one thread until [`Engine::is_idle`].
//!
//! Where to read: [`engine`] is the door. [`scheduler`] decides who computes (it knows tokens and blocks, no device),
//! [`batch`] is what it decided. [`model`] is a list of layers, described by a family's file and computed in the operations
//! of [`backend`]. [`moe`] is the part between the gate and the experts. [`weights`] leads from files to matrices.
//! [`simple`] says what all of it must come to, in a few hundred slow lines.

pub mod backend;
pub mod batch;
pub mod block_pool;
pub mod chunks;
pub mod constraint;
pub mod describe;
pub mod digest;
mod emit;
pub mod engine;
pub mod inspect;
pub mod load_error;
pub mod model;
pub mod moe;
pub mod penalties;
pub mod prefix;
pub mod queue;
pub mod request;
pub mod sampler;
pub mod scheduler;
pub mod sequence;
pub mod simple;
pub mod speculation;
pub mod state;
pub mod tiles;
pub mod traffic;
pub mod untrained;
pub mod weights;

pub use backend::cuda::rates::Probe;
pub use constraint::{Constraint, TokenMask};
pub use describe::{Description, describe};
pub use engine::{Engine, EngineOptions, Load, Loaded};
pub use inspect::inspect;
pub use load_error::LoadError;
pub use request::{Event, Finish, NotTaken, Rejected, Request, RequestId, Sampling, TokenLogprobs};
pub use sampler::NoToken;
pub use scheduler::Counts;
