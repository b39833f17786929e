//! Makes a table: each product in all tiles on the device itself, from one row a matrix to many.

use std::sync::Arc;

use super::{Choice, Kind, Table, built_in};
use crate::cuda::device::{DeviceError, Memory};
use crate::cuda::launch::Address;
use crate::cuda::matmul::{Format, Product, Tiles};
use crate::cuda::timed::{Effort, Stopwatch, Timed};

/// Rows a matrix that are tried.
const ROWS: [usize; 9] = [1, 4, 16, 32, 64, 96, 128, 256, 512];

/// Matrices of a launch at most: with more of them, nothing changes but how much memory they take.
const MATRICES: usize = 8;

/// Bytes of weights that are walked through before the first are used again: more than a second cache holds.
const WALKED: usize = 256 << 20;

/// Other tiles than the built-in ones are taken if they save this share, beside what is noise.
const SAVED: f64 = 0.02;

/// Measures these products, each of so many matrices, on a device with some gigabyte of free memory. `tell` hears each line of the
/// table when it is known.
pub fn measure<D: Timed>(
    device: &Arc<D>,
    effort: Effort,
    products: &[(Kind, usize)],
    tell: &mut dyn FnMut(&Choice),
) -> Result<Table, DeviceError> {
    let watch = Stopwatch::new(device, effort)?;
    let mut choices = Vec::new();
    for (kind, matrices) in products {
        let bench = Bench::new(device, *kind, (*matrices).clamp(1, MATRICES))?;
        let mut last = None;
        for rows in ROWS {
            let tiles = bench.fastest(&watch, rows)?;
            if last != Some(tiles) {
                let choice = Choice { kind: *kind, rows, tiles };
                tell(&choice);
                choices.push(choice);
                last = Some(tiles);
            }
        }
    }
    Ok(Table::new(choices))
}

/// One kind of product with all that it needs.
struct Bench<D: Timed> {
    device: Arc<D>,
    kind: Kind,
    matrices: usize,
    /// The most rows, of numbers that are not all the same.
    x: Memory<D>,
    offsets: Vec<Memory<D>>,
    weights: Memory<D>,
    scales: Memory<D>,
    /// Of each set of matrices the addresses, then of all the one of their scales.
    lists: Memory<D>,
    sets: usize,
    out: Memory<D>,
    /// Values along k, and rows, that share a scale.
    group: usize,
    scale_rows: usize,
}

impl<D: Timed> Bench<D> {
    fn new(device: &Arc<D>, kind: Kind, matrices: usize) -> Result<Bench<D>, DeviceError> {
        let Kind { format, pair, n, k } = kind;
        let (bits, scale_rows, group) = match format {
            Format::Bf16 => (16, 1, k),
            Format::Int8 => (8, 1, 64),
            Format::Fp8 => (8, 128, 128),
            Format::Int4 | Format::Mxfp4 => (4, 1, 32),
        };
        let (listed, bytes) = (matrices * (1 + usize::from(pair)), (n * k * bits / 8).next_multiple_of(16));
        let sets = WALKED.div_ceil(listed * bytes).clamp(1, 64);
        let weights = Memory::new(device, sets * listed * bytes)?;
        // bf16 of ±1 to ±2, which are codes of every other format, too.
        let some: Vec<u8> = (0..1u32 << 19)
            .flat_map(|i| {
                let bits = i.wrapping_mul(0x9e37_79b9) >> 16;
                ((bits as u16 & 0x807f) | 0x3f80).to_le_bytes()
            })
            .collect();
        fill(device, &weights, &some)?;
        let most = matrices * ROWS[ROWS.len() - 1];
        let x = Memory::new(device, most * k * 2)?;
        fill(device, &x, &some)?;
        // One after the other, f32 of 1 or exponents of 127.
        let scales = Memory::new(device, n.div_ceil(scale_rows) * k.div_ceil(group) * 4)?;
        let one = if format == Format::Mxfp4 { [127; 4] } else { 1f32.to_le_bytes() };
        fill(device, &scales, &one.repeat(64))?;
        let of_values = (0..sets * listed).map(|i| weights.address() + (i * bytes) as Address);
        let lists: Vec<Address> = of_values.chain((0..listed).map(|_| scales.address())).collect();
        let offsets = ROWS.map(|rows| {
            let ends: Vec<u32> = (0..=matrices).map(|i| (i * rows) as u32).collect();
            copied(device, &ends.iter().flat_map(|end| end.to_le_bytes()).collect::<Vec<u8>>())
        });
        Ok(Bench {
            device: device.clone(),
            kind,
            matrices,
            x,
            offsets: offsets.into_iter().collect::<Result<_, _>>()?,
            weights,
            scales,
            lists: copied(device, &lists.iter().flat_map(|at| at.to_le_bytes()).collect::<Vec<u8>>())?,
            sets,
            out: Memory::new(device, most * n * 4)?,
            group: group.min(k),
            scale_rows,
        })
    }

