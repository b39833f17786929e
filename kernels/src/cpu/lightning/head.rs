//! One head of one sequence: block after block, in registers.

use std::ops::Range;

use super::super::disjoint::Disjoint;
use super::super::isa::Isa;
use super::super::lanes::{Kernel, LANES, Lanes, on};
use super::plan::Sequence;
use super::{BLOCK, Decays, Origin, Save, Shape};

/// The arguments of one call, checked.
pub(super) struct Call<'a> {
    /// `[rows, heads, 3, head_dim]`
    pub(super) qkv: &'a [f32],
    /// `[rows, heads]` of `head_dim` values.
    pub(super) out: &'a Disjoint<'a, f32>,
    /// `[slots, heads]` of S.
    pub(super) sums: &'a Disjoint<'a, f32>,
    /// `[slots, heads]` of keys and values.
    pub(super) tails: &'a Disjoint<'a, f32>,
    /// `[snapshots, heads]` of S.
    pub(super) snapshots: &'a Disjoint<'a, f32>,
    pub(super) saves: &'a [Save],
    pub(super) shape: Shape,
    pub(super) decays: &'a Decays,
    pub(super) isa: Isa,
}

impl Call<'_> {
    /// All rows of a sequence for one head.
    ///
    /// # Safety
    /// Meanwhile nobody else works on that head of the sequence's rows and slot, writes the snapshot that it begins
    /// from, or touches those that it saves.
    pub(super) unsafe fn head(&self, sequence: &Sequence, head: usize) {
        let Sequence { rows, position: first, slot, origin, saves } = sequence;
        let heads = self.shape.heads;
        // SAFETY: the caller's.
        let (sums, tail) =
            unsafe { (self.sums.row(slot * heads + head), self.tails.row(slot * heads + head)) };
        match origin {
            Origin::Zero => sums.fill(0.0),
            Origin::Snapshot(from) => {
                // SAFETY: the caller's.
                let snapshot = unsafe { self.snapshots.read(from * heads + head) };
                sums.copy_from_slice(snapshot);
            }
            Origin::Slot => {}
        }
        let mut saves = self.saves[saves.clone()].iter().peekable();
        let (mut row, mut position) = (rows.start, *first);
        while row < rows.end {
            let offset = position % BLOCK;
            // What comes from elsewhere has no tail.
            if offset == 0 && (position > *first || *origin == Origin::Slot) {
                let sums = sums.as_mut_ptr();
                // SAFETY: the slot's S and tail, which is full.
                unsafe { self.fold(sums, sums, tail, head) };
            }
            let count = (BLOCK - offset).min(rows.end - row);
            self.store(tail, row..row + count, offset, head);
            self.rows(sums, tail, row..row + count, offset, head);
            (row, position) = (row + count, position + count);
            if let Some(save) = saves.next_if(|save| save.tokens == position) {
                // SAFETY: the caller's; the tail is full.
                unsafe {
                    let to = self.snapshots.row(save.snapshot * heads + head);
                    self.fold(sums.as_ptr(), to.as_mut_ptr(), tail, head);
                }
            }
        }
    }

    /// Part 0, 1 or 2 of a row: q, k or v.
    fn part(&self, row: usize, head: usize, part: usize) -> &[f32] {
        let Shape { heads, head_dim } = self.shape;
        &self.qkv[((row * heads + head) * 3 + part) * head_dim..][..head_dim]
    }

    /// Puts the rows' k and v into the tail, from `offset` on.
    fn store(&self, tail: &mut [f32], rows: Range<usize>, offset: usize, head: usize) {
        let (keys, values) = tail.split_at_mut(BLOCK * self.shape.head_dim);
        let values = values.chunks_exact_mut(self.shape.head_dim).skip(offset);
        for ((at, row), value) in rows.enumerate().zip(values) {
            let places = keys[offset + at..].iter_mut().step_by(BLOCK);
            places.zip(self.part(row, head, 1)).for_each(|(place, x)| *place = *x);
            value.copy_from_slice(self.part(row, head, 2));
        }
    }

    fn rows(&self, sums: &[f32], tail: &[f32], rows: Range<usize>, offset: usize, head: usize) {
        let Shape { heads, head_dim } = self.shape;
        let mut outs = [std::ptr::null_mut(); BLOCK];
        let mut q = [self.qkv.as_ptr(); BLOCK];
        for (at, row) in rows.clone().enumerate() {
            // SAFETY: the caller's of `head`: this head of these rows is worked on by nobody else.
            outs[at] = unsafe { self.out.row(row * heads + head) }.as_mut_ptr();
            q[at] = self.part(row, head, 0).as_ptr();
        }
        let (keys, values) = tail.split_at(BLOCK * head_dim);
        let block = Block {
            q: &q[..rows.len()],
            outs: &outs[..rows.len()],
            offset,
            sums: sums.as_ptr(),
            keys: keys.as_ptr(),
            values: values.as_ptr(),
            decay: self.decays.of(head),
            head_dim,
        };
        // SAFETY: pools exist only for instruction sets that the CPU has; the pointers are to whole rows, tails and S.
        unsafe { on(self.isa, block) }
    }

    /// Writes `sums` with a full tail folded in to `to`, which may be the same.
    ///
    /// # Safety
    /// Both are valid for one S.
    unsafe fn fold(&self, sums: *const f32, to: *mut f32, tail: &[f32], head: usize) {
        let head_dim = self.shape.head_dim;
        let (keys, values) = tail.split_at(BLOCK * head_dim);
        let decay = self.decays.of(head);
        let fold = Fold { sums, to, keys: keys.as_ptr(), values: values.as_ptr(), decay, head_dim };
        // SAFETY: pools exist only for instruction sets that the CPU has; the rest is the caller's.
        unsafe { on(self.isa, fold) }
    }
}

