//! The operator's decisions: pure functions from what was asked and seen to what is wanted.
//!
//! ```text
//! ModelDeployment ─validate→ Deployment ┐
//! cluster ─────────observe─→ Observed ──┴─plan→ Plan ─(the shell applies)→ Applied ─status→ ModelDeploymentStatus
//! ```
//!
//! Nothing here reads a clock, the environment, a file or the network: time is an argument, and the same arguments
//! give the same answer. Everything in progress is derived from what is observed and from the previous status, so a
//! killed operator goes on where it was.

mod fingerprint;
pub mod model_config;
pub mod objects;
pub mod observed;
pub mod plan;
pub mod status;
pub mod validate;

#[cfg(test)]
mod world;

pub use observed::Observed;
pub use plan::{Action, Plan, plan};
pub use status::{Applied, status};
pub use validate::{Deployment, Invalid, validate};

/// The CustomResourceDefinition, as `coterie-operator crds` prints it.
pub use coterie_api::deployment::crd;