    /// The tiles in which so many rows a matrix are done first.
    fn fastest(&self, watch: &Stopwatch<D>, rows: usize) -> Result<Tiles, DeviceError> {
        let usual = built_in(rows * self.matrices, self.matrices);
        let time = |tiles| watch.time(1, |run| self.run(rows, tiles, run));
        let mut best = (usual, time(usual)?);
        for tiles in Tiles::ALL.into_iter().filter(|tiles| *tiles != usual) {
            let other = time(tiles)?;
            let noise = SAVED + best.1.noise.max(other.noise);
            if other.seconds < best.1.seconds * (1.0 - noise) {
                best = (tiles, other);
            }
        }
        Ok(best.0)
    }

    fn run(&self, rows: usize, tiles: Tiles, run: usize) -> Result<(), DeviceError> {
        let Kind { format, pair, n, k } = self.kind;
        let listed = self.matrices * (1 + usize::from(pair));
        let list = |at: usize| self.lists.address() + (8 * at) as Address;
        let which = ROWS.iter().position(|tried| *tried == rows).unwrap_or(0);
        debug_assert!(self.weights.bytes() > 0 && self.scales.bytes() > 0, "lists name them");
        let product = Product {
            x: self.x.address(),
            order: 0,
            offsets: self.offsets[which].address(),
            weights: list(run % self.sets * listed),
            scales: if format == Format::Bf16 { 0 } else { list(self.sets * listed) },
            biases: 0,
            out: self.out.address(),
            rows: (rows * self.matrices) as u32,
            experts: self.matrices as u32,
            n: n as u32,
            k: k as u32,
            out_width: n as u32,
            row_step: 1,
            group: self.group as u32,
            scale_rows: self.scale_rows as u32,
            clamped: 0,
            alpha: 0.0,
            limit: 0.0,
        };
        // SAFETY: everything it names is kept here, and large enough for the most rows.
        unsafe { self.device.launch(&product.launch_on(&*self.device, format, pair, tiles)) }
    }
}

fn copied<D: Timed>(device: &Arc<D>, bytes: &[u8]) -> Result<Memory<D>, DeviceError> {
    let memory = Memory::new(device, bytes.len())?;
    memory.write(0, bytes)?;
    Ok(memory)
}

/// `some` again and again.
fn fill<D: Timed>(device: &Arc<D>, memory: &Memory<D>, some: &[u8]) -> Result<(), DeviceError> {
    let (bytes, base) = (memory.bytes(), memory.address());
    let mut done = some.len().min(bytes);
    memory.write(0, &some[..done])?;
    while done < bytes {
        let length = done.min(bytes - done);
        // SAFETY: both are parts of the memory, and apart.
        unsafe { device.copy(base, base + done as Address, length)? };
        done += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::timed::clock::Clock;

    const KIND: Kind = Kind { format: Format::Int8, pair: false, n: 256, k: 512 };
    const EFFORT: Effort = Effort { samples: 2, runs: 1, copied: 64 };

    fn measured(takes: fn(&str, u32) -> f64) -> Table {
        let device = Arc::new(Clock::new(takes));
        measure(&device, EFFORT, &[(KIND, 128)], &mut |_| {}).expect("no failure")
    }

    #[test]
    fn the_fastest_tiles_are_taken_from_where_they_are_fastest() {
        // Narrow tiles take as long as there are blocks of them, large ones always as long as 200.
        let table =
            measured(|kernel, blocks| 1e-6 * if kernel.contains("narrow") { blocks.into() } else { 200.0 });
        let tiles: Vec<Tiles> = table.choices().iter().map(|choice| choice.tiles).collect();
        assert_eq!(tiles, [Tiles::Narrow, Tiles::Large], "{table:?}");
        assert_eq!(table.choose(KIND, 128, 128), Tiles::Narrow);
        assert_eq!(table.choose(KIND, 128 * 512, 128), Tiles::Large);
    }

    #[test]
    fn what_saves_less_than_can_be_measured_changes_nothing() {
        let table = measured(|kernel, _| if kernel.contains("narrow") { 1.01e-3 } else { 1e-3 });
        for rows in ROWS {
            assert_eq!(table.choose(KIND, 8 * rows, 8), built_in(8 * rows, 8), "{rows} rows");
        }
        let table = measured(|kernel, _| if kernel.contains("narrow") { 1.1e-3 } else { 1e-3 });
        assert_eq!(table.choices().len(), 1, "large from the first row on: {table:?}");
    }
}
