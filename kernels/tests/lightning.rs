//! Running states of lightning attention: cut anywhere, saved, restored, beside others and in one call with who saves
//! what they begin from, a row has the bits that it has alone.

mod ops {
    #![allow(dead_code)] // the list of cases is another test's
    pub mod attention;
    pub mod cases;
    pub mod device;
    pub mod gates;
    pub mod latent;
    pub mod lightning;
    pub mod products;
    pub mod random;
}

use coterie_kernels::cpu::isa::Isa;
use coterie_kernels::cpu::lightning::{Origin, Plan, Save, Shape};
use coterie_kernels::cpu::pool::Pool;
use ops::lightning::{Layer, whole};
use ops::random::Random;

const SHAPE: Shape = Shape { heads: 3, head_dim: 21 };
const TOKENS: usize = 90;

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn floats_of_row() -> usize {
    SHAPE.heads * SHAPE.head_dim
}

/// Rows `from..to` of a sequence as a plan of its own.
fn chunk(from: usize, to: usize, origin: Origin, saves: &[Save]) -> Plan {
    let mut plan = Plan::default();
    plan.push(0..to - from, from, 1, origin, saves.iter().copied());
    plan
}

fn sequence() -> Vec<f32> {
    Random::new(4).values(TOKENS * 3 * floats_of_row())
}

fn rows(qkv: &[f32], from: usize, to: usize) -> &[f32] {
    &qkv[from * 3 * floats_of_row()..to * 3 * floats_of_row()]
}

fn alone(pool: &Pool, qkv: &[f32]) -> Vec<u32> {
    bits(&Layer::new(SHAPE, 1, 0).run(pool, qkv, &whole(&[TOKENS])))
}

#[test]
fn a_prompt_may_be_cut_anywhere() {
    let qkv = sequence();
    for &isa in Isa::available() {
        let (one, three) = (Pool::with_isa(1, isa), Pool::with_isa(3, isa));
        let expected = alone(&one, &qkv);
        let by_token: Vec<usize> = (0..=TOKENS).collect();
        let pairs = |cut: usize| vec![0, cut, TOKENS];
        let all = [by_token, vec![0, 7, 16, 17, 32, 48, 50, TOKENS]];
        for cuts in all.into_iter().chain((1..TOKENS).map(pairs)) {
            let mut layer = Layer::new(SHAPE, 2, 0);
            let out = cuts.windows(2).flat_map(|cut| {
                let origin = if cut[0] == 0 { Origin::Zero } else { Origin::Slot };
                layer.run(&three, rows(&qkv, cut[0], cut[1]), &chunk(cut[0], cut[1], origin, &[]))
            });
            assert!(bits(&out.collect::<Vec<_>>()) == expected, "{isa:?}, cut at {cuts:?}");
        }
    }
}

/// Saved in the middle of a chunk, at its end, token by token: what begins there goes on with the same bits, and so
/// does who saved.
#[test]
fn what_begins_from_a_snapshot_goes_on_as_if_it_had_computed_it() {
    let (qkv, pool) = (sequence(), Pool::new(2));
    let expected = alone(&pool, &qkv);
    let save = |block: usize| Save { tokens: block * 16, snapshot: block };
    for step in [1, 5, 16, 23, TOKENS] {
        let mut layer = Layer::new(SHAPE, 2, 6);
        let mut out = Vec::new();
        for from in (0..TOKENS).step_by(step) {
            let to = TOKENS.min(from + step);
            let saves: Vec<Save> = (from / 16 + 1..=to / 16).map(save).collect();
            let origin = if from == 0 { Origin::Zero } else { Origin::Slot };
            out.extend(layer.run(&pool, rows(&qkv, from, to), &chunk(from, to, origin, &saves)));
        }
        assert!(bits(&out) == expected, "steps of {step}");
        for block in 1..=TOKENS / 16 {
            let (from, middle) = (block * 16, TOKENS - 3);
            let begun = chunk(from, middle, Origin::Snapshot(block), &[]);
            let mut out = layer.run(&pool, rows(&qkv, from, middle), &begun);
            let rest = chunk(middle, TOKENS, Origin::Slot, &[]);
            out.extend(layer.run(&pool, rows(&qkv, middle, TOKENS), &rest));
            assert!(bits(&out) == expected[from * floats_of_row()..], "steps of {step}, from block {block}");
        }
    }
}

/// The first saves, the second begins from it and writes over it, the third begins from that, all in one call.
#[test]
fn in_one_call_the_order_of_sequences_is_that_of_their_snapshots() {
    let qkv = sequence();
    for threads in [1, 3] {
        let pool = Pool::new(threads);
        let expected = alone(&pool, &qkv);
        let save = |tokens| [Save { tokens, snapshot: 0 }].into_iter();
        let mut plan = Plan::default();
        plan.push(0..20, 0, 2, Origin::Zero, save(16));
        plan.push(20..60, 16, 0, Origin::Snapshot(0), save(48));
        plan.push(60..82, 48, 1, Origin::Snapshot(0), std::iter::empty());
        let together = [rows(&qkv, 0, 20), rows(&qkv, 16, 56), rows(&qkv, 48, 70)].concat();
        let out = bits(&Layer::new(SHAPE, 3, 1).run(&pool, &together, &plan));
        let row = floats_of_row();
        assert!(out[..20 * row] == expected[..20 * row]);
        assert!(out[20 * row..60 * row] == expected[16 * row..56 * row]);
        assert!(out[60 * row..] == expected[48 * row..70 * row]);
    }
}

/// Drafts that are not taken: the rows of a block that is not folded are written over.
#[test]
fn rows_within_a_block_can_be_taken_back() {
    let (qkv, pool) = (sequence(), Pool::new(2));
    let expected = alone(&pool, &qkv);
    let drafts = Random::new(5).values(qkv.len());
    let mut layer = Layer::new(SHAPE, 2, 0);
    layer.run(&pool, rows(&qkv, 0, 33), &chunk(0, 33, Origin::Zero, &[]));
    layer.run(&pool, rows(&drafts, 33, 48), &chunk(33, 48, Origin::Slot, &[]));
    let out = layer.run(&pool, rows(&qkv, 33, TOKENS), &chunk(33, TOKENS, Origin::Slot, &[]));
    assert!(bits(&out) == expected[33 * floats_of_row()..]);
}
