//! Several crates together on one machine: a real API server, no kubelet, no GPU.
//!
//! [`api_server`] starts etcd and kube-apiserver on loopback, once for all tests of a binary. A [`world::World`] is one
//! test's own part of it: a namespace, nodes that only its pods fit, and fake kubelets ([`kubelet`]) that say what
//! pods do. Operators run inside the test's process behind a [`wire::Wire`], which counts their calls and can cut them
//! off after the n-th write. A [`rank::Rank`] tells what the operator asks ranks of several.

pub mod api_server;
pub mod kubelet;
pub mod port;
pub mod process;
pub mod rank;
pub mod wire;
pub mod world;
