//! The CUDA backend, its kernels in emulation: golden checkpoints of every family, and the promise that a request gets the same
//! bits whatever runs beside it. On a GPU the same is asked by `gpu.rs`. What a backend does by itself is asked below.

#![allow(clippy::unwrap_used, clippy::panic)]

mod attention;
#[path = "../checks/mod.rs"]
mod checks;
#[path = "../emulated/mod.rs"]
mod emulated;
mod experts;
#[path = "../golden/mod.rs"]
mod golden;
mod graphs;
#[path = "../tiny_families/mod.rs"]
mod tiny_families;
#[path = "../tiny_mixtral/mod.rs"]
mod tiny_mixtral;
mod weights;

use coterie_api::launch::TerminationReason;
use coterie_engine::{Engine, EngineOptions};

#[test]
fn every_golden_checkpoint_is_near_the_reference() {
    checks::near_the_reference(&emulated::backend());
}

#[test]
fn a_request_of_every_family_gets_the_same_bits_whatever_runs_beside_it() {
    checks::alone_as_in_company(&emulated::backend(), &emulated::without_graphs());
}

#[test]
fn what_a_gpu_cannot_compute_or_hold_is_refused_before_anything_is_loaded() {
    let with = |change: fn(&mut serde_json::Value), cache_tokens: Option<usize>| {
        let (dir, mut config) = (tempfile::tempdir().unwrap(), tiny_mixtral::config());
        change(&mut config);
        tiny_mixtral::write(dir.path(), &config, &tiny_mixtral::tensors(&config, 3));
        let options = EngineOptions { cache_tokens, threads: 1, ..EngineOptions::default() };
        let loaded = |share: f32| assert_eq!(share, 0.0, "something is loaded");
        let engine = Engine::load_on(emulated::backend(), dir.path(), &options, None, |_| {}, &loaded);
        let error = engine.err().unwrap();
        (error.to_string(), error.reason())
    };
    let (wide, reason) = with(|config| config["head_dim"] = 258.into(), None);
    assert!(wide.contains("the width of a head may be at most 256, this model has 258"), "{wide}");
    assert_eq!(reason, TerminationReason::LaunchRejected);
    let (long, reason) = with(|_| {}, Some(1 << 21));
    assert!(long.contains("cache 2147483648") && long.contains("1073741824 are free"), "{long}");
    assert_eq!(reason, TerminationReason::DeviceUnusable);
}
