//! Experts spread over ranks give the tokens that one process gives, wherever they are and whoever is lost. The ranks
//! are engines in one thread; what would be a network is a script of losses.

#![allow(clippy::unwrap_used, clippy::panic)]

mod tiny_families;
mod tiny_mixtral;

use coterie_api::expert_map::ExpertMap;
use coterie_api::launch::{Activations, Quantization};
use coterie_engine::moe::activations::row_bytes;
use coterie_engine::moe::exchange::{
    Exchange, ExpertHost, ExpertShape, ExpertWorker, Parcel, Route, Unanswered, check,
};
use coterie_engine::moe::share::Share;
use coterie_engine::{Engine, EngineOptions, Event, LoadError, Request};
use proptest::prelude::*;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

const EXPERTS: usize = 4;
const LAYERS: usize = 2;

/// What all ranks of a replica can reach.
#[derive(Default)]
struct Net {
    hosts: Vec<Arc<dyn ExpertHost>>,
    dead: Vec<bool>,
    /// Every so many parcels, one is lost; 0: never.
    lose_every: usize,
    parcels: usize,
    lost: usize,
    adopted: usize,
}

/// One rank's way out.
struct Wire {
    rank: usize,
    map: ExpertMap,
    activations: Activations,
    net: Rc<RefCell<Net>>,
    worker: Vec<Box<dyn ExpertWorker>>,
    answers: Vec<(u16, Option<Vec<u8>>)>,
}

impl Exchange for Wire {
    fn route(&mut self, layer: usize, expert: usize) -> Route {
        let mut net = self.net.borrow_mut();
        let net = &mut *net;
        let alive = |rank: &usize| *rank != self.rank && !net.dead[*rank];
        if let Some(rank) = self.map.holders(layer, expert).find(alive) {
            return Route::To(rank as u16);
        }
        let survivors: Vec<usize> = (0..net.hosts.len()).filter(|rank| !net.dead[*rank]).collect();
        net.adopted += 1;
        match survivors[expert % survivors.len()] {
            rank if rank == self.rank => {
                net.hosts[rank].load(layer, expert).unwrap();
                Route::Here
            }
            rank => Route::Adopt(rank as u16),
        }
    }

    fn send(&mut self, rank: u16, parcel: &Parcel) {
        assert!(self.answers.iter().all(|(to, _)| *to != rank), "one parcel a rank at a time");
        let host = {
            let mut net = self.net.borrow_mut();
            net.parcels += 1;
            if net.dead[usize::from(rank)]
                || (net.lose_every > 0 && net.parcels.is_multiple_of(net.lose_every))
            {
                net.lost += 1;
                self.answers.push((rank, None));
                return;
            }
            net.hosts[usize::from(rank)].clone()
        };
        check(parcel, &host.shape(), row_bytes(self.activations, host.shape().hidden)).unwrap();
        if parcel.adopt {
            for &(expert, _) in &parcel.experts {
                host.load(parcel.layer.into(), expert.into()).unwrap();
            }
        }
        while self.worker.len() <= usize::from(rank) {
            let host = self.net.borrow().hosts[self.worker.len()].clone();
            self.worker.push(host.worker(1));
        }
        let mut answers = [Vec::new()];
        let done = self.worker[usize::from(rank)].compute(&[parcel], &mut answers);
        let [answer] = answers;
        self.answers.push((rank, done[0].then_some(answer)));
    }

    fn receive(&mut self, rank: u16, answer: &mut Vec<u8>) -> Result<(), Unanswered> {
        let at = self.answers.iter().position(|(from, _)| *from == rank).expect("something was sent");
        *answer = self.answers.remove(at).1.ok_or(Unanswered)?;
        Ok(())
    }
}

fn options(quantization: Quantization) -> EngineOptions {
    EngineOptions { quantization, context_length: Some(96), threads: 1, max_running: 4, ..Default::default() }
}

