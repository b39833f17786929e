//! Steps that only decode are recorded once, and repeated: this process starts one graph instead of every kernel of a step.
//!
//! A graph has its kernels' parameters and grids in it, so all that changes from step to step lies in one buffer of its own, which
//! is written before: token ids, positions, block tables, lengths, how tokens are drawn. Grids are large enough for every
//! batch of a [`Size`]; blocks without rows or keys leave at once. The rows that a batch lacks are copies of its first, each a
//! sequence of its own, so that they ask for experts that are asked for anyway; nothing of them goes to a cache.
//!
//! Before it is recorded, a step is rehearsed: memory that it takes and lists that it sends are there afterwards, so a recording
//! asks for launches and nothing else.

use super::Cuda;
use super::batch::{BLOCKS_OF_CHUNK, CudaBatch, SPREAD, chunks, decodes};
use super::memory::{Buffer, CudaTensor, Mode, Spare};
use crate::backend::Step;
use crate::batch::Batch;
use coterie_kernels::cuda::device::{Device, Graph};
use coterie_kernels::cuda::launch::{Address, Launch};
use coterie_kernels::cuda::sample::Sample;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Rows of a batch that is repeated.
const ROWS: [usize; 10] = [1, 2, 4, 8, 16, 24, 32, 40, 48, 64];

/// Rows of a sequence of it: one, and guesses.
const ROWS_OF_SEQUENCE: [usize; 3] = [1, 4, 16];

/// The most rows that a repeated batch has.
pub(in crate::backend) const MOST_ROWS: usize = ROWS[ROWS.len() - 1];

/// Graphs that are kept; of more, the one that was not used for longest goes.
pub(super) const MOST: usize = 24;

/// What a batch must be at most to be repeated by a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size {
    /// Its rows, and as many sequences, some of which have none.
    pub(super) rows: usize,
    /// Rows of a sequence.
    pub(super) of_sequence: usize,
    /// [Chunks](coterie_kernels::cuda::attention::CHUNK) of the longest context.
    pub(super) chunks: usize,
    /// Do sequences have running states?
    pub(super) states: bool,
}

impl Size {
    /// The next size for a batch; none if there is none, or if not every row's logits are wanted.
    pub(super) fn of(batch: &Batch) -> Option<Size> {
        let sequences = &batch.sequences;
        let next = |sizes: &[usize], least: usize| sizes.iter().copied().find(|size| least <= *size);
        let longest = sequences.iter().map(chunks).max()?;
        let size = Size {
            rows: next(&ROWS, batch.rows())?,
            of_sequence: next(&ROWS_OF_SEQUENCE, sequences.iter().map(|of| of.rows.len()).max()?)?,
            chunks: longest.next_power_of_two(),
            states: sequences.iter().any(|of| of.state.is_some()),
        };
        let all_wanted = batch.logit_rows.len() == batch.rows();
        let spread = size.chunks == 1 || size.rows * size.chunks <= SPREAD;
        let known = sequences.iter().all(|of| decodes(of) && !of.rows.is_empty());
        (all_wanted && spread && known && batch.saves.len() <= size.rows).then_some(size)
    }

    /// Blocks that a sequence's table has room for.
    pub(super) fn table_width(self) -> usize {
        self.chunks * BLOCKS_OF_CHUNK
    }
}

/// The graphs of a backend.
pub(super) struct Graphs<D: Device> {
    kept: BTreeMap<Size, Kept<D>>,
    /// Replays so far.
    now: u64,
}

impl<D: Device> Default for Graphs<D> {
    fn default() -> Self {
        Graphs { kept: BTreeMap::new(), now: 0 }
    }
}

impl<D: Device> Graphs<D> {
    pub(super) fn is_used(&self) -> bool {
        self.now > 0
    }
}

struct Kept<D: Device> {
    // Dropped first: what is behind it is memory that it uses.
    graph: Graph<D>,
    inputs: Buffer<D>,
    /// What it leaves, in memory that the next graph may use.
    step: Step<CudaTensor<D>>,
    /// The last replay of it.
    used: u64,
}

type Compute<'a, D> = &'a mut dyn FnMut(&CudaBatch<D>) -> Step<CudaTensor<D>>;

