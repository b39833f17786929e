//! Tokens that the device draws, beside those that this process draws from the same logits.

use super::scene;
use crate::tiny_mixtral;
use coterie_api::launch::Quantization;
use coterie_engine::Request;
use coterie_engine::backend::Backend;
use coterie_engine::moe::host::MakeBackend;
use coterie_engine::request::Sampling;

/// Of each kind of draw that a device makes by itself.
pub fn samplings() -> [Sampling; 5] {
    let of = |temperature, top_k, top_p, min_p, seed| Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        seed,
        ..Sampling::greedy()
    };
    [
        Sampling::greedy(),
        of(1.3, 0, 1.0, 0.0, 5),
        of(0.8, 7, 1.0, 0.0, 1 << 40),
        of(2.0, 0, 0.7, 0.0, 7),
        of(1.5, 30, 0.9, 0.05, 8),
    ]
}

/// The very same tokens, one by one.
pub fn as_this_process_draws<B>(backend: &MakeBackend<B>)
where
    B: Backend + 'static,
    B::Rope: Clone,
{
    let (dir, config) = (tempfile::tempdir().unwrap(), tiny_mixtral::config());
    tiny_mixtral::write(dir.path(), &config, &tiny_mixtral::tensors(&config, 7));
    let answers = |by_host: bool| {
        let request = |(number, mut sampling): (u32, Sampling)| {
            // It changes nothing, but a device is not asked where logits are to be changed.
            sampling.logit_bias.extend(by_host.then_some((3, 0.0)));
            let prompt = (0..20 + number).map(|at| (at * 11 + number) % 61).collect();
            (0, Request { sampling, ..Request::new(prompt, 30) })
        };
        let requests: Vec<_> = (0..).zip(samplings()).map(request).collect();
        let mut engine =
            scene::engine(backend, dir.path(), Quantization::None, |limits| limits.drafts = None);
        scene::play(&mut engine, &requests)
    };
    let on_device = answers(false);
    assert_eq!(on_device, answers(true));
    assert!(on_device.iter().all(|answer| answer.len() == 30));
    assert!((1..5).all(|number| on_device[number] != on_device[0]), "seeds make answers");
}
