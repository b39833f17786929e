//! One expert, and the experts of a layer that are held here.

use crate::backend::Backend;
use crate::load_error::LoadError;
use crate::model::config::plan::Activation;
use crate::weights::{Loader, Role, Storage};
use std::sync::{Arc, Mutex, PoisonError};

/// An expert computes `w2 · activation(w1 · x, w3 · x)`; one with biases adds them behind each matrix.
pub struct Expert<S: Storage> {
    /// `[intermediate, hidden]`
    pub w1: S::Matrix,
    /// `[hidden, intermediate]`
    pub w2: S::Matrix,
    /// `[intermediate, hidden]`
    pub w3: S::Matrix,
    /// Of w1, w2, w3.
    pub biases: Option<[S::Vector; 3]>,
    /// What is made of the two halves.
    pub activation: Activation,
}

impl<S: Storage> Expert<S> {
    /// Loads `{prefix}.{name}.weight` for each of `names`, in the order of the matrices.
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
            biases: None,
            activation: Activation::Silu,
        })
    }
}

impl<B: Backend> Expert<B> {
    /// The answers to all rows of `x`.
    pub fn forward(&self, backend: &B, x: &B::Tensor) -> B::Tensor {
        compute(backend, &[self], x, &[0, backend.rows(x) as u32])
    }
}

/// Rows `offsets[i]..offsets[i + 1]` of `x` go through expert i of those given, of which there must be one. All are of
/// one layer.
pub fn compute<B: Backend>(backend: &B, experts: &[&Expert<B>], x: &B::Tensor, offsets: &[u32]) -> B::Tensor {
    let matrices = |pick: fn(&Expert<B>) -> &B::Matrix| experts.iter().map(|e| pick(e)).collect::<Vec<_>>();
    let (w1, w2, w3) = (matrices(|e| &e.w1), matrices(|e| &e.w2), matrices(|e| &e.w3));
    let add_biases = |x: &mut B::Tensor, number: usize| {
        let biases: Vec<&B::Vector> =
            experts.iter().filter_map(|e| e.biases.as_ref().map(|biases| &biases[number])).collect();
        if !biases.is_empty() {
            backend.grouped_add(x, offsets, &biases);
        }
    };
    let [mut gate, mut up] = backend.grouped_matmul(x, offsets, [&w1, &w3]);
    add_biases(&mut gate, 0);
    add_biases(&mut up, 2);
    let inner = backend.activate(experts[0].activation, &gate, &up);
    let [mut out] = backend.grouped_matmul(&inner, offsets, [&w2]);
    add_biases(&mut out, 1);
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
