//! `cargo xtask`: demo, test, check, cluster, model.
fn main() {}
