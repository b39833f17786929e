//! A layer's experts, which the device dispatches by itself.

use crate::{emulated, golden, tiny_mixtral};
use coterie_api::launch::{Activations, Quantization};
use coterie_engine::backend::Backend;
use coterie_engine::model::config::Config;
use coterie_engine::model::experts::load_moe;
use coterie_engine::moe::Moe;
use coterie_engine::moe::combine::combine;
use coterie_engine::moe::dispatch::Dispatch;
use coterie_engine::moe::expert::{Expert, compute};
use coterie_engine::weights::Loader;
use coterie_engine::weights::shard::Checkpoint;
use half::bf16;

/// Rows of `x` through a layer's experts by way of the host.
fn by_the_host<B: Backend>(backend: &B, moe: &Moe<B>, x: &B::Tensor, logits: &B::Tensor) -> B::Tensor {
    let choice = moe.gate.choose(backend, logits);
    let held = moe.experts.now();
    let dispatch = Dispatch::new(&choice, held.len());
    let all: Vec<&Expert<B>> = held.iter().flatten().map(|expert| &**expert).collect();
    let answers = compute(backend, &all, &backend.gather(x, &dispatch.tokens), &dispatch.offsets);
    combine(backend, &answers, &dispatch, &choice)
}

#[test]
fn experts_give_the_same_bits_with_and_without_the_host() {
    let backend = emulated::backend()(1);
    let row = |x: &_, row| {
        let mut out = Vec::new();
        backend.copy_row(x, row, &mut out);
        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    for case in golden::cases() {
        let (config, checkpoint) = (Config::read(&case).unwrap(), Checkpoint::open(&case).unwrap());
        for quantization in Quantization::BEST_FIRST {
            let loader = Loader::new(&checkpoint, &backend, quantization, &|_| {});
            let (l, plan) = config.expert_layers().last().unwrap();
            let moe = load_moe(&loader, &config, plan, l, 0).unwrap();
            let mut state = 5;
            let values =
                (0..7 * config.hidden).map(|_| bf16::from_f32(tiny_mixtral::random(&mut state) - 0.5));
            let bytes: Vec<u8> = values.flat_map(bf16::to_le_bytes).collect();
            let x = backend.decode(Activations::Bf16, &bytes, config.hidden);
            let logits = moe.gate.logits(&backend, &x);
            let held = moe.experts.now();
            let all: Vec<&Expert<_>> = held.iter().flatten().map(|expert| &**expert).collect();
            let (correction, rule) = (moe.gate.correction.as_ref(), &moe.gate.rule);
            let without = backend.experts(&x, &logits, correction, rule, &all).expect("all are of one form");
            let with = by_the_host(&backend, &moe, &x, &logits);
            for at in 0..7 {
                assert_eq!(
                    row(&with, at),
                    row(&without, at),
                    "{} {quantization}: row {at}",
                    golden::name(&case)
                );
            }
        }
    }
}