/// Some rows of one block.
struct Block<'a> {
    q: &'a [*const f32],
    outs: &'a [*mut f32],
    /// Of the first row in the block.
    offset: usize,
    /// `[head_dim, head_dim]`
    sums: *const f32,
    /// `[head_dim, BLOCK]`, written up to the last row.
    keys: *const f32,
    /// `[BLOCK, head_dim]`, written up to the last row.
    values: *const f32,
    decay: &'a [f32; BLOCK + 1],
    head_dim: usize,
}

impl Kernel for Block<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: the caller's.
        unsafe {
            for row in (0..self.q.len()).step_by(4) {
                match self.q.len() - row {
                    1 => self.strip::<L, 1>(row),
                    2 => self.strip::<L, 2>(row),
                    3 => self.strip::<L, 3>(row),
                    _ => self.strip::<L, 4>(row),
                }
            }
        }
    }
}

impl Block<'_> {
    /// `M` rows.
    #[inline(always)]
    unsafe fn strip<L: Lanes, const M: usize>(&self, row: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut q = [self.q[0]; M];
            q.copy_from_slice(&self.q[row..row + M]);
            // Lane j is key j; those behind a row are computed and not used.
            let mut scores = [L::splat(0.0); M];
            for i in 0..self.head_dim {
                let keys = L::load(self.keys.add(i * BLOCK));
                for r in 0..M {
                    scores[r] = L::splat(*q[r].add(i)).mul_add(keys, scores[r]);
                }
            }
            let mut weights = [[0.0; BLOCK]; M];
            for r in 0..M {
                scores[r].store(weights[r].as_mut_ptr());
                let offset = self.offset + row + r;
                for j in 0..=offset {
                    weights[r][j] *= self.decay[offset - j];
                }
            }
            let mut c = 0;
            while L::MANY_REGISTERS && c + 4 * LANES <= self.head_dim {
                self.columns::<L, M, 4>(row, &q, &weights, c, LANES);
                c += 4 * LANES;
            }
            while c < self.head_dim {
                self.columns::<L, M, 1>(row, &q, &weights, c, LANES.min(self.head_dim - c));
                c += LANES;
            }
        }
    }

    /// `N` sixteens of columns of `M` rows, the last sixteen of `last` columns.
    #[inline(always)]
    unsafe fn columns<L: Lanes, const M: usize, const N: usize>(
        &self,
        row: usize,
        q: &[*const f32; M],
        weights: &[[f32; BLOCK]; M],
        c: usize,
        last: usize,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let d = self.head_dim;
            let mut out = [[L::splat(0.0); N]; M];
            for i in 0..d {
                let sums: [L; N] = read(self.sums.add(i * d + c), last);
                for r in 0..M {
                    let q = L::splat(*q[r].add(i));
                    for n in 0..N {
                        out[r][n] = q.mul_add(sums[n], out[r][n]);
                    }
                }
            }
            let offset = self.offset + row;
            for r in 0..M {
                let decay = L::splat(self.decay[offset + r + 1]);
                for n in 0..N {
                    out[r][n] = out[r][n].mul(decay);
                }
            }
            // All rows see their block up to the first of them, then each up to itself.
            for j in 0..=offset {
                let values: [L; N] = read(self.values.add(j * d + c), last);
                for r in 0..M {
                    let weight = L::splat(weights[r][j]);
                    for n in 0..N {
                        out[r][n] = weight.mul_add(values[n], out[r][n]);
                    }
                }
            }
            for r in 1..M {
                for j in offset + 1..=offset + r {
                    let values: [L; N] = read(self.values.add(j * d + c), last);
                    let weight = L::splat(weights[r][j]);
                    for n in 0..N {
                        out[r][n] = weight.mul_add(values[n], out[r][n]);
                    }
                }
            }
            for r in 0..M {
                write(&out[r], self.outs[row + r].add(c), last);
            }
        }
    }
}

