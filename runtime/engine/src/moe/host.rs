//! The experts that a process holds, as those who load, release and compute for other ranks see them.

use crate::backend::Backend;
use crate::load_error::LoadError;
use crate::moe::dispatch::Dispatch;
use crate::moe::exchange::{ExpertHost, ExpertShape, ExpertWorker, Parcel};
use crate::moe::expert::{Expert, LayerExperts, compute};
use coterie_api::launch::Activations;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Tokens that the gate sent to each expert of each layer.
pub struct TokenCounts(Vec<Vec<AtomicU64>>);

impl TokenCounts {
    /// Nothing counted yet.
    pub fn new(layers: usize, experts: usize) -> Self {
        TokenCounts((0..layers).map(|_| (0..experts).map(|_| AtomicU64::new(0)).collect()).collect())
    }

    /// Counts the sends of a layer.
    pub fn add(&self, layer: usize, dispatch: &Dispatch) {
        for (expert, sends) in dispatch.used() {
            self.0[layer][expert].fetch_add(sends.len() as u64, Ordering::Relaxed);
        }
    }

    /// `[layer][expert]`
    pub fn now(&self) -> Vec<Vec<u64>> {
        let layer = |layer: &Vec<AtomicU64>| layer.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        self.0.iter().map(layer).collect()
    }
}

/// Makes a backend of so many threads, for the thread that calls it.
pub type MakeBackend<B> = Arc<dyn Fn(usize) -> B + Send + Sync>;

/// Reads one expert of a layer onto a backend.
pub type LoadExpert<B> = dyn Fn(&B, usize, usize) -> Result<Expert<B>, LoadError> + Send + Sync;

/// The experts of one model that a process holds on one kind of backend.
pub struct Host<B: Backend> {
    shape: ExpertShape,
    activations: Activations,
    /// Every layer with experts.
    layers: Vec<Arc<LayerExperts<B>>>,
    backend: MakeBackend<B>,
    load: Box<LoadExpert<B>>,
    counts: Arc<TokenCounts>,
    /// One thread at a time changes what is held.
    changing: Mutex<()>,
}

impl<B: Backend> Host<B> {
    /// Of layers of rows of `hidden` values.
    pub fn new(
        hidden: usize,
        activations: Activations,
        layers: Vec<Arc<LayerExperts<B>>>,
        backend: MakeBackend<B>,
        load: Box<LoadExpert<B>>,
    ) -> Host<B> {
        let experts = layers.first().map_or(0, |layer| layer.now().len());
        let shape = ExpertShape { layers: layers.len(), experts, hidden };
        let counts = Arc::new(TokenCounts::new(shape.layers, experts));
        Host { shape, activations, layers, backend, load, counts, changing: Mutex::new(()) }
    }

    /// Where the gate's choices are counted.
    pub fn counts(&self) -> Arc<TokenCounts> {
        self.counts.clone()
    }
}

impl<B: Backend + 'static> ExpertHost for Arc<Host<B>> {
    fn shape(&self) -> ExpertShape {
        self.shape
    }

    fn holds(&self, layer: usize, expert: usize) -> bool {
        self.layers.get(layer).is_some_and(|layer| layer.now().get(expert).is_some_and(Option::is_some))
    }

    fn held(&self) -> Vec<Vec<u16>> {
        let numbers = |layer: &Arc<LayerExperts<B>>| {
            layer.now().iter().enumerate().filter_map(|(e, held)| held.as_ref().map(|_| e as u16)).collect()
        };
        self.layers.iter().map(numbers).collect()
    }

    fn bytes(&self) -> u64 {
        let bytes = |expert: &Arc<Expert<B>>| {
            [&expert.w1, &expert.w2, &expert.w3].map(|matrix| B::bytes(matrix) as u64).iter().sum::<u64>()
        };
        self.layers.iter().map(|layer| layer.now().iter().flatten().map(bytes).sum::<u64>()).sum()
    }

    fn load(&self, layer: usize, expert: usize) -> Result<(), LoadError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.holds(layer, expert) {
            return Ok(());
        }
        let loaded = (self.load)(&(self.backend)(1), layer, expert)?;
        self.layers[layer].put(expert, Some(Arc::new(loaded)));
        Ok(())
    }

    fn release(&self, layer: usize, expert: usize) {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.holds(layer, expert) {
            self.layers[layer].put(expert, None);
        }
    }

    fn tokens(&self) -> Vec<Vec<u64>> {
        self.counts.now()
    }

    fn worker(&self, threads: usize) -> Box<dyn ExpertWorker> {
        Box::new(Worker { backend: (self.backend)(threads), host: self.clone() })
    }
}

struct Worker<B: Backend> {
    backend: B,
    host: Arc<Host<B>>,
}

impl<B: Backend> ExpertWorker for Worker<B> {
    fn compute(&mut self, parcels: &[&Parcel], answers: &mut [Vec<u8>]) -> Vec<bool> {
        let Host { shape, activations, layers, .. } = &*self.host;
        let Some(first) = parcels.first() else { return Vec::new() };
        let held = layers[usize::from(first.layer)].now();
        let possible = |parcel: &Parcel| parcel.experts.iter().all(|&(e, _)| held[usize::from(e)].is_some());
        let done: Vec<bool> = parcels.iter().map(|parcel| possible(parcel)).collect();

        // By expert: the row among all parcels' rows, and the place of its answer, of every send.
        let mut rows = Vec::new();
        let mut sends: BTreeMap<u16, Vec<(u32, usize, usize)>> = BTreeMap::new();
        let mut first_row = 0;
        for (number, parcel) in parcels.iter().enumerate().filter(|(number, _)| done[*number]) {
            rows.extend_from_slice(&parcel.rows);
            let mut at = 0;
            for &(expert, count) in &parcel.experts {
                let of_expert = sends.entry(expert).or_default();
                for _ in 0..count {
                    of_expert.push((first_row + parcel.sends[at], number, at));
                    at += 1;
                }
            }
            first_row += parcel.row_count;
        }
        let row = 2 * shape.hidden;
        for (answer, (parcel, done)) in answers.iter_mut().zip(parcels.iter().zip(&done)) {
            answer.clear();
            answer.resize(if *done { parcel.sends.len() * row } else { 0 }, 0);
        }
        if sends.is_empty() {
            return done;
        }
        let experts: Vec<&Expert<B>> =
            sends.keys().filter_map(|e| held[usize::from(*e)].as_deref()).collect();
        let mut offsets = vec![0];
        for of_expert in sends.values() {
            offsets.push(offsets[offsets.len() - 1] + of_expert.len() as u32);
        }
        let order: Vec<(u32, usize, usize)> = sends.into_values().flatten().collect();
        let x = self.backend.decode(*activations, &rows, shape.hidden);
        let x = self.backend.gather(&x, &order.iter().map(|(row, ..)| *row).collect::<Vec<_>>());
        let out = compute(&self.backend, &experts, &x, &offsets);
        let mut bytes = Vec::with_capacity(order.len() * row);
        self.backend.encode(Activations::Bf16, &out, &mut bytes);
        for (bytes, (_, number, at)) in bytes.chunks_exact(row).zip(order) {
            answers[number][at * row..(at + 1) * row].copy_from_slice(bytes);
        }
        done
    }
}
