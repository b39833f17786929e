//! What two Coterie processes must agree on: plain data, no IO.
//!
//! The operator and the runtime meet only here. `deployment` and `condition` are the Kubernetes face (feature
//! `crd`); `launch` is what the operator tells a rank and what the rank tells back; `load` is what a rank reports
//! while it serves; `expert_map` and `peers` are the files by which the ranks of a replica share its experts, and
//! `expert_report` what they tell about them; `rank_load` and `front_door` are the loads that are scaled on, `replay` is
//! how a stream outlives its rank; `name` holds every label, annotation and port name; `nearest` is for error messages.

#[cfg(feature = "crd")]
pub mod condition;
#[cfg(feature = "crd")]
pub mod deployment;
pub mod expert_map;
pub mod expert_report;
pub mod front_door;
pub mod launch;
pub mod load;
pub mod name;
pub mod nearest;
pub mod peers;
pub mod rank_load;
pub mod replay;
