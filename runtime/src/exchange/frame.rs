//! Frames: what goes over a connection between two ranks. A header of 32 bytes, then a payload whose length follows
//! from the header's counts. All numbers are little-endian.
//!
//! ```text
//!  0  magic      4 bytes  "COEX"
//!  4  protocol   u16      1
//!  6  kind       u8       1 hello, 2 welcome, 3 refused, 4 pulse, 5 parcel, 6 answer, 7 missing
//!  7  flags      u8       1: adopt (parcel); all others 0
//!  8  layer      u16      parcel; else 0
//! 10  experts    u16      parcel, missing; else 0
//! 12  rows       u32      parcel; else 0
//! 16  sends      u32      parcel, answer; else 0
//! 20  payload    u32      bytes that follow
//! 24  sequence   u64      parcel; its answer has the same
//! 32  payload
//! ```
//!
//! Nothing is allocated before [`Limits::check`](super::limits::Limits::check) has found the header possible.

use thiserror::Error;

/// Bytes of a header.
pub const HEADER: usize = 32;
/// Version of everything that goes over a connection.
pub const PROTOCOL: u16 = 1;
/// Bytes of a [`Hello`](super::hello::Hello).
pub const HELLO: usize = 76;
/// Bytes of a pulse's payload: [`Versions`](super::hello::Versions).
pub const PULSE: usize = 24;
/// Bytes of a refusal's reason at most.
pub const REASON: usize = 512;

const MAGIC: [u8; 4] = *b"COEX";
const ADOPT: u8 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// First word of who connects.
    #[default]
    Hello = 1,
    /// First word of who is connected to: go on.
    Welcome = 2,
    /// The same: no, and why.
    Refused = 3,
    /// A sign of life, both ways.
    Pulse = 4,
    /// Rows to compute.
    Parcel = 5,
    /// Rows computed.
    Answer = 6,
    /// Instead of an answer: the experts of the parcel that are not held.
    Missing = 7,
}

/// The beginning of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Experts that are not held are to be taken over.
    pub adopt: bool,
    /// Number among the layers with experts.
    pub layer: u16,
    /// Number of experts.
    pub experts: u16,
    /// Number of rows.
    pub rows: u32,
    /// Number of sends.
    pub sends: u32,
    /// Bytes that follow.
    pub payload: u32,
    /// Number of the parcel on its connection.
    pub sequence: u64,
}

/// Why a frame was refused. Its connection is closed: what follows cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadFrame {
    /// Not ours at all.
    #[error("a frame begins with {0:02x?}, which is no frame of the exchange")]
    Magic([u8; 4]),
    /// Of another version.
    #[error(
        "the other side speaks protocol {0} of the exchange, this one {PROTOCOL}; run the same image on all ranks"
    )]
    Protocol(u16),
    /// Of no known kind.
    #[error("a frame has the unknown kind {0}")]
    Kind(u8),
    /// With unknown flags.
    #[error("a frame has the unknown flags {0:#x}")]
    Flags(u8),
    /// Of a kind that has no place here.
    #[error("a frame of kind {found:?} came where {expected} belongs")]
    Unexpected {
        /// The kind.
        found: Kind,
        /// What should have come.
        expected: &'static str,
    },
    /// A count beyond what the model's shape and the largest step allow.
    #[error("a frame of kind {kind:?} has {found} {what}; {limit} are possible")]
    Count {
        /// The kind.
        kind: Kind,
        /// What is counted.
        what: &'static str,
        /// How many.
        found: u64,
        /// How many may be.
        limit: u64,
    },
    /// A length that does not follow from the counts.
    #[error("a frame of kind {kind:?} says that {found} bytes follow, and its counts say {expected}")]
    Length {
        /// The kind.
        kind: Kind,
        /// As written.
        found: u64,
        /// From the counts.
        expected: u64,
    },
    /// An answer to something else.
    #[error("the answer to parcel {found} came to parcel {expected}")]
    Sequence {
        /// The answer's.
        found: u64,
        /// The parcel's.
        expected: u64,
    },
    /// A payload that makes no sense.
    #[error("{0}")]
    Payload(String),
}

