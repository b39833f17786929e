//! Lightning attention, kept as on the [CPU](crate::cpu::lightning): sums as of the end of a block of 16 tokens, and a tail.

use super::launch::{Address, Launch};

/// Most values of a head, which are a multiple of 4.
pub const MOST: usize = 128;

const THREADS: u32 = 512;

/// The rows of one sequence in a call.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Sequence {
    /// Its first row.
    pub first_row: u32,
    /// Its rows.
    pub rows: u32,
    /// Position of the first row.
    pub position: u32,
    /// Where its state is, or [`NO_SLOT`](super::launch::NO_SLOT) if it begins from nothing, and nothing is kept.
    pub slot: u32,
    /// 0 if its state is zero, 1 if it is in the slot, s + 2 if it is snapshot s.
    pub origin: u32,
    /// Its first [`Save`].
    pub first_save: u32,
    /// How many it has, in the order of their tokens.
    pub saves: u32,
}

/// A snapshot to make.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Save {
    /// Tokens that it contains, a multiple of 16.
    pub tokens: u32,
    /// Which snapshot it is to be.
    pub snapshot: u32,
}

/// The parameters of `lightning`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Lightning {
    /// `[rows, heads, 3, head_dim]`
    pub qkv: Address,
    /// `[rows, heads, head_dim]`
    pub out: Address,
    /// `[slots, heads, head_dim, head_dim]`
    pub sums: Address,
    /// `[slots, heads]` of keys `[head_dim, 16]` and values `[16, head_dim]`.
    pub tails: Address,
    /// `[snapshots, heads, head_dim, head_dim]`
    pub snapshots: Address,
    /// `[heads, 17]`, of [`Decays`](crate::cpu::lightning::Decays).
    pub decays: Address,
    /// [`Sequence`]s, none of which begins from what another one of the launch saves, or saves what it begins from.
    pub sequences: Address,
    /// [`Save`]s.
    pub saves: Address,
    /// Heads.
    pub heads: u32,
    /// Values of a head.
    pub head_dim: u32,
}

impl Lightning {
    /// The rows of `sequences` sequences.
    pub fn launch(self, sequences: u32) -> Launch<Lightning> {
        let floats = MOST * MOST + 3 * 16 * MOST + 16 * 16;
        let grid = [self.heads, sequences, 1];
        Launch { kernel: "lightning", grid, block: THREADS, shared: 4 * floats, parameters: self }
    }
}
