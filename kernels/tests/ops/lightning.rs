//! Lightning attention: sequences of several lengths in one call.

use coterie_kernels::cpu::lightning::{self, Decays, Origin, Plan, Save, Shape, States};
use coterie_kernels::cpu::pool::Pool;

use super::cases::Case;
use super::random::Random;

/// Slopes from strong decay to hardly any.
pub fn slopes(heads: usize) -> Vec<f64> {
    (0..heads).map(|head| 0.9 * 0.3f64.powi(head as i32)).collect()
}

/// The memory of a layer; what was never written is NaN.
#[derive(Clone)]
pub struct Layer {
    pub shape: Shape,
    pub decays: Decays,
    sums: Vec<f32>,
    tails: Vec<f32>,
    snapshots: Vec<f32>,
}

impl Layer {
    pub fn new(shape: Shape, slots: usize, snapshots: usize) -> Layer {
        Layer {
            shape,
            decays: Decays::new(&slopes(shape.heads)),
            sums: vec![f32::NAN; slots * shape.sums_len()],
            tails: vec![f32::NAN; slots * shape.tail_len()],
            snapshots: vec![f32::NAN; snapshots * shape.sums_len()],
        }
    }

    pub fn run(&mut self, pool: &Pool, qkv: &[f32], plan: &Plan) -> Vec<f32> {
        let mut out = vec![f32::NAN; qkv.len() / 3];
        let Layer { shape, decays, sums, tails, snapshots } = self;
        lightning::attend(pool, &mut out, qkv, States { sums, tails, snapshots }, plan, shape, decays);
        out
    }
}

/// A plan of sequences from their first tokens on, one behind the other.
pub fn whole(lengths: &[usize]) -> Plan {
    let (mut plan, mut row) = (Plan::default(), 0);
    for (slot, length) in lengths.iter().enumerate() {
        plan.push(row..row + length, 0, slot, Origin::Zero, std::iter::empty::<Save>());
        row += length;
    }
    plan
}

/// Prefills of one token to several blocks.
pub fn attend(heads: usize, head_dim: usize) -> Case {
    let (shape, lengths) = (Shape { heads, head_dim }, [1, 15, 16, 17, 83]);
    let rows: usize = lengths.iter().sum();
    let qkv = Random::new(head_dim as u64).values(rows * heads * 3 * head_dim);
    let (mut specified, mut exact) = (vec![f32::NAN; qkv.len() / 3], vec![f64::NAN; qkv.len() / 3]);
    let (decays, mut first) = (Decays::new(&slopes(heads)), 0);
    for tokens in lengths {
        for head in 0..heads {
            let part = |part: usize| -> Vec<f32> {
                let row = |row: usize| ((row * heads + head) * 3 + part) * head_dim;
                (first..first + tokens).flat_map(|r| qkv[row(r)..][..head_dim].to_vec()).collect()
            };
            let (q, k, v) = (part(0), part(1), part(2));
            let mut out = vec![f32::NAN; tokens * head_dim];
            lightning::reference(&mut out, &q, &k, &v, decays.of(head), head_dim);
            let truth = recurrence(&q, &k, &v, slopes(heads)[head], head_dim);
            for (token, (out, truth)) in out.chunks(head_dim).zip(truth.chunks(head_dim)).enumerate() {
                let at = ((first + token) * heads + head) * head_dim;
                specified[at..][..head_dim].copy_from_slice(out);
                exact[at..][..head_dim].copy_from_slice(truth);
            }
        }
        first += tokens;
    }
    Case {
        name: format!("lightning {heads} × {head_dim}"),
        specified,
        exact,
        bound: 1e-6,
        run: Box::new(move |device| device.lightning(&Layer::new(shape, 5, 0), &qkv, &lengths)),
    }
}

/// S = e^-s S + kᵀ v, out = q S, token by token.
fn recurrence(q: &[f32], k: &[f32], v: &[f32], slope: f64, d: usize) -> Vec<f64> {
    let (mut sums, mut out) = (vec![0.0f64; d * d], Vec::new());
    for ((q, k), v) in q.chunks(d).zip(k.chunks(d)).zip(v.chunks(d)) {
        for (at, sum) in sums.iter_mut().enumerate() {
            *sum = (-slope).exp() * *sum + f64::from(k[at / d]) * f64::from(v[at % d]);
        }
        out.extend((0..d).map(|c| (0..d).map(|r| f64::from(q[r]) * sums[r * d + c]).sum::<f64>()));
    }
    out
}
