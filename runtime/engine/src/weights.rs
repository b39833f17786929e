//! From files to matrices: [`shard`] maps and checks, [`Loader`] walks the tensors that a family names, a
//! [`Storage`] decides how each is held. Where only the index of the files is there, [`listing`] takes their place;
//! where nothing is there but config.json, [`untrained`] does.

pub(crate) mod fp8;
pub(crate) mod json;
pub mod listing;
pub mod quantize;
pub mod safetensors;
pub mod shard;
pub mod tally;
mod unique;
pub mod untrained;
pub mod written;

use crate::load_error::LoadError;
use crate::weights::shard::TensorView;
use crate::weights::tally::Tally;
use crate::weights::written::Written;
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
    /// Never quantized: embeddings, which are read by row, and what a small error would harm.
    Kept,
    /// Never quantized, and multiplied with values that are not rounded: a small error there picks another expert.
    Gate,
}

/// Where tensors are found by name.
pub trait Tensors {
    /// Is there a tensor of this name?
    fn has(&self, name: &str) -> bool;

    /// The tensor `name`, which must have `shape` and a number format that weights may have. A matrix in fp8 comes with
    /// the scales of its blocks, which `{name}_scale_inv` holds (it is what values are multiplied with).
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView, LoadError>;

    /// The tensor `name` of packed values, which must be bytes of `shape`.
    fn packed(&self, name: &str, shape: &[usize]) -> Result<TensorView, LoadError>;

    /// Bytes of all of them; 0 where nobody knows.
    fn bytes(&self) -> usize;
}

/// Who holds loaded weights: a backend, or something that only counts them.
pub trait Storage {
    /// A matrix `[out, in]`.
    type Matrix;
    /// A vector of f32.
    type Vector;

    /// Holds a matrix, if there is memory for it.
    fn matrix(
        &self,
        written: Written,
        role: Role,
        quantization: Quantization,
    ) -> Result<Self::Matrix, LoadError>;

    /// Holds a vector, written as a matrix of one row or column, widened to f32.
    fn vector(&self, written: Written, role: Role) -> Result<Self::Vector, LoadError>;
}

/// Takes tensors into a storage, and reports how far it is.
pub struct Loader<'a, S: Storage> {
    tensors: &'a dyn Tensors,
    storage: &'a S,
    quantization: Quantization,
    /// The map and the rank whose experts are wanted; all are without one.
    share: Option<(&'a ExpertMap, usize)>,
    progress: &'a dyn Fn(f32),
    /// Bytes of all tensors, and how many of them are loaded.
    total: usize,
    loaded: Cell<usize>,
    /// Bytes of tensors that were held, and not only checked.
    held: Cell<usize>,
}

impl<'a, S: Storage> Loader<'a, S> {
    /// A loader that has loaded nothing yet. `progress` is told the share that is loaded, 0 to 1.
    pub fn new(
        tensors: &'a dyn Tensors,
        storage: &'a S,
        quantization: Quantization,
        progress: &'a dyn Fn(f32),
    ) -> Self {
        let total = tensors.bytes();
        progress(0.0);
        let [loaded, held] = [0; 2].map(Cell::new);
        Loader { tensors, storage, quantization, share: None, progress, total, loaded, held }
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
        let Loader { tensors, quantization, share, progress, total, .. } = *self;
        let loaded = Cell::new(self.loaded.get());
        let held = Cell::new(0);
        let counting =
            Loader { tensors, storage: &tally, quantization, share, progress, total, loaded, held };
        load(&counting)?;
        self.loaded.set(counting.loaded.get());
        Ok(())
    }

    /// Is there a tensor of this name?
    pub fn has(&self, name: &str) -> bool {
        self.tensors.has(name)
    }

    /// The matrix `name` of `[outputs, inputs]`.
    pub fn matrix(
        &self,
        name: &str,
        [outputs, inputs]: [usize; 2],
        role: Role,
    ) -> Result<S::Matrix, LoadError> {
        self.hold(Written::Rows(self.tensors.tensor(name, &[outputs, inputs])?), role)
    }

    /// The vector `name` of `length` values.
    pub fn vector(&self, name: &str, length: usize) -> Result<S::Vector, LoadError> {
        let view = self.tensors.tensor(name, &[length])?.rows(0..length, &[1, length]);
        self.hold_vector(Written::Rows(view), Role::Dense)
    }

    /// A tensor as it lies in its file; its parts go to [`hold`](Loader::hold) and [`hold_vector`](Loader::hold_vector).
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView, LoadError> {
        self.tensors.tensor(name, shape)
    }

    /// [`tensor`](Loader::tensor) of packed values.
    pub fn packed(&self, name: &str, shape: &[usize]) -> Result<TensorView, LoadError> {
        self.tensors.packed(name, shape)
    }

    /// Holds a matrix that is a whole tensor or part of one.
    pub fn hold(&self, written: Written, role: Role) -> Result<S::Matrix, LoadError> {
        self.count(written.bytes());
        self.storage.matrix(written, role, self.quantization)
    }

    /// Holds a vector that is a whole tensor or part of one.
    pub fn hold_vector(&self, written: Written, role: Role) -> Result<S::Vector, LoadError> {
        self.count(written.bytes());
        self.storage.vector(written, role)
    }

    /// Bytes of the checkpoint that were brought to the storage so far.
    pub fn bytes_held(&self) -> usize {
        self.held.get()
    }

    fn count(&self, bytes: usize) {
        self.held.set(self.held.get() + bytes);
        self.loaded.set(self.loaded.get() + bytes);
        (self.progress)(self.loaded.get() as f32 / self.total.max(1) as f32);
    }
}
