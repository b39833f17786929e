//! Products by the kernels: in tiles of every size, which must give the same bits.

use coterie_kernels::cpu::matmul::Matrix;
use coterie_kernels::cpu::mxfp4::GROUP as MXFP4_GROUP;
use coterie_kernels::cpu::quant::GROUP as INT8_GROUP;
use coterie_kernels::cuda::hopper::{self, Tile};
use coterie_kernels::cuda::launch::Address;
use coterie_kernels::cuda::matmul::{Format, Product, Tiles};
use half::bf16;

use super::device::unwritten;
use super::machine::Machine;
use super::memory::Memory;

/// A matrix `[n, k]` in the device's memory.
pub struct Weights {
    pub format: Format,
    pub n: usize,
    pub k: usize,
    /// Of one row here to the next there.
    pub row_step: usize,
    /// Values along k, and rows, that share a scale.
    pub group: usize,
    pub scale_rows: usize,
    values: Memory<u8>,
    scales: Memory<u8>,
    /// Where row 0 and its scales begin.
    first: [usize; 2],
}

fn bytes<T: Copy>(values: &[T]) -> &[u8] {
    // SAFETY: numbers without padding.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

impl Weights {
    pub fn new<T: Copy>(
        format: Format,
        [n, k]: [usize; 2],
        values: &[T],
        scales: &[f32],
        blocks: [usize; 2],
    ) -> Weights {
        let [scale_rows, group] = blocks;
        let (values, scales) = (Memory::of(bytes(values)), Memory::of(bytes(scales)));
        Weights { format, n, k, row_step: 1, group, scale_rows, values, scales, first: [0; 2] }
    }

    /// MXFP4 with these exponents.
    pub fn of_exponents(size: [usize; 2], blocks: &[u8], exponents: &[u8]) -> Weights {
        let weights = Weights::new(Format::Mxfp4, size, blocks, &[], [1, MXFP4_GROUP]);
        Weights { scales: Memory::of(exponents), ..weights }
    }

    /// What the CPU computes with, if there is a kernel for it.
    pub fn of(w: Matrix<'_>) -> Option<Weights> {
        let size @ [_, k] = [w.n(), w.k()];
        if !k.is_multiple_of(32) {
            return None;
        }
        match w {
            Matrix::Bf16 { values, .. } => Some(Weights::new(Format::Bf16, size, values, &[], [1, k])),
            Matrix::Int8(w) => Some(Weights::new(Format::Int8, size, w.values, w.scales, [1, INT8_GROUP])),
            Matrix::Mxfp4(w) => {
                let groups = k / MXFP4_GROUP;
                Some(Weights {
                    row_step: w.step,
                    scales: Memory::of(w.scales),
                    first: [w.first * k / 2, w.first * groups],
                    ..Weights::new(Format::Mxfp4, size, w.blocks, &[], [1, MXFP4_GROUP])
                })
            }
            Matrix::F32 { .. } => None,
        }
    }

    fn addresses(&self) -> [Address; 2] {
        let [values, scales] = self.first.map(|first| first as Address);
        [self.values.address() + values, self.scales.address() + scales]
    }
}

/// Rows and the matrices of their experts.
pub struct Experts<'a> {
    /// `[.., k]`
    pub x: &'a [bf16],
    pub rows: usize,
    /// The row of x that a row is of, if it is another.
    pub order: Option<&'a [u32]>,
    /// Where an expert's rows begin, if there are several.
    pub offsets: Option<&'a [u32]>,
    /// A matrix an expert; of pairs all gates, then all ups.
    pub weights: Vec<&'a Weights>,
    /// As many, or none.
    pub biases: &'a [Memory<f32>],
    /// Alpha and limit of a clamped SwiGLU.
    pub clamped: Option<[f32; 2]>,
}

impl<'a> Experts<'a> {
    /// One matrix for all rows.
    pub fn one(weights: &'a Weights, rows: usize) -> Experts<'a> {
        let weights = vec![weights];
        Experts { x: &[], rows, order: None, offsets: None, weights, biases: &[], clamped: None }
    }
}

/// Kernels of one kind, which must give the same bits.
#[derive(Clone, Copy)]
enum Kernels {
    Any(Tiles),
    Hopper(Tile),
}

impl Machine {
    fn kernels(&self) -> Vec<Kernels> {
        match self {
            Machine::Hopper(_) => [Tile::Eight, Tile::Sixteen, Tile::Large].map(Kernels::Hopper).to_vec(),
            _ => [Tiles::Narrow, Tiles::Large].map(Kernels::Any).to_vec(),
        }
    }

    /// The products, `[rows, n]`.
    pub fn experts(&self, experts: &Experts<'_>) -> Memory<f32> {
        let mut all = self.kernels().into_iter().map(|kernels| {
            let (n, width) = (experts.weights[0].n, experts.weights[0].n.next_multiple_of(32));
            let out = unwritten(experts.rows * width);
            self.products(experts, false, kernels, (out.address(), width));
            let mut values = Vec::new();
            for row in out.values().chunks_exact(width) {
                assert!(row[n..].iter().all(|x| x.to_bits() == 0), "zeros are put behind a row");
                values.extend_from_slice(&row[..n]);
            }
            values
        });
        let first = all.next().expect("there are kernels");
        let same = |other: Vec<f32>| other.iter().zip(&first).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(all.all(same), "the height of a tile decides the result");
        Memory::of(&first)
    }

    /// Of pairs of matrices the activation, `[rows, n]`.
    pub fn pairs(&self, experts: &Experts<'_>) -> Vec<bf16> {
        let mut all = self.kernels().into_iter().map(|kernels| {
            let out = Memory::of(&vec![bf16::NAN; experts.rows * experts.weights[0].n]);
            self.products(experts, true, kernels, (out.address(), experts.weights[0].n));
            out.values()
        });
        let first = all.next().expect("there are kernels");
        let same = |other: Vec<bf16>| other.iter().zip(&first).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(all.all(same), "the height of a tile decides");
        first
    }

    fn products(
        &self,
        experts: &Experts<'_>,
        pair: bool,
        kernels: Kernels,
        (out, out_width): (Address, usize),
    ) {
        let Experts { x, rows, order, offsets, weights, biases, clamped } = experts;
        let w = weights[0];
        let (x, order, offsets) = (Memory::of(x), order.map(Memory::of), offsets.map(Memory::of));
        let [values, scales] =
            [0, 1].map(|i| Memory::of(&weights.iter().map(|w| w.addresses()[i]).collect::<Vec<Address>>()));
        let biases = Memory::of(&biases.iter().map(Memory::address).collect::<Vec<Address>>());
        let [alpha, limit] = clamped.unwrap_or_default();
        let product = Product {
            x: x.address(),
            order: order.as_ref().map_or(0, Memory::address),
            offsets: offsets.as_ref().map_or(0, Memory::address),
            weights: values.address(),
            scales: scales.address(),
            biases: if biases.is_empty() { 0 } else { biases.address() },
            out,
            rows: *rows as u32,
            experts: (weights.len() / (1 + usize::from(pair))) as u32,
            n: w.n as u32,
            k: w.k as u32,
            out_width: out_width as u32,
            row_step: w.row_step as u32,
            group: w.group as u32,
            scale_rows: w.scale_rows as u32,
            clamped: clamped.is_some().into(),
            alpha,
            limit,
        };
        self.launch(&match kernels {
            Kernels::Any(tiles) => product.launch(w.format, pair, tiles),
            Kernels::Hopper(tile) => hopper::launch(product, w.format, pair, tile),
        });
    }
}