impl<D: Device + 'static> Cuda<D> {
    pub(super) fn repeated(&self, batch: &Batch, compute: Compute<'_, D>) -> Option<Step<CudaTensor<D>>> {
        let mut graphs = self.graphs.borrow_mut();
        let Graphs { kept, now } = graphs.as_mut()?;
        let size = Size::of(batch)?;
        let (words, places) = CudaBatch::<D>::words(batch, size)?;
        if !kept.contains_key(&size) {
            if kept.len() >= MOST {
                let oldest = kept.iter().min_by_key(|(_, kept)| kept.used).map(|(size, _)| *size);
                oldest.and_then(|size| kept.remove(&size));
            }
            let inputs = self.spare.lasting_buffer(size_of_val(&words[..]));
            let placed = CudaBatch::fixed(size, places, &inputs);
            match self.record(&placed, inputs, compute) {
                Ok(new) => {
                    kept.insert(size, new);
                }
                Err(why) => {
                    eprintln!("coterie: steps are computed without CUDA graphs, which costs time: {why}");
                    *graphs = None;
                    return None;
                }
            }
        }
        *now += 1;
        let kept = kept.get_mut(&size)?;
        kept.used = *now;
        kept.inputs.write(&words);
        // SAFETY: what the graph recorded lies in weights and caches, which outlive it, as the model that asks does; and in
        // lists and memory of graphs, which are kept as long as this backend.
        super::memory::sure(unsafe { kept.graph.replay() });
        Some(Step { all: kept.step.all.lent(), logits: kept.step.logits.lent() })
    }

    /// A graph of what `compute` launches and of a draw from each row, and what it leaves.
    fn record(
        &self,
        placed: &CudaBatch<D>,
        inputs: Buffer<D>,
        compute: Compute<'_, D>,
    ) -> Result<Kept<D>, String> {
        let mut step = || {
            let Step { all, mut logits } = compute(placed);
            self.draw_by(&mut logits, placed.draws);
            Step { all, logits }
        };
        drop(self.spare.in_mode(Mode::Rehearse, &mut step)?);
        let mut left = None;
        let recorded = || Graph::record(&self.device, || left = Some(step()));
        let graph = self.spare.in_mode(Mode::Record, recorded)?.map_err(|why| why.to_string())?;
        let step = left.expect("a step that was recorded has left something");
        // From here on its memory is the next graph's, too.
        let step = Step { all: step.all.lent(), logits: step.logits.lent() };
        Ok(Kept { graph, inputs, step, used: 0 })
    }

    /// Draws a token from each row by the rules at an address.
    pub(super) fn draw_by(&self, logits: &mut CudaTensor<D>, rules: Address) {
        let tokens = self.spare.take(logits.rows * size_of::<u32>());
        let sample = Sample {
            logits: logits.address(),
            rules,
            tokens: tokens.address(),
            vocabulary: logits.width as u32,
        };
        self.launch(&sample.launch(logits.rows as u32));
        logits.drew(tokens);
    }
}

impl<D: Device> Cuda<D> {
    /// Runs a kernel, or records it, or neither in a rehearsal.
    pub(super) fn start<P>(&self, launch: &Launch<P>) {
        let launched = match self.spare.mode() {
            Mode::Rehearse => return,
            // SAFETY: addresses are of tensors, weights and caches that are as large as their fields say. What is dropped
            // while the kernel waits to run goes to `spare`, and there to kernels behind it.
            Mode::Run | Mode::Record => unsafe { self.device.launch(launch) },
        };
        match self.spare.mode() {
            Mode::Record => launched.unwrap_or_else(|why| self.spare.refuse(why)),
            _ => super::memory::sure(launched),
        }
    }
}

impl<D: Device> Spare<D> {
    /// A buffer of so many bytes that nobody else is given.
    fn lasting_buffer(self: &Rc<Self>, bytes: usize) -> Buffer<D> {
        Buffer::alone(self.lasting(&vec![0u8; bytes]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_pool::BLOCK_SIZE;

    fn batch(rows_and_contexts: &[[usize; 2]]) -> Batch {
        let mut batch = Batch::default();
        for &[rows, context] in rows_and_contexts {
            let table = vec![0; context.div_ceil(BLOCK_SIZE)];
            batch.push(&vec![0; rows], context - rows, &table, BLOCK_SIZE);
        }
        batch.logit_rows = (0..batch.rows() as u32).collect();
        batch
    }

    fn size(rows_and_contexts: &[[usize; 2]]) -> Option<[usize; 3]> {
        let size = Size::of(&batch(rows_and_contexts))?;
        Some([size.rows, size.of_sequence, size.chunks])
    }

    #[test]
    fn sizes_are_the_next_of_a_few() {
        assert_eq!(size(&[[1, 1]]), Some([1, 1, 1]));
        assert_eq!(size(&[[1, 257], [1, 5], [1, 900]]), Some([4, 1, 4]));
        assert_eq!(size(&[[3, 256], [1, 5]]), Some([4, 4, 1]));
        assert_eq!(size(&[[5, 256], [15, 50]]), Some([24, 16, 1]));
    }

    #[test]
    fn what_does_not_only_decode_or_is_too_large_has_none() {
        assert_eq!(size(&[]), None);
        assert_eq!(size(&[[17, 17]]), None, "a prompt");
        assert_eq!(size(&[[1, 9]; 65]), None);
        assert_eq!(size(&[[1, 100 * 1024]; 17]), None, "more than can be spread");
        assert!(size(&[[1, 100 * 1024]; 16]).is_some());
        let mut some = batch(&[[4, 8]]);
        some.logit_rows.pop();
        assert_eq!(Size::of(&some), None, "a chunk of a prompt");
    }
}
