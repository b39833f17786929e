//! Server-sent events out of the pieces in which they come.

use super::ledger::Nonsense;
use axum::body::Bytes;
use memchr::memmem::Finder;
use std::sync::LazyLock;

/// Bytes of one event at most. The longest are those of a token with its log probabilities, a few KiB, and of tool calls
/// that come whole.
const LONGEST: usize = 4 << 20;

static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\n\n"));

/// Joins pieces, and splits them after each empty line.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    bytes: Vec<u8>,
    /// Up to here there is no end of an event.
    searched: usize,
}

impl Splitter {
    /// The events, each with the empty line that ends it, that are whole now that `piece` has come.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<Bytes>, Nonsense> {
        self.bytes.extend_from_slice(piece);
        let (mut events, mut begin) = (Vec::new(), 0);
        while let Some(at) = END.find(&self.bytes[self.searched..]) {
            let end = self.searched + at + 2;
            events.push(Bytes::copy_from_slice(&self.bytes[begin..end]));
            (begin, self.searched) = (end, end);
        }
        self.bytes.drain(..begin);
        // The last byte may be the first half of an end.
        self.searched = self.bytes.len().saturating_sub(1);
        if self.bytes.len() > LONGEST {
            return Err(Nonsense(format!("it sent an event of more than {LONGEST} bytes")));
        }
        if self.bytes.is_empty() && self.bytes.capacity() > 64 << 10 {
            self.bytes = Vec::new();
        }
        Ok(events)
    }

    /// What is left, an event that is not whole.
    pub fn rest(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_event_without_end_is_not_held() {
        let mut splitter = Splitter::default();
        let piece = vec![b'x'; 1 << 20];
        assert!((0..5).any(|_| splitter.push(&piece).is_err()));
    }

    proptest! {
        #[test]
        fn events_are_the_same_in_whatever_pieces_they_come(text in "[a\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..6)) {
            let whole: Vec<Bytes> = Splitter::default().push(text.as_bytes()).unwrap();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort();
            let mut splitter = Splitter::default();
            let pieces = cuts.windows(2).flat_map(|cut| splitter.push(&text.as_bytes()[cut[0]..cut[1]]).unwrap());
            prop_assert_eq!(pieces.collect::<Vec<_>>(), whole.clone());
            prop_assert!(whole.iter().all(|event| event.ends_with(b"\n\n")));
        }
    }
}
