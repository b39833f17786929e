//! The door out of a layer of experts. Tokens leave as [`Parcel`]s for other ranks and their answers come back
//! through [`Exchange`]; other ranks' parcels are computed by an [`ExpertWorker`] on the experts of an [`ExpertHost`].
//!
//! Whatever travels is encoded the same way, and what stays is given the same values
//! ([`activations`](crate::moe::activations)), so where an expert is never shows in an answer.

use crate::load_error::LoadError;

/// Rows of one layer for some of the experts of one rank.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parcel {
    /// Number among the layers with experts.
    pub layer: u16,
    /// No living rank holds these experts: whoever gets this is to take them over from the weights source.
    pub adopt: bool,
    /// Experts in order, each with its number of sends, which is not 0.
    pub experts: Vec<(u16, u32)>,
    /// The row of each send, sends in order of their experts.
    pub sends: Vec<u32>,
    /// Number of rows.
    pub row_count: u32,
    /// `[row_count, hidden]`, each row encoded by [`activations::encode`](crate::moe::activations::encode). A token
    /// that goes to several experts of one rank is one row.
    pub rows: Vec<u8>,
}

/// Where an expert's tokens go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To a living rank that holds it.
    To(u16),
    /// To a living rank that does not hold it yet and is to take it over.
    Adopt(u16),
    /// It is held here by now: this rank took it over.
    Here,
    /// Nowhere yet: wait, and ask again. Whoever answers this waits a moment itself.
    Nowhere,
}

/// Why there is no answer to a parcel: the rank is left out now, or does not hold what it was asked for. Whoever
/// asked asks for the [`Route`]s again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered;

/// Sends parcels to other ranks. Used by the engine's thread only.
pub trait Exchange {
    /// Where the tokens of `expert` go, if it is not held here.
    fn route(&mut self, layer: usize, expert: usize) -> Route;

    /// Sends a parcel to a rank that [`route`](Exchange::route) named. At most one parcel is on its way to a rank.
    /// What goes wrong is told by [`receive`](Exchange::receive).
    fn send(&mut self, rank: u16, parcel: &Parcel);

    /// Waits for the answer to what was sent to `rank`: replaces `answer` by one bf16 row a send
    /// ([`activations::decode_bf16`](crate::moe::activations::decode_bf16)), in order.
    fn receive(&mut self, rank: u16, answer: &mut Vec<u8>) -> Result<(), Unanswered>;
}

/// The experts that this process holds. The engine's thread computes with them, others load and release them.
pub trait ExpertHost: Send + Sync {
    /// What travels: layers with experts, experts of a layer, width of a row.
    fn shape(&self) -> ExpertShape;

    /// Whether that expert can be computed here now.
    fn holds(&self, layer: usize, expert: usize) -> bool;

    /// `[layer]`: the experts that are held, in order.
    fn held(&self) -> Vec<Vec<u16>>;

    /// Bytes of all experts that are held.
    fn bytes(&self) -> u64;

    /// Reads an expert from the checkpoint and holds it; does nothing if it is held. Takes the time that reading
    /// takes, on the calling thread; nobody who computes waits for it.
    fn load(&self, layer: usize, expert: usize) -> Result<(), LoadError>;

    /// Lets an expert go. Who computes with it just now finishes.
    fn release(&self, layer: usize, expert: usize);

    /// `[layer][expert]`: tokens that the gate has sent to each since the model was loaded, wherever they went.
    fn tokens(&self) -> Vec<Vec<u64>>;

    /// Someone who computes parcels, for the calling thread, with `threads` threads (0: all cores).
    fn worker(&self, threads: usize) -> Box<dyn ExpertWorker>;
}

/// The numbers that two ranks must agree on before they exchange anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertShape {
    /// Layers with experts.
    pub layers: usize,
    /// Experts of a layer.
    pub experts: usize,
    /// Values of a row.
    pub hidden: usize,
}