/// The engines of all ranks.
fn replica(
    dir: &Path,
    map: &ExpertMap,
    quantization: Quantization,
    activations: Activations,
) -> (Vec<Engine>, Rc<RefCell<Net>>) {
    let net = Rc::new(RefCell::new(Net::default()));
    let engine = |rank: usize| {
        let (net, of_net) = (net.clone(), net.clone());
        let connect = move |host: Arc<dyn ExpertHost>| {
            let held: Vec<Vec<u16>> = (0..LAYERS).map(|layer| map.held(layer, rank).to_vec()).collect();
            assert_eq!(host.held(), held, "a rank loads its own experts only");
            of_net.borrow_mut().hosts.push(host);
            of_net.borrow_mut().dead.push(false);
            let (worker, answers) = (Vec::new(), Vec::new());
            let wire = Wire { rank, map: map.clone(), activations, net, worker, answers };
            Ok(Box::new(wire) as Box<dyn Exchange>)
        };
        let share = Share { rank, map, activations, connect: Box::new(connect) };
        Engine::load_with(dir, &options(quantization), Some(share), |_| {}, &|_| {}).unwrap()
    };
    ((0..map.ranks()).map(engine).collect(), net)
}

fn requests() -> Vec<Request> {
    let prompt = |length: u32, seed: u32| (0..length).map(|at| (at * at * 7 + seed) % 61).collect::<Vec<_>>();
    (0..4).map(|n| Request { top_logprobs: Some(3), ..Request::new(prompt(3 + n * 17, n), 9) }).collect()
}

/// Everything that is told of tokens, as text: equal only if every bit of every log probability is.
fn tokens(engine: &mut Engine, between: &mut dyn FnMut(usize)) -> Vec<String> {
    for request in requests() {
        engine.submit(request).unwrap();
    }
    let mut events = Vec::new();
    let mut step = 0;
    while !engine.is_idle() {
        between(step);
        engine.step(&mut events);
        step += 1;
    }
    let told = |event: &Event| match event {
        Event::Token { id, token, finish, logprobs, .. } => {
            Some(format!("{id:?} {token} {finish:?} {logprobs:?}"))
        }
        Event::Failed { why, .. } => panic!("{why}"),
        _ => None,
    };
    events.iter().filter_map(told).collect()
}

fn model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny_mixtral::config();
    tiny_mixtral::write(dir.path(), &config, &tiny_mixtral::tensors(&config, 5));
    dir
}

/// With a dense layer, which no map speaks of, shared experts, which every rank has, and a gate in groups.
fn model_with_more() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let families = tiny_families::configs().into_iter();
    let (_, mut config) = families.rev().find(|(name, _)| *name == "GLM-4-MoE").unwrap();
    for (key, value) in [("n_routed_experts", EXPERTS), ("n_group", 2), ("topk_group", 1)] {
        config[key] = value.into();
    }
    assert_eq!((&config["num_hidden_layers"], &config["first_k_dense_replace"]), (&3.into(), &1.into()));
    tiny_families::write_random(dir.path(), &config, 6);
    dir
}

/// With lightning attention, whose states are every rank's own.
fn hybrid_model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut families = tiny_families::configs().into_iter();
    let (_, mut config) = families.find(|(name, _)| *name == "MiniMax-Text-01").unwrap();
    (config["num_hidden_layers"], config["attn_type_list"]) = (LAYERS.into(), serde_json::json!([0, 1]));
    config["num_local_experts"] = EXPERTS.into();
    tiny_families::write_random(dir.path(), &config, 7);
    dir
}

fn alone(dir: &Path, quantization: Quantization, activations: Activations) -> Vec<String> {
    let map = ExpertMap::even(1, LAYERS, EXPERTS, 1).unwrap();
    let (mut engines, net) = replica(dir, &map, quantization, activations);
    let told = tokens(&mut engines[0], &mut |_| {});
    assert_eq!(net.borrow().parcels, 0);
    assert_eq!(told.len(), 36);
    told
}

#[test]
fn where_an_expert_is_never_shows() {
    for dir in [model(), model_with_more(), hybrid_model()] {
        anywhere_is_as_alone(dir.path());
    }
}

fn anywhere_is_as_alone(dir: &Path) {
    for quantization in [Quantization::None, Quantization::Int8] {
        for activations in [Activations::Bf16, Activations::Int8] {
            let expected = alone(dir, quantization, activations);
            for ranks in [2, 3, 5] {
                let map = ExpertMap::even(1, LAYERS, EXPERTS, ranks).unwrap();
                let (mut engines, net) = replica(dir, &map, quantization, activations);
                for engine in &mut engines {
                    assert_eq!(tokens(engine, &mut |_| {}), expected);
                }
                let net = net.borrow();
                assert!(net.parcels > 0 && net.lost == 0 && net.adopted == 0);
                let counted = net.hosts[0].tokens();
                // 4 prompts of 114 tokens in all, and 8 more that each generated one led to: two experts each.
                let expected = 2 * (114 + 4 * 8);
                assert!(counted.iter().all(|layer| layer.iter().sum::<u64>() == expected), "{counted:?}");
            }
        }
    }
}

