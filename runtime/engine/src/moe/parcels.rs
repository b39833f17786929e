//! Which sends of a dispatch travel together: pure arithmetic on where experts are.

use crate::moe::exchange::Parcel;
use std::collections::BTreeMap;

/// Packs sends for other ranks, expert by expert, in order.
pub struct Packer<'a> {
    layer: u16,
    /// `[sends]`: the token of each.
    tokens: &'a [u32],
    /// `[tokens]`: encoded rows, and the bytes of one.
    rows: &'a [u8],
    row_bytes: usize,
    open: BTreeMap<(u16, bool), Open>,
}

/// A parcel that is being packed.
#[derive(Default)]
struct Open {
    parcel: Parcel,
    /// The row that a token became.
    row_of: BTreeMap<u32, u32>,
}

impl<'a> Packer<'a> {
    /// Nothing packed yet.
    pub fn new(layer: u16, tokens: &'a [u32], rows: &'a [u8], row_bytes: usize) -> Self {
        Packer { layer, tokens, rows, row_bytes, open: BTreeMap::new() }
    }

    /// Puts an expert's sends, which are not none, into the parcel to `rank`; experts come in order.
    pub fn put(&mut self, rank: u16, adopt: bool, expert: usize, sends: std::ops::Range<usize>) {
        let Open { parcel, row_of } = self.open.entry((rank, adopt)).or_default();
        (parcel.layer, parcel.adopt) = (self.layer, adopt);
        parcel.experts.push((expert as u16, sends.len() as u32));
        for &token in &self.tokens[sends] {
            let next = row_of.len() as u32;
            let row = *row_of.entry(token).or_insert(next);
            if row == next {
                let at = token as usize * self.row_bytes;
                parcel.rows.extend_from_slice(&self.rows[at..at + self.row_bytes]);
                parcel.row_count += 1;
            }
            parcel.sends.push(row);
        }
    }

    /// The parcels, at most one for each rank, and the experts that have to wait for the next round: a rank that is
    /// to take experts over gets what it holds first.
    pub fn finish(self) -> (Vec<(u16, Parcel)>, Vec<usize>) {
        let (mut parcels, mut later): (Vec<(u16, Parcel)>, _) = (Vec::new(), Vec::new());
        for ((rank, _), Open { parcel, .. }) in self.open {
            match parcels.last() {
                Some((last, _)) if *last == rank => {
                    later.extend(parcel.experts.iter().map(|&(e, _)| usize::from(e)))
                }
                _ => parcels.push((rank, parcel)),
            }
        }
        (parcels, later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_travels_to_a_rank_once() {
        // Expert 0: tokens 0 and 2; expert 2: tokens 1 and 2; expert 3: token 2.
        let (tokens, rows) = ([0, 2, 1, 2, 2], [10, 11, 12]);
        let mut packer = Packer::new(7, &tokens, &rows, 1);
        packer.put(4, false, 0, 0..2);
        packer.put(1, false, 2, 2..4);
        packer.put(4, false, 3, 4..5);
        let (parcels, later) = packer.finish();
        let parcel = |experts: &[(u16, u32)], sends: &[u32], rows: &[u8]| Parcel {
            layer: 7,
            adopt: false,
            experts: experts.to_vec(),
            sends: sends.to_vec(),
            row_count: rows.len() as u32,
            rows: rows.to_vec(),
        };
        let expected = [
            (1, parcel(&[(2, 2)], &[0, 1], &[11, 12])),
            (4, parcel(&[(0, 2), (3, 1)], &[0, 1, 1], &[10, 12])),
        ];
        assert_eq!(parcels, expected);
        assert!(later.is_empty());
    }

    #[test]
    fn what_a_rank_is_to_take_over_waits_for_what_it_holds() {
        let (tokens, rows) = ([0, 0, 0], [5]);
        let mut packer = Packer::new(0, &tokens, &rows, 1);
        packer.put(1, true, 0, 0..1);
        packer.put(1, false, 1, 1..2);
        packer.put(2, true, 2, 2..3);
        let (parcels, later) = packer.finish();
        assert_eq!(
            parcels.iter().map(|(rank, p)| (*rank, p.adopt)).collect::<Vec<_>>(),
            [(1, false), (2, true)]
        );
        assert_eq!(later, [0]);
    }
}
