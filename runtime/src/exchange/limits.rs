//! What a frame may be: counts and lengths that the model's shape and the largest step allow.

use super::frame::{BadFrame, HELLO, Header, Kind, PULSE, REASON};
use coterie_engine::moe::exchange::ExpertShape;
use half::bf16;

/// Experts that one token uses in one layer at most; no model has more.
pub const EXPERTS_PER_TOKEN: usize = 64;

/// What a frame may be, by the model's shape and the largest step.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Layers, experts, width of a row.
    pub shape: ExpertShape,
    /// Bytes of a row that is sent.
    pub row_bytes: usize,
    /// Rows of one step at most.
    pub step_rows: usize,
}

impl Limits {
    /// Bytes of an answer of `sends` rows.
    pub fn answer_bytes(&self, sends: u32) -> u64 {
        u64::from(sends) * (self.shape.hidden * size_of::<bf16>()) as u64
    }

    /// The bytes that follow `header`, if it is possible.
    pub fn check(&self, header: &Header) -> Result<usize, BadFrame> {
        let Header { kind, layer, experts, rows, sends, payload, .. } = *header;
        let within = |what, found: u64, least: u64, most: u64| match (least..=most).contains(&found) {
            true => Ok(()),
            false => Err(BadFrame::Count { kind, what, found, limit: most }),
        };
        let (experts, rows, sends, found) =
            (u64::from(experts), u64::from(rows), u64::from(sends), u64::from(payload));
        let each = experts.min(EXPERTS_PER_TOKEN as u64);
        let is_parcel = kind == Kind::Parcel;
        let counts_experts = is_parcel || kind == Kind::Missing;
        within(
            "layers",
            u64::from(layer),
            0,
            if is_parcel { (self.shape.layers as u64).saturating_sub(1) } else { 0 },
        )?;
        let least = u64::from(counts_experts);
        within("experts", experts, least, if counts_experts { self.shape.experts as u64 } else { 0 })?;
        within("rows", rows, u64::from(is_parcel), if is_parcel { self.step_rows as u64 } else { 0 })?;
        let (least, most) = match kind {
            Kind::Parcel => (experts, rows * each),
            Kind::Answer => (1, (self.step_rows * self.shape.experts.min(EXPERTS_PER_TOKEN)) as u64),
            _ => (0, 0),
        };
        within("sends", sends, least, most)?;
        let expected = match kind {
            Kind::Hello | Kind::Welcome => HELLO as u64,
            Kind::Refused => found.min(REASON as u64),
            Kind::Pulse => PULSE as u64,
            Kind::Parcel => experts * 6 + sends * 4 + rows * self.row_bytes as u64,
            Kind::Answer => self.answer_bytes(header.sends),
            Kind::Missing => experts * 2,
        };
        match found == expected {
            true => Ok(payload as usize),
            false => Err(BadFrame::Length { kind, found, expected }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::HEADER;
    use super::super::frame::tests::parcel;
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits =
        Limits { shape: ExpertShape { layers: 2, experts: 8, hidden: 3 }, row_bytes: 6, step_rows: 4 };

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_allocated() {
        assert_eq!(LIMITS.check(&parcel()), Ok(36));
        let refused = |change: fn(&mut Header)| {
            let mut header = parcel();
            change(&mut header);
            LIMITS.check(&header).unwrap_err()
        };
        let count = |what, found, limit| BadFrame::Count { kind: Kind::Parcel, what, found, limit };
        assert_eq!(refused(|h| h.layer = 2), count("layers", 2, 1));
        assert_eq!(refused(|h| h.experts = 9), count("experts", 9, 8));
        assert_eq!(refused(|h| h.experts = 0), count("experts", 0, 8));
        assert_eq!(refused(|h| h.rows = 5), count("rows", 5, 4));
        assert_eq!(refused(|h| h.rows = 0), count("rows", 0, 4));
        assert_eq!(refused(|h| h.sends = 5), count("sends", 5, 4));
        assert_eq!(refused(|h| h.sends = 1), count("sends", 1, 4));
        for payload in [0, 35, 37, u32::MAX] {
            let found = u64::from(payload);
            let header = Header { payload, ..parcel() };
            assert_eq!(
                LIMITS.check(&header),
                Err(BadFrame::Length { kind: Kind::Parcel, found, expected: 36 })
            );
        }
        let reason = Header { kind: Kind::Refused, payload: 513, ..Header::default() };
        assert!(matches!(LIMITS.check(&reason), Err(BadFrame::Length { expected: 512, .. })));
        let answer = Header { kind: Kind::Answer, sends: 33, payload: 33 * 6, ..Header::default() };
        assert!(matches!(LIMITS.check(&answer), Err(BadFrame::Count { what: "sends", limit: 32, .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(mut bytes: [u8; HEADER], ours: bool, kind in 0..9_u8) {
            if ours {
                bytes[..8].copy_from_slice(b"COEX\x01\0\0\0");
                bytes[6] = kind;
            }
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
                if let Ok(follows) = LIMITS.check(&header) {
                    // The longest is a reason.
                    prop_assert!(follows <= REASON, "{follows}");
                }
            }
        }
    }
}
