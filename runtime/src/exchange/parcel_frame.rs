//! A parcel as a frame's payload.
//!
//! ```text
//! experts × (u16 expert, u32 sends)    the experts in order
//! sends × u32                          the row of each send
//! rows × row                           as they are: bf16, or an f32 scale and int8
//! ```

use super::frame::{BadFrame, Fields, Header, Kind};
use super::limits::Limits;
use coterie_engine::moe::exchange::{self, Parcel};

/// Bytes of an expert and its number of sends.
const EXPERT: usize = 6;
/// Bytes of a send.
const SEND: usize = 4;

/// Replaces `out` by all of the frame that comes before the rows.
pub fn encode(parcel: &Parcel, sequence: u64, out: &mut Vec<u8>) {
    let header = Header {
        kind: Kind::Parcel,
        adopt: parcel.adopt,
        layer: parcel.layer,
        experts: parcel.experts.len() as u16,
        rows: parcel.row_count,
        sends: parcel.sends.len() as u32,
        payload: (head_bytes(parcel.experts.len(), parcel.sends.len()) + parcel.rows.len()) as u32,
        sequence,
    };
    out.clear();
    out.extend_from_slice(&header.encode());
    for (expert, sends) in &parcel.experts {
        out.extend_from_slice(&expert.to_le_bytes());
        out.extend_from_slice(&sends.to_le_bytes());
    }
    out.extend(parcel.sends.iter().flat_map(|row| row.to_le_bytes()));
}

/// Bytes of a parcel's payload before its rows.
pub fn head_bytes(experts: usize, sends: usize) -> usize {
    experts * EXPERT + sends * SEND
}

/// Reads a parcel whose header was [checked](Limits::check) into `parcel`, whose memory is used again. `fill` reads
/// bytes; rows go straight to their place. The parcel is well formed afterwards.
pub fn read<E: From<BadFrame>>(
    header: &Header,
    limits: &Limits,
    parcel: &mut Parcel,
    head: &mut Vec<u8>,
    mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    let (experts, sends) = (usize::from(header.experts), header.sends as usize);
    head.resize(head_bytes(experts, sends), 0);
    fill(head)?;
    let (counted, sent) = head.split_at(experts * EXPERT);
    parcel.experts.clear();
    parcel.experts.extend(counted.chunks_exact(EXPERT).map(|bytes| {
        let mut fields = Fields(bytes);
        (fields.u16(), fields.u32())
    }));
    parcel.sends.clear();
    parcel.sends.extend(sent.chunks_exact(SEND).map(|bytes| Fields(bytes).u32()));
    (parcel.layer, parcel.adopt, parcel.row_count) = (header.layer, header.adopt, header.rows);
    parcel.rows.resize(header.rows as usize * limits.row_bytes, 0);
    fill(&mut parcel.rows)?;
    exchange::check(parcel, &limits.shape, limits.row_bytes)
        .map_err(|error| BadFrame::Payload(error.to_string()).into())
}

#[cfg(test)]
mod tests {
    use super::super::frame::HEADER;
    use super::*;
    use coterie_engine::moe::exchange::ExpertShape;
    use proptest::prelude::*;

    const LIMITS: Limits =
        Limits { shape: ExpertShape { layers: 3, experts: 6, hidden: 2 }, row_bytes: 4, step_rows: 5 };

    fn read_all(mut bytes: &[u8]) -> Result<Parcel, BadFrame> {
        let cut = || BadFrame::Payload("cut".to_owned());
        let mut fill = |out: &mut [u8]| {
            let (first, rest) = bytes.split_at_checked(out.len()).ok_or_else(cut)?;
            out.copy_from_slice(first);
            bytes = rest;
            Ok(())
        };
        let mut header = [0; HEADER];
        fill(&mut header)?;
        let header = Header::decode(&header)?.expect(Kind::Parcel, "a parcel")?;
        LIMITS.check(&header)?;
        let mut parcel = Parcel { sends: vec![9; 9], rows: vec![9; 99], ..Parcel::default() };
        read(&header, &LIMITS, &mut parcel, &mut vec![9; 9], fill)?;
        Ok(parcel)
    }

    fn whole(parcel: &Parcel) -> Vec<u8> {
        let mut bytes = vec![7; 3];
        encode(parcel, 4, &mut bytes);
        bytes.extend_from_slice(&parcel.rows);
        bytes
    }

    prop_compose! {
        fn parcels()(
            layer in 0..3_u16,
            adopt: bool,
            chosen in prop::collection::btree_map(0..6_u16, prop::collection::vec(any::<u32>(), 1..=5), 1..=6),
            row_count in 1..=5_u32,
            fill: u8,
        ) -> Parcel {
            let kept = |sends: &Vec<u32>| sends.len().min(row_count as usize);
            let experts = chosen.iter().map(|(expert, sends)| (*expert, kept(sends) as u32)).collect();
            let sends = chosen.values().flat_map(|sends| sends[..kept(sends)].iter().map(|row| row % row_count));
            Parcel { layer, adopt, experts, sends: sends.collect(), row_count, rows: vec![fill; row_count as usize * 4] }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(parcel in parcels()) {
            prop_assert_eq!(read_all(&whole(&parcel)), Ok(parcel));
        }

        #[test]
        fn what_is_damaged_is_refused_or_still_well_formed(
            parcel in parcels(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            keep in any::<prop::sample::Index>(),
            cut: bool,
        ) {
            let mut bytes = whole(&parcel);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if cut {
                bytes.truncate(keep.index(bytes.len()));
            }
            if let Ok(read) = read_all(&bytes) {
                prop_assert_eq!(exchange::check(&read, &LIMITS.shape, LIMITS.row_bytes), Ok(()));
            }
        }
    }
}
