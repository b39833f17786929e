//! One expert, and the experts of a layer that are held here.

use crate::backend::Backend;
use crate::load_error::LoadError;
use crate::weights::{Loader, Role, Storage};
use std::sync::{Arc, Mutex, PoisonError};

/// An expert computes `w2 · (silu(w1 · x) ⊙ (w3 · x))`.
pub struct Expert<S: Storage> {
    /// `[intermediate, hidden]`
    pub w1: S::Matrix,
    /// `[hidden, intermediate]`
    pub w2: S::Matrix,
    /// `[intermediate, hidden]`
    pub w3: S::Matrix,
}

impl<S: Storage> Expert<S> {
    /// Loads `{prefix}.{name}.weight` for each of `names`, in the order of the fields.
    pub fn load(
        loader: &Loader<'_, S>,
        prefix: &str,
        names: [&str; 3],
        [intermediate, hidden]: [usize; 2],
        role: Role,
    ) -> Result<Self, LoadError> {
        let matrix = |name, shape| loader.matrix(&format!("{prefix}.{name}.weight"), shape, role);
        Ok(Expert {
            w1: matrix(names[0], [intermediate, hidden])?,
            w2: matrix(names[1], [hidden, intermediate])?,
            w3: matrix(names[2], [intermediate, hidden])?,
        })
    }
}

impl<B: Backend> Expert<B> {
    /// The answers to all rows of `x`.
    pub fn forward(&self, backend: &B, x: &B::Tensor) -> B::Tensor {
        let [gate, up] = backend.matmul(x, [&self.w1, &self.w3]);
        let [out] = backend.matmul(&backend.silu_mul(&gate, &up), [&self.w2]);
        out
    }
}

/// Rows `offsets[i]..offsets[i + 1]` of `x` go through expert i of those given, of which there must be one.
pub fn compute<B: Backend>(backend: &B, experts: &[&Expert<B>], x: &B::Tensor, offsets: &[u32]) -> B::Tensor {
    let matrices = |pick: fn(&Expert<B>) -> &B::Matrix| experts.iter().map(|e| pick(e)).collect::<Vec<_>>();
    let (w1, w2, w3) = (matrices(|e| &e.w1), matrices(|e| &e.w2), matrices(|e| &e.w3));
    let [gate, up] = backend.grouped_matmul(x, offsets, [&w1, &w3]);
    let inner = backend.silu_mul(&gate, &up);
    let [out] = backend.grouped_matmul(&inner, offsets, [&w2]);
    out
}

/// Entry e is expert e, if it is held.
pub type Held<S> = Arc<Vec<Option<Arc<Expert<S>>>>>;

/// The experts of one layer. Who computes looks once and keeps what it saw; loading and releasing replace the whole
/// list, so nobody waits for anybody.
pub struct LayerExperts<S: Storage>(Mutex<Held<S>>);

impl<S: Storage> LayerExperts<S> {
    /// Entry e is expert e, if it is held.
    pub fn new(experts: Vec<Option<Expert<S>>>) -> Self {
        LayerExperts(Mutex::new(Arc::new(experts.into_iter().map(|expert| expert.map(Arc::new)).collect())))
    }

    /// What is held now.
    pub fn now(&self) -> Held<S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Holds an expert, or no longer.
    pub fn put(&self, number: usize, expert: Option<Arc<Expert<S>>>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Vec::clone(&held);
        next[number] = expert;
        *held = Arc::new(next);
    }
}
