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

use coterie_api::launch::{Quantization, TerminationReason};
use coterie_engine::moe::host::MakeBackend;
use coterie_engine::{Engine, EngineOptions};
use coterie_kernels::cuda::matmul::{Format, Tiles};
use coterie_kernels::cuda::tiles::{Choice, Kind, Table};
use std::sync::Arc;

#[test]
fn every_golden_checkpoint_is_near_the_reference() {
    checks::near_the_reference(&emulated::backend());
}

#[test]
fn a_request_of_every_family_gets_the_same_bits_whatever_runs_beside_it() {
    checks::alone_as_in_company(&emulated::backend(), &emulated::without_graphs());
}

#[test]
fn a_table_of_tiles_changes_no_bit() {
    let case = golden::cases().into_iter().find(|case| golden::name(case) == "mixtral/plain").unwrap();
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(case.join("config.json")).unwrap()).unwrap();
    let sizes =
        ["hidden_size", "intermediate_size", "vocab_size"].map(|key| config[key].as_u64().unwrap() as usize);
    let said = |tiles: Option<Tiles>| {
        let kinds = sizes.iter().flat_map(|n| sizes.iter().map(move |k| (*n, k.next_multiple_of(32))));
        let choices = kinds.flat_map(|(n, k)| {
            let kind = move |pair| Kind { format: Format::Bf16, pair, n, k };
            [false, true].map(|pair| tiles.map(|tiles| Choice { kind: kind(pair), rows: 0, tiles }))
        });
        let table = Arc::new(Table::new(choices.flatten().collect()));
        let plain = emulated::backend();
        let backend: MakeBackend<_> = Arc::new(move |threads| plain(threads).with_tiles(table.clone()));
        let options = EngineOptions { threads: 1, ..golden::options(Quantization::None) };
        let engine = Engine::load_on(backend, &case, &options, None, |_| {}, &|_| {}).unwrap();
        let (golden, _) = golden::golden(&case);
        let texts: Vec<Vec<u32>> = golden.prompts.iter().map(|prompt| prompt.tokens.clone()).collect();
        let bits = |rows: &golden::Rows| rows.concat().iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        let answers = golden::answers(engine, &texts, 4);
        answers.iter().map(|said| (bits(&said.prompt), bits(&said.greedy_rows))).collect::<Vec<_>>()
    };
    let built_in = said(None);
    assert!(Tiles::ALL.iter().all(|tiles| said(Some(*tiles)) == built_in), "tiles decide what is said");
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
