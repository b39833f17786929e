//! Lightning attention by the kernel: sequences in one call, and the same in parts, through slots and snapshots.

use coterie_kernels::cuda::lightning::{Lightning, MOST, Save, Sequence};

use super::device::unwritten;
use super::machine::Machine;
use super::memory::Memory;
use crate::ops::device::Answer;
use crate::ops::lightning::Layer;

/// The memory of a layer; what was never written is NaN.
struct States<'a> {
    device: &'a Machine,
    qkv: Memory<f32>,
    sums: Memory<f32>,
    tails: Memory<f32>,
    snapshots: Memory<f32>,
    decays: Memory<f32>,
    out: Memory<f32>,
    heads: usize,
    head_dim: usize,
}

impl<'a> States<'a> {
    fn new(device: &'a Machine, layer: &Layer, qkv: &[f32], slots: usize) -> States<'a> {
        let shape = layer.shape;
        let decays: Vec<f32> = (0..shape.heads).flat_map(|head| *layer.decays.of(head)).collect();
        States {
            device,
            qkv: Memory::of(qkv),
            sums: unwritten(slots * shape.sums_len()),
            tails: unwritten(slots * shape.tail_len()),
            snapshots: unwritten(slots * shape.sums_len()),
            decays: Memory::of(&decays),
            out: unwritten(qkv.len() / 3),
            heads: shape.heads,
            head_dim: shape.head_dim,
        }
    }

    fn run(&self, sequences: &[Sequence], saves: &[Save]) {
        let (count, sequences, saves) = (sequences.len(), Memory::of(sequences), Memory::of(saves));
        let lightning = Lightning {
            qkv: self.qkv.address(),
            out: self.out.address(),
            sums: self.sums.address(),
            tails: self.tails.address(),
            snapshots: self.snapshots.address(),
            decays: self.decays.address(),
            sequences: sequences.address(),
            saves: saves.address(),
            heads: self.heads as u32,
            head_dim: self.head_dim as u32,
        };
        self.device.launch(&lightning.launch(count as u32));
    }
}

impl Machine {
    pub fn lightning(&self, layer: &Layer, qkv: &[f32], lengths: &[usize]) -> Answer {
        let head_dim = layer.shape.head_dim;
        if !head_dim.is_multiple_of(4) || head_dim > MOST {
            return None;
        }
        let mut first_row = 0;
        let sequence = |(slot, length): (usize, &usize)| {
            first_row += *length as u32;
            let rows = *length as u32;
            Sequence { first_row: first_row - rows, rows, slot: slot as u32, ..Sequence::default() }
        };
        let whole: Vec<Sequence> = lengths.iter().enumerate().map(sequence).collect();
        let states = States::new(self, layer, qkv, lengths.len());
        states.run(&whole, &[]);
        let out = states.out.values();

        let same = |states: &States<'_>, how: &str| {
            let other = states.out.values();
            assert!(out.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits()), "{how}: other bits");
        };
        let states = States::new(self, layer, qkv, lengths.len());
        for sequence in &whole {
            in_parts(&states, sequence);
        }
        same(&states, "in parts");
        let states = States::new(self, layer, qkv, lengths.len());
        for sequence in &whole {
            from_snapshot(&states, sequence);
        }
        same(&states, "from a snapshot");
        Some((out, 0.0))
    }
}

/// The rows of `sequence` from `from` to `to`.
fn part(sequence: &Sequence, from: u32, to: u32) -> Sequence {
    let origin = u32::from(from > 0);
    Sequence { first_row: sequence.first_row + from, rows: to - from, position: from, origin, ..*sequence }
}

/// Cut within blocks and at their ends, what is behind the first cut token by token for a while.
fn in_parts(states: &States<'_>, sequence: &Sequence) {
    let mut cuts: Vec<u32> =
        [0, 7, 8, 9, 16, 17, 48, 60].into_iter().filter(|cut| *cut < sequence.rows).collect();
    cuts.push(sequence.rows);
    for cut in cuts.windows(2) {
        states.run(&[part(sequence, cut[0], cut[1])], &[]);
    }
}

/// A snapshot is made on the way, and the rest computed again from it in a slot where something else was.
fn from_snapshot(states: &States<'_>, sequence: &Sequence) {
    let tokens = sequence.rows / 32 * 16;
    let snapshot = sequence.slot;
    let saves = [Save { tokens, snapshot }];
    let count = u32::from(tokens > 0);
    states.run(&[Sequence { saves: count, ..*sequence }], &saves);
    if tokens > 0 && tokens < sequence.rows {
        let rest = Sequence { origin: snapshot + 2, ..part(sequence, tokens, sequence.rows) };
        states.run(&[rest], &[]);
    }
}