impl Header {
    /// As bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&PROTOCOL.to_le_bytes());
        bytes[6] = self.kind as u8;
        bytes[7] = if self.adopt { ADOPT } else { 0 };
        bytes[8..10].copy_from_slice(&self.layer.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.experts.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.rows.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.sends.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.payload.to_le_bytes());
        bytes[24..].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    /// From bytes. What it counts is not looked at: [`Limits::check`](super::limits::Limits::check) does that.
    pub fn decode(bytes: &[u8; HEADER]) -> Result<Header, BadFrame> {
        let [a, b, c, d, p, q, kind, flags, ..] = *bytes;
        if [a, b, c, d] != MAGIC {
            return Err(BadFrame::Magic([a, b, c, d]));
        }
        let protocol = u16::from_le_bytes([p, q]);
        if protocol != PROTOCOL {
            return Err(BadFrame::Protocol(protocol));
        }
        let kind = match kind {
            1 => Kind::Hello,
            2 => Kind::Welcome,
            3 => Kind::Refused,
            4 => Kind::Pulse,
            5 => Kind::Parcel,
            6 => Kind::Answer,
            7 => Kind::Missing,
            unknown => return Err(BadFrame::Kind(unknown)),
        };
        if flags & !ADOPT != 0 {
            return Err(BadFrame::Flags(flags));
        }
        let mut rest = Fields(&bytes[8..]);
        Ok(Header {
            kind,
            adopt: flags == ADOPT,
            layer: rest.u16(),
            experts: rest.u16(),
            rows: rest.u32(),
            sends: rest.u32(),
            payload: rest.u32(),
            sequence: rest.u64(),
        })
    }

    /// That this is of the kind that belongs here.
    pub fn expect(self, kind: Kind, expected: &'static str) -> Result<Header, BadFrame> {
        if self.kind == kind { Ok(self) } else { Err(BadFrame::Unexpected { found: self.kind, expected }) }
    }
}

/// Numbers one after the other in bytes whose length was checked.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let (first, rest) =
            self.0.split_first_chunk().map_or(([0; N], &[][..]), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.next())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.next())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.next())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn parcel() -> Header {
        let sequence = 9;
        Header {
            kind: Kind::Parcel,
            adopt: true,
            layer: 1,
            experts: 2,
            rows: 2,
            sends: 3,
            payload: 36,
            sequence,
        }
    }

    #[test]
    fn a_header_has_the_documented_bytes() {
        let bytes = parcel().encode();
        let expected = b"COEX\x01\0\x05\x01\x01\0\x02\0\x02\0\0\0\x03\0\0\0\x24\0\0\0\x09\0\0\0\0\0\0\0";
        assert_eq!(&bytes, expected);
        assert_eq!(Header::decode(&bytes), Ok(parcel()));
    }

    #[test]
    fn what_is_no_header_is_refused_with_its_reason() {
        let refused = |at: usize, byte: u8| {
            let mut bytes = parcel().encode();
            bytes[at] = byte;
            Header::decode(&bytes).unwrap_err()
        };
        assert_eq!(refused(0, b'X'), BadFrame::Magic(*b"XOEX"));
        assert_eq!(refused(4, 2), BadFrame::Protocol(2));
        assert_eq!(refused(6, 0), BadFrame::Kind(0));
        assert_eq!(refused(6, 8), BadFrame::Kind(8));
        assert_eq!(refused(7, 2), BadFrame::Flags(2));
        let unexpected = parcel().expect(Kind::Hello, "a hello").unwrap_err();
        assert_eq!(unexpected, BadFrame::Unexpected { found: Kind::Parcel, expected: "a hello" });
    }
}