#[test]
fn rounding_what_travels_changes_little_but_something() {
    let dir = model();
    let plain = {
        let mut engine = Engine::load(dir.path(), &options(Quantization::None), &|_| {}).unwrap();
        tokens(&mut engine, &mut |_| {})
    };
    let bf16 = alone(dir.path(), Quantization::None, Activations::Bf16);
    let int8 = alone(dir.path(), Quantization::None, Activations::Int8);
    assert!(plain != bf16 && bf16 != int8, "the oracle must see what is rounded");
}

#[test]
fn lost_ranks_and_lost_answers_never_show() {
    let dir = model();
    let expected = alone(dir.path(), Quantization::None, Activations::Bf16);
    let both = vec![vec![0, 1, 3], vec![1, 2], vec![0, 2]];
    let map = ExpertMap::new(1, EXPERTS, vec![both.clone(), both]).unwrap();
    for lose_every in [1, 2, 3, 7] {
        let (mut engines, net) = replica(dir.path(), &map, Quantization::None, Activations::Bf16);
        // With every parcel lost, nobody would ever answer.
        net.borrow_mut().lose_every = if lose_every == 1 { 0 } else { lose_every };
        let kill = net.clone();
        let told = tokens(&mut engines[1], &mut |step| {
            let mut net = kill.borrow_mut();
            match step {
                3 => net.dead[0] = true,
                7 => net.dead[2] = true,
                _ => {}
            }
        });
        assert_eq!(told, expected);
        let net = net.borrow();
        assert!(net.adopted > 0, "expert 3 was on rank 0 alone");
        assert!(lose_every == 1 || net.lost > 0);
        assert_eq!(net.hosts[1].held(), [[0, 1, 2, 3], [0, 1, 2, 3]], "the last rank holds everything");
        assert!(net.hosts[1].bytes() > 0);
    }
}

#[test]
fn experts_come_and_go_while_they_are_used() {
    let dir = model();
    let expected = alone(dir.path(), Quantization::Int8, Activations::Bf16);
    let map = ExpertMap::even(1, LAYERS, EXPERTS, 2).unwrap();
    let (mut engines, net) = replica(dir.path(), &map, Quantization::Int8, Activations::Bf16);
    let (host, other) = (net.borrow().hosts[0].clone(), net.borrow().hosts[1].clone());
    let before = host.bytes();
    let told = tokens(&mut engines[0], &mut |step| {
        let expert = step % EXPERTS;
        host.load(step % LAYERS, expert).unwrap();
        // Only what the other rank holds too may go.
        other.load((step + 1) % LAYERS, expert).unwrap();
        if map.holds(0, 1, expert) {
            host.release((step + 1) % LAYERS, expert);
        }
    });
    assert_eq!(told, expected);
    for layer in 0..LAYERS {
        for expert in 2..EXPERTS {
            host.release(layer, expert);
            host.release(layer, expert);
        }
    }
    assert_eq!(host.bytes(), before);
}