/// `to = e^(-s·BLOCK) · S + Σ_j e^(-s(BLOCK - 1 - j)) k_jᵀ v_j`.
struct Fold<'a> {
    sums: *const f32,
    to: *mut f32,
    keys: *const f32,
    values: *const f32,
    decay: &'a [f32; BLOCK + 1],
    head_dim: usize,
}

impl Kernel for Fold<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: the caller's.
        unsafe {
            let mut reversed = [0.0; BLOCK];
            for j in 0..BLOCK {
                reversed[j] = self.decay[BLOCK - 1 - j];
            }
            let decay = L::load(reversed.as_ptr());
            for i in (0..self.head_dim).step_by(4) {
                match self.head_dim - i {
                    1 => self.strip::<L, 1>(i, decay),
                    2 => self.strip::<L, 2>(i, decay),
                    3 => self.strip::<L, 3>(i, decay),
                    _ => self.strip::<L, 4>(i, decay),
                }
            }
        }
    }
}

impl Fold<'_> {
    /// `M` rows of S.
    #[inline(always)]
    unsafe fn strip<L: Lanes, const M: usize>(&self, i: usize, decay: L) {
        // SAFETY: the caller's.
        unsafe {
            let mut keys = [[0.0; BLOCK]; M];
            for r in 0..M {
                L::load(self.keys.add((i + r) * BLOCK)).mul(decay).store(keys[r].as_mut_ptr());
            }
            let mut c = 0;
            while L::MANY_REGISTERS && c + 4 * LANES <= self.head_dim {
                self.columns::<L, M, 4>(i, &keys, c, LANES);
                c += 4 * LANES;
            }
            while c < self.head_dim {
                self.columns::<L, M, 1>(i, &keys, c, LANES.min(self.head_dim - c));
                c += LANES;
            }
        }
    }

    /// `N` sixteens of columns of `M` rows, the last sixteen of `last` columns.
    #[inline(always)]
    unsafe fn columns<L: Lanes, const M: usize, const N: usize>(
        &self,
        i: usize,
        keys: &[[f32; BLOCK]; M],
        c: usize,
        last: usize,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let d = self.head_dim;
            let decay = L::splat(self.decay[BLOCK]);
            let mut sums = [[L::splat(0.0); N]; M];
            for r in 0..M {
                let before: [L; N] = read(self.sums.add((i + r) * d + c), last);
                for n in 0..N {
                    sums[r][n] = before[n].mul(decay);
                }
            }
            for j in 0..BLOCK {
                let values: [L; N] = read(self.values.add(j * d + c), last);
                for r in 0..M {
                    let key = L::splat(keys[r][j]);
                    for n in 0..N {
                        sums[r][n] = key.mul_add(values[n], sums[r][n]);
                    }
                }
            }
            for r in 0..M {
                write(&sums[r], self.to.add((i + r) * d + c), last);
            }
        }
    }
}

/// `N` sixteens, the last of `last` lanes; a part only where there is but one.
#[inline(always)]
unsafe fn read<L: Lanes, const N: usize>(from: *const f32, last: usize) -> [L; N] {
    // SAFETY: the caller's.
    unsafe {
        let mut lanes = [L::splat(0.0); N];
        if last < LANES {
            lanes[N - 1] = L::load_part(from, last);
        } else {
            for n in 0..N {
                lanes[n] = L::load(from.add(n * LANES));
            }
        }
        lanes
    }
}

#[inline(always)]
unsafe fn write<L: Lanes, const N: usize>(lanes: &[L; N], to: *mut f32, last: usize) {
    // SAFETY: the caller's.
    unsafe {
        if last < LANES {
            lanes[N - 1].store_part(to, last);
        } else {
            for n in 0..N {
                lanes[n].store(to.add(n * LANES));
            }
        }
    }
}
