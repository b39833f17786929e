//! From files to matrices: [`shard`] maps and checks, [`Loader`] walks the tensors that a family names, a
//! [`Storage`] decides how each is held.

mod fp8;
pub(crate) mod json;
pub mod quantize;
pub mod safetensors;
pub mod shard;
pub mod tally;
mod unique;

use crate::load_error::LoadError;
use crate::weights::shard::{Checkpoint, TensorView};
use crate::weights::tally::Tally;
use coterie_api::expert_map::ExpertMap;
use coterie_api::launch::Quantization;
use std::cell::Cell;

/// What a matrix is for; decides whether it is quantized and what one token uses of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Quantized; used by every token.
    Dense,
    /// Quantized; used by the tokens that the gate sends there.
    Expert,
    /// Never quantized: embeddings (read by row) and gates (a small error there picks another expert).
    Kept,
}

/// Who holds loaded weights: a backend, or something that only counts them.
pub trait Storage {
    /// A matrix `[out, in]`.
    type Matrix;
    /// A vector of f32.
    type Vector;

    /// Holds a matrix.
    fn matrix(&self, view: TensorView, role: Role, quantization: Quantization) -> Self::Matrix;

    /// Holds the transpose of a matrix, `[in, out]` of what the view has as `[out, in]`; it is [kept](Role::Kept).
    fn transposed(&self, view: TensorView) -> Self::Matrix;

    /// Holds a vector, widened to f32.
    fn vector(&self, view: TensorView) -> Self::Vector;
}

/// Takes tensors out of a checkpoint into a storage, and reports how far it is.
pub struct Loader<'a, S: Storage> {
    checkpoint: &'a Checkpoint,
    storage: &'a S,
    quantization: Quantization,
    /// The map and the rank whose experts are wanted; all are without one.
    share: Option<(&'a ExpertMap, usize)>,
    progress: &'a dyn Fn(f32),
    /// Bytes of the checkpoint's data, and how many of them are loaded.
    total: usize,
    loaded: Cell<usize>,
}

impl<'a, S: Storage> Loader<'a, S> {
    /// A loader that has loaded nothing yet. `progress` is told the share that is loaded, 0 to 1.
    pub fn new(
        checkpoint: &'a Checkpoint,
        storage: &'a S,
        quantization: Quantization,
        progress: &'a dyn Fn(f32),
    ) -> Self {
        let total = checkpoint.shards().iter().map(|s| s.bytes().len() - s.header_bytes().len()).sum();
        progress(0.0);
        Loader { checkpoint, storage, quantization, share: None, progress, total, loaded: Cell::new(0) }
    }

    /// The same, for the experts only that `map` gives to `rank`.
    pub fn only(self, map: &'a ExpertMap, rank: usize) -> Self {
        Loader { share: Some((map, rank)), ..self }
    }

    /// Whether that expert is to be loaded.
    pub fn wants(&self, layer: usize, expert: usize) -> bool {
        self.share.is_none_or(|(map, rank)| map.holds(layer, rank, expert))
    }

    /// Checks what `load` names, so that it can be loaded later, and holds nothing of it; counts as loaded.
    pub fn skip<T>(
        &self,
        load: impl FnOnce(&Loader<'_, Tally>) -> Result<T, LoadError>,
    ) -> Result<(), LoadError> {
        let tally = Tally::default();
        let Loader { checkpoint, quantization, share, progress, total, .. } = *self;
        let loaded = Cell::new(self.loaded.get());
        let counting = Loader { checkpoint, storage: &tally, quantization, share, progress, total, loaded };
        load(&counting)?;
        self.loaded.set(counting.loaded.get());
        Ok(())
    }

    /// Is there a tensor of this name?
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.has(name)
    }

    /// The matrix `name` of `[outputs, inputs]`.
    pub fn matrix(
        &self,
        name: &str,
        [outputs, inputs]: [usize; 2],
        role: Role,
    ) -> Result<S::Matrix, LoadError> {
        Ok(self.hold(self.checkpoint.tensor(name, &[outputs, inputs])?, role))
    }

    /// The vector `name` of `length` values.
    pub fn vector(&self, name: &str, length: usize) -> Result<S::Vector, LoadError> {
        let view = self.checkpoint.tensor(name, &[length])?;
        self.count(&view);
        Ok(self.storage.vector(view))
    }

    /// A tensor as it lies in its file; its rows go to [`hold`](Loader::hold).
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView, LoadError> {
        self.checkpoint.tensor(name, shape)
    }

    /// Holds a matrix that is a whole tensor or part of one.
    pub fn hold(&self, view: TensorView, role: Role) -> S::Matrix {
        self.count(&view);
        self.storage.matrix(view, role, self.quantization)
    }

    /// Holds the transpose of a matrix that is a whole tensor or part of one.
    pub fn hold_transposed(&self, view: TensorView) -> S::Matrix {
        self.count(&view);
        self.storage.transposed(view)
    }

    fn count(&self, view: &TensorView) {
        self.loaded.set(self.loaded.get() + view.bytes().len());
        (self.progress)(self.loaded.get() as f32 / self.total.max(1) as f32);
    }
}
