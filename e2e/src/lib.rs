//! A real Kubernetes with real pods, driven from outside: what the end-to-end tests share.
//!
//! The tests see the cluster as a user does: resources as JSON, the model through its Service. They find it by
//! `KUBECONFIG`; `cargo xtask test` starts the cluster, installs the chart and runs them inside the cluster's network
//! namespace, so that Service addresses are reachable.

pub mod chat;
pub mod helm;
pub mod load;
pub mod namespace;
pub mod node;
pub mod operator;
pub mod wait;

/// Reference of the talking model's image, which `cargo xtask test` puts on every node.
pub const TALKING_MODEL: &str = "localhost/coterie-smol-moe:1";
