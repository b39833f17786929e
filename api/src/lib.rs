//! What two Coterie processes must agree on: plain data, no IO.
//!
//! The operator and the runtime meet only here. `deployment` and `condition` are the Kubernetes face (feature
//! `crd`); `launch` is what the operator tells a rank and what the rank tells back; `load` is what a rank reports
//! while it serves; `name` holds every label, annotation and port name.

#[cfg(feature = "crd")]
pub mod condition;
#[cfg(feature = "crd")]
pub mod deployment;
pub mod launch;
pub mod load;
pub mod name;
