//! Lightning attention (MiniMax-01, arXiv:2501.08313): the state of a head is one matrix S, `[head_dim, head_dim]`,
//! S_t = e^-s · S_{t-1} + k_tᵀ v_t with a slope s of the head's own, and a row's result is q_t S_t: no scaling, no
//! softmax, nothing that grows with the context.
//!
//! It is computed in blocks of [`BLOCK`] tokens. A sequence keeps S as of the end of a block, and the k and v of the
//! tokens behind it, its *tail*. A row at offset i of its block gives
//!
//! `e^(-s(i + 1)) · q S + Σ_{j ≤ i} (q · k_j) e^(-s(i - j)) v_j`,
//!
//! and a full tail is folded into S when the next block begins. So a row's bits do not depend on how the tokens before
//! it were cut into calls, decoding reads S and writes it only every [`BLOCK`] tokens, and the rows of a block that is
//! not folded yet can be taken back: the next call writes over them.
//!
//! A *snapshot* is S alone, as of the end of some block.

mod fold;
mod head;
mod plan;
mod rows;

pub use plan::{Origin, Plan, Save};

use super::disjoint::Disjoint;
use super::lanes::LANES;
use super::pool::Pool;
use head::Call;

/// Tokens of a block.
pub const BLOCK: usize = LANES;

/// Sizes of a lightning attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Heads; each has its own queries, keys and values.
    pub heads: usize,
    /// Values per head.
    pub head_dim: usize,
}

impl Shape {
    /// Floats of one sequence's S, or of a snapshot.
    pub fn sums_len(&self) -> usize {
        self.heads * self.head_dim * self.head_dim
    }

    /// Floats of one sequence's tail.
    pub fn tail_len(&self) -> usize {
        self.heads * 2 * BLOCK * self.head_dim
    }
}

/// e^(-s·i) for i in `0..=BLOCK`, per head.
#[derive(Clone, Debug)]
pub struct Decays(Vec<[f32; BLOCK + 1]>);

impl Decays {
    /// One slope s per head.
    pub fn new(slopes: &[f64]) -> Decays {
        let decay = |slope: &f64| std::array::from_fn(|i| (-slope * i as f64).exp() as f32);
        Decays(slopes.iter().map(decay).collect())
    }

    /// Those of one head.
    pub fn of(&self, head: usize) -> &[f32; BLOCK + 1] {
        &self.0[head]
    }
}

/// The memory of one layer.
pub struct States<'a> {
    /// S of every slot, `[slots, heads, head_dim, head_dim]`.
    pub sums: &'a mut [f32],
    /// Tails of every slot, `[slots, heads]` of keys `[head_dim, BLOCK]` and values `[BLOCK, head_dim]`.
    pub tails: &'a mut [f32],
    /// `[snapshots, heads, head_dim, head_dim]`
    pub snapshots: &'a mut [f32],
}

/// The specification, for one head and all tokens of a sequence: `out`, `q`, `k` and `v` are `[tokens, head_dim]`. Sums
/// over dimensions and over tokens are taken in order.
pub fn reference(
    out: &mut [f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    decay: &[f32; BLOCK + 1],
    head_dim: usize,
) {
    let d = head_dim;
    let mut sums = vec![0.0f32; d * d];
    for start in (0..out.len() / d).step_by(BLOCK) {
        let end = (out.len() / d).min(start + BLOCK);
        for i in start..end {
            let q = &q[i * d..][..d];
            let score = |j: usize| {
                let product = (0..d).fold(0.0f32, |sum, r| q[r].mul_add(k[j * d + r], sum));
                product * decay[i - j]
            };
            let scores: Vec<f32> = (start..=i).map(score).collect();
            for c in 0..d {
                let before = (0..d).fold(0.0f32, |sum, r| q[r].mul_add(sums[r * d + c], sum));
                let before = before * decay[i - start + 1];
                let within = (start..=i).zip(&scores);
                out[i * d + c] = within.fold(before, |sum, (j, score)| score.mul_add(v[j * d + c], sum));
            }
        }
        if end == start + BLOCK {
            for (r, sums) in sums.chunks_exact_mut(d).enumerate() {
                for (c, sum) in sums.iter_mut().enumerate() {
                    let key = |j: usize| k[j * d + r] * decay[end - 1 - j];
                    let kept = *sum * decay[BLOCK];
                    *sum = (start..end).fold(kept, |sum, j| key(j).mul_add(v[j * d + c], sum));
                }
            }
        }
    }
}

/// Lightning attention of the rows that `plan` describes. `qkv` is `[rows, heads, 3, head_dim]`, `out` is
/// `[rows, heads, head_dim]`; rows of `out` that belong to no sequence are left as they are.
///
/// # Panics
/// If a length does not fit, or the plan names a slot, snapshot or row that is not there.
pub fn attend(
    pool: &Pool,
    out: &mut [f32],
    qkv: &[f32],
    states: States<'_>,
    plan: &Plan,
    shape: &Shape,
    decays: &Decays,
) {
    let Shape { heads, head_dim } = *shape;
    let States { sums, tails, snapshots } = states;
    assert_eq!(decays.0.len(), heads, "every head has its decay");
    assert_eq!(qkv.len(), 3 * out.len(), "qkv is [rows, heads, 3, head_dim]");
    assert!(plan.rows() * heads * head_dim <= out.len(), "a sequence's rows are within out");
    assert!(plan.slots() * shape.sums_len() <= sums.len(), "slots are within the sums");
    assert!(plan.slots() * shape.tail_len() <= tails.len(), "slots are within the tails");
    assert!(plan.snapshots() * shape.sums_len() <= snapshots.len(), "snapshots are there");
    let matrix = head_dim * head_dim;
    let call = Call {
        qkv,
        out: &Disjoint::new(out, head_dim),
        sums: &Disjoint::new(sums, matrix),
        tails: &Disjoint::new(tails, 2 * BLOCK * head_dim),
        snapshots: &Disjoint::new(snapshots, matrix),
        saves: plan.saves(),
        shape: *shape,
        decays,
        isa: pool.isa(),
    };
    for wave in plan.waves() {
        // SAFETY: a plan's sequences have rows and slots of their own, and in one wave none touches a snapshot that
        // another writes; every task has its own head.
        pool.tasks(wave.len() * heads, |task| unsafe { call.head(&wave[task / heads], task % heads) });
    }
}