#[test]
fn parcels_of_several_ranks_are_computed_together_as_alone() {
    let dir = model();
    let map = ExpertMap::even(1, LAYERS, EXPERTS, 2).unwrap();
    let (_engines, net) = replica(dir.path(), &map, Quantization::None, Activations::Bf16);
    let host = net.borrow().hosts[1].clone();
    let ExpertShape { hidden, .. } = host.shape();
    let parcel = |experts: &[(u16, u32)], sends: &[u32], seed: u8| {
        let row_count = sends.iter().max().unwrap() + 1;
        // 0x3f80 is 1.0; a small mantissa makes the rows differ.
        let rows =
            (0..row_count as usize * hidden).flat_map(|at| [(at as u8).wrapping_mul(seed) | 0x80, 0x3f]);
        Parcel {
            layer: 1,
            adopt: false,
            experts: experts.to_vec(),
            sends: sends.to_vec(),
            row_count,
            rows: rows.collect(),
        }
    };
    let first = parcel(&[(2, 2), (3, 1)], &[0, 1, 1], 3);
    let second = parcel(&[(3, 2)], &[0, 0], 5);
    let elsewhere = parcel(&[(1, 1), (3, 1)], &[0, 1], 7);
    let mut worker = host.worker(1);
    let mut alone = |parcel| {
        let mut answer = [vec![9]];
        let done = worker.compute(&[parcel], &mut answer);
        (done[0], answer[0].clone())
    };
    let expected = [alone(&first), alone(&elsewhere), alone(&second)];
    assert_eq!(
        expected.each_ref().map(|(done, answer)| (*done, answer.len())),
        [(true, 3 * 2 * hidden), (false, 0), (true, 2 * 2 * hidden)]
    );
    let mut answers = [vec![1], vec![2], vec![3]];
    let done = worker.compute(&[&first, &elsewhere, &second], &mut answers);
    assert_eq!(done, [true, false, true]);
    assert_eq!(answers, expected.map(|(_, answer)| answer));
    assert_eq!(worker.compute(&[], &mut []), [false; 0]);
}

#[test]
fn a_map_or_a_folder_that_does_not_fit_is_refused() {
    let dir = model();
    let load = |dir: &Path, map: &ExpertMap| {
        let connect = |_: Arc<dyn ExpertHost>| panic!("nothing to connect");
        let share = Share { rank: 0, map, activations: Activations::Bf16, connect: Box::new(connect) };
        let result = Engine::load_with(dir, &options(Quantization::None), Some(share), |_| {}, &|_| {});
        result.err().unwrap()
    };
    for (layers, experts) in [(LAYERS + 1, EXPERTS), (LAYERS, EXPERTS - 1)] {
        let map = ExpertMap::even(1, layers, experts, 2).unwrap();
        assert!(matches!(load(dir.path(), &map), LoadError::ExpertMap { .. }));
    }
    // An expert of another rank is missing: it could never be taken over.
    let config = tiny_mixtral::config();
    let mut tensors = tiny_mixtral::tensors(&config, 5);
    tensors.retain(|tensor| tensor.name != "model.layers.1.block_sparse_moe.experts.3.w2.weight");
    tiny_mixtral::write(dir.path(), &config, &tensors);
    let map = ExpertMap::even(1, LAYERS, EXPERTS, 2).unwrap();
    let told = load(dir.path(), &map).to_string();
    assert!(told.contains("experts.3.w2"), "{told}");
}

fn maps() -> impl Strategy<Value = ExpertMap> {
    let held = prop::collection::vec(prop::collection::vec(any::<bool>(), EXPERTS), 2..5);
    let owner = prop::collection::vec(0usize..100, EXPERTS);
    prop::collection::vec((held, owner), LAYERS).prop_filter_map("as many ranks in each layer", |layers| {
        let layers = layers.iter().map(|(held, owners)| {
            let ranks = held.len();
            let of_rank = |rank: usize| {
                let holds = |expert: &usize| held[rank][*expert] || owners[*expert] % ranks == rank;
                (0..EXPERTS).filter(holds).map(|expert| expert as u16).collect()
            };
            (0..ranks).map(of_rank).collect()
        });
        ExpertMap::new(1, EXPERTS, layers.collect()).ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_map_and_any_losses_give_the_same_tokens(
        map in maps(),
        more: bool,
        lose_every in prop_oneof![Just(0usize), 2usize..9],
        deaths in prop::collection::vec((0usize..12, 1usize..4), 0..3),
    ) {
        let dir = if more { model_with_more() } else { model() };
        let expected = alone(dir.path(), Quantization::None, Activations::Bf16);
        let (mut engines, net) = replica(dir.path(), &map, Quantization::None, Activations::Bf16);
        net.borrow_mut().lose_every = lose_every;
        let of_net = net.clone();
        let told = tokens(&mut engines[0], &mut |step| {
            let mut net = of_net.borrow_mut();
            for (at, rank) in &deaths {
                if *at == step && *rank < net.dead.len() {
                    net.dead[*rank] = true;
                }
            }
        });
        prop_assert_eq!(told, expected);
    }
}
