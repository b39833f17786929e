//! The experts of one layer, spread over the ranks of a replica: what is elsewhere travels while what is here is
//! computed. Every row is rounded as if it travelled, there and back, so where an expert is never shows.

use crate::backend::Backend;
use crate::moe::activations::row_bytes;
use crate::moe::dispatch::Dispatch;
use crate::moe::exchange::{Exchange, Route};
use crate::moe::expert::{Expert, LayerExperts, compute};
use crate::moe::host::TokenCounts;
use crate::moe::parcels::Packer;
use coterie_api::launch::Activations;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// What the layers of a rank have in common.
pub struct Ranks {
    /// How rows travel.
    pub activations: Activations,
    /// The way out.
    pub exchange: RefCell<Box<dyn Exchange>>,
    /// Where the gate's choices are counted.
    pub counts: Arc<TokenCounts>,
}

/// One layer's way to its experts.
#[derive(Clone)]
pub struct LayerRanks {
    /// Number among the layers with experts.
    pub layer: u16,
    /// The rest of the replica.
    pub ranks: Rc<Ranks>,
}

/// An expert that is here, and its sends.
type Here<B> = (Arc<Expert<B>>, Range<usize>);

impl LayerRanks {
    /// The answers to all sends of `dispatch`, `[sends, hidden]`; `x` is `[tokens, hidden]`.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        experts: &LayerExperts<B>,
        x: &B::Tensor,
        dispatch: &Dispatch,
    ) -> B::Tensor {
        let Ranks { activations, exchange, counts } = &*self.ranks;
        counts.add(self.layer.into(), dispatch);
        let hidden = backend.width(x);
        let mut rows = Vec::new();
        backend.encode(*activations, x, &mut rows);
        let x = backend.decode(*activations, &rows, hidden);
        let mut answers = Answers { bytes: vec![0; dispatch.tokens.len() * 2 * hidden], row: 2 * hidden };

        let mut missing: Vec<usize> = dispatch.used().map(|(expert, _)| expert).collect();
        while !missing.is_empty() {
            let mut packer =
                Packer::new(self.layer, &dispatch.tokens, &rows, row_bytes(*activations, hidden));
            let mut here: Vec<Here<B>> = Vec::new();
            let mut again = Vec::new();
            let held = experts.now();
            for expert in missing {
                let sends = dispatch.sends_of(expert);
                if let Some(held) = &held[expert] {
                    here.push((held.clone(), sends));
                    continue;
                }
                match exchange.borrow_mut().route(self.layer.into(), expert) {
                    Route::To(rank) => packer.put(rank, false, expert, sends),
                    Route::Adopt(rank) => packer.put(rank, true, expert, sends),
                    Route::Here | Route::Nowhere => again.push(expert),
                }
            }
            let (parcels, later) = packer.finish();
            again.extend(later);
            for (rank, parcel) in &parcels {
                exchange.borrow_mut().send(*rank, parcel);
            }
            compute_here(backend, &here, &x, dispatch, &mut answers);
            let mut answer = Vec::new();
            for (rank, parcel) in &parcels {
                let experts = parcel.experts.iter().map(|&(expert, _)| usize::from(expert));
                match exchange.borrow_mut().receive(*rank, &mut answer) {
                    Ok(()) => answers.put(experts.map(|expert| dispatch.sends_of(expert)), &answer),
                    Err(_) => again.extend(experts),
                }
            }
            again.sort_unstable();
            missing = again;
        }
        backend.decode(Activations::Bf16, &answers.bytes, hidden)
    }
}

fn compute_here<B: Backend>(
    backend: &B,
    here: &[Here<B>],
    x: &B::Tensor,
    dispatch: &Dispatch,
    answers: &mut Answers,
) {
    if here.is_empty() {
        return;
    }
    let mut offsets = vec![0];
    let mut tokens = Vec::new();
    for (_, sends) in here {
        tokens.extend_from_slice(&dispatch.tokens[sends.clone()]);
        offsets.push(tokens.len() as u32);
    }
    let experts: Vec<&Expert<B>> = here.iter().map(|(expert, _)| &**expert).collect();
    let out = compute(backend, &experts, &backend.gather(x, &tokens), &offsets);
    let mut bytes = Vec::new();
    backend.encode(Activations::Bf16, &out, &mut bytes);
    answers.put(here.iter().map(|(_, sends)| sends.clone()), &bytes);
}

/// `[sends, hidden]` in bf16, filled as the answers come.
struct Answers {
    bytes: Vec<u8>,
    /// Bytes of a row.
    row: usize,
}

impl Answers {
    /// Fills the rows of several ranges of sends, which lie one behind the other in `from`.
    fn put(&mut self, ranges: impl Iterator<Item = Range<usize>>, mut from: &[u8]) {
        for sends in ranges {
            let (bytes, rest) = from.split_at(sends.len() * self.row);
            self.bytes[sends.start * self.row..sends.end * self.row].copy_from_slice(bytes);
            from = rest;
        }
    }
}
