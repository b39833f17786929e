//! The scaler before demand that is known: what it decides, and what it never does.

mod backlog;
mod cases;
mod invariants;
pub(super) mod stage;