/// Computes parcels of other ranks.
pub trait ExpertWorker {
    /// Computes `parcels`, all of one layer and well formed ([`check`]), and replaces `answers[p]` by one bf16 row a
    /// send. Rows for the same expert are computed together, whoever sent them. `false` for a parcel with an expert
    /// that is not held; its answer is empty then.
    fn compute(&mut self, parcels: &[&Parcel], answers: &mut [Vec<u8>]) -> Vec<bool>;
}

/// Why a parcel makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadParcel {
    /// A layer that the model does not have.
    #[error("a parcel is for layer {0}, which does not exist")]
    Layer(u16),
    /// Experts that are unknown, twice, or without sends.
    #[error("a parcel names expert {0} out of order, without sends, or beyond the model's")]
    Expert(u16),
    /// Another number of sends than the experts say.
    #[error("a parcel has {found} sends, its experts have {expected}")]
    Sends {
        /// Sends.
        found: usize,
        /// Sum over experts.
        expected: u64,
    },
    /// A send of a row that is not there.
    #[error("a parcel sends row {row} of {rows}")]
    Row {
        /// The row.
        row: u32,
        /// Rows.
        rows: u32,
    },
    /// Another number of bytes than its rows take.
    #[error("a parcel of {rows} rows has {found} bytes, not {expected}")]
    Bytes {
        /// Rows.
        rows: u32,
        /// Bytes.
        found: usize,
        /// Bytes of so many rows.
        expected: usize,
    },
}

/// Whether `parcel`, from wherever it comes, can be computed; a row takes `row_bytes`.
pub fn check(parcel: &Parcel, shape: &ExpertShape, row_bytes: usize) -> Result<(), BadParcel> {
    if usize::from(parcel.layer) >= shape.layers {
        return Err(BadParcel::Layer(parcel.layer));
    }
    let mut before = None;
    let mut expected = 0;
    for &(expert, sends) in &parcel.experts {
        if usize::from(expert) >= shape.experts || before.is_some_and(|before| before >= expert) || sends == 0
        {
            return Err(BadParcel::Expert(expert));
        }
        before = Some(expert);
        expected += u64::from(sends);
    }
    if parcel.sends.len() as u64 != expected {
        return Err(BadParcel::Sends { found: parcel.sends.len(), expected });
    }
    let rows = parcel.row_count;
    if let Some(&row) = parcel.sends.iter().find(|row| **row >= rows) {
        return Err(BadParcel::Row { row, rows });
    }
    let bytes = (rows as usize).saturating_mul(row_bytes);
    if parcel.rows.len() != bytes {
        return Err(BadParcel::Bytes { rows, found: parcel.rows.len(), expected: bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ExpertShape = ExpertShape { layers: 2, experts: 4, hidden: 3 };

    fn parcel() -> Parcel {
        Parcel {
            layer: 1,
            adopt: false,
            experts: vec![(0, 1), (3, 2)],
            sends: vec![1, 0, 1],
            row_count: 2,
            rows: vec![0; 12],
        }
    }

    #[test]
    fn a_parcel_that_makes_no_sense_is_refused_with_its_reason() {
        assert_eq!(check(&parcel(), &SHAPE, 6), Ok(()));
        let refused = |change: fn(&mut Parcel)| {
            let mut parcel = parcel();
            change(&mut parcel);
            check(&parcel, &SHAPE, 6).unwrap_err()
        };
        assert_eq!(refused(|p| p.layer = 2), BadParcel::Layer(2));
        assert_eq!(refused(|p| p.experts[1].0 = 4), BadParcel::Expert(4));
        assert_eq!(refused(|p| p.experts[1].0 = 0), BadParcel::Expert(0));
        assert_eq!(refused(|p| p.experts[0].1 = 0), BadParcel::Expert(0));
        assert_eq!(
            refused(|p| p.experts[0].1 = u32::MAX),
            BadParcel::Sends { found: 3, expected: (1 << 32) + 1 }
        );
        assert_eq!(refused(|p| p.sends[2] = 2), BadParcel::Row { row: 2, rows: 2 });
        assert_eq!(refused(|p| p.rows.truncate(11)), BadParcel::Bytes { rows: 2, found: 11, expected: 12 });
    }
}
