//! Copies that the list of cases does not have: heads of other widths, biases of rows, filled columns.

use coterie_kernels::cuda::heads::Heads;
use coterie_kernels::cuda::launch::Address;
use coterie_kernels::cuda::rows::{Biases, Fill};

use super::device::unwritten;
use super::machine::Machine;
use super::memory::Memory;
use crate::ops::random::Random;

pub fn are_copied_and_changed_exactly(device: &Machine) {
    for [heads, width, first, count, wider] in [[7, 6, 1, 3, 9], [1, 64, 0, 64, 64], [300, 10, 2, 8, 12]] {
        cut_out_and_made_wider(device, heads, width, [first, count], wider);
    }
    biases_and_fills(device);
}

/// Values `first..first + count` of heads into heads of `wider`, behind one that nobody writes.
fn cut_out_and_made_wider(
    device: &Machine,
    heads: usize,
    width: usize,
    [first, count]: [usize; 2],
    wider: usize,
) {
    let x = Random::new(3).values(heads * width);
    let (x_memory, out) = (Memory::of(&x), unwritten(heads * (1 + wider)));
    let copy = Heads {
        x: x_memory.address(),
        out: out.address(),
        heads: heads as u64,
        x_width: width as u32,
        x_first: first as u32,
        out_width: 1 + wider as u32,
        out_first: 1,
        count: count as u32,
        zeros: (wider - count) as u32,
    };
    device.launch(&copy.launch());
    for (out, x) in out.values().chunks(1 + wider).zip(x.chunks(width)) {
        assert!(out[0].is_nan(), "what is before the values stays");
        assert_eq!(out[1..=count], x[first..first + count]);
        assert!(out[1 + count..].iter().all(|x| *x == 0.0), "zeros are behind them");
    }
}

fn biases_and_fills(device: &Machine) {
    let (rows, width) = (5, 300);
    let mut random = Random::new(4);
    let (x, biases) = (random.values(rows * width), [0; 2].map(|_| random.values(width)));
    let of_rows = [1, 0, 0, 1, 1];
    let memory = biases.each_ref().map(|bias| Memory::of(bias));
    let addresses: Vec<Address> = of_rows.iter().map(|of| memory[*of].address()).collect();
    let (x_memory, addresses) = (Memory::of(&x), Memory::of(&addresses));
    let add = Biases { x: x_memory.address(), biases: addresses.address(), width: width as u32 };
    device.launch(&add.launch(rows as u32));
    let fill = Fill { x: x_memory.address(), width: width as u32, first: 290, value: f32::NEG_INFINITY };
    device.launch(&fill.launch(rows as u32));
    for (row, (got, x)) in x_memory.values().chunks(width).zip(x.chunks(width)).enumerate() {
        let sums = x.iter().zip(&biases[of_rows[row]]).map(|(x, bias)| x + bias);
        assert!(got[..290].iter().copied().eq(sums.take(290)), "row {row}");
        assert!(got[290..].iter().all(|x| *x == f32::NEG_INFINITY), "row {row}");
    }
}
