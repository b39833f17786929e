//! The sequences that wait: by class, and within a class in the order in which they came.

use crate::request::RequestId;
use crate::sequence::{Rank, Sequence};
use std::collections::BTreeMap;

/// The waiting sequences.
#[derive(Debug, Default)]
pub struct Queue {
    by_rank: BTreeMap<Rank, Sequence>,
    given_tokens: usize,
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.by_rank.len()
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.by_rank.is_empty()
    }

    /// Tokens that they came with together: their prompts, and what was generated of their answers before.
    pub fn given_tokens(&self) -> usize {
        self.given_tokens
    }

    /// Puts a sequence in its place.
    pub fn push(&mut self, sequence: Sequence) {
        self.given_tokens += sequence.request.given();
        self.by_rank.insert(sequence.rank(), sequence);
    }

    /// Whose turn it is.
    pub fn first(&self) -> Option<&Sequence> {
        self.by_rank.first_key_value().map(|(_, sequence)| sequence)
    }

    /// Takes it out.
    pub fn pop_first(&mut self) -> Option<Sequence> {
        let (_, sequence) = self.by_rank.pop_first()?;
        self.given_tokens -= sequence.request.given();
        Some(sequence)
    }

    /// Takes out the sequence of a request, if it waits.
    pub fn remove(&mut self, id: RequestId) -> Option<Sequence> {
        let rank = *self.by_rank.keys().find(|rank| rank.id == id)?;
        let sequence = self.by_rank.remove(&rank)?;
        self.given_tokens -= sequence.request.given();
        Some(sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;

    #[test]
    fn a_lower_number_goes_first_then_who_came_first() {
        let mut queue = Queue::default();
        for (id, priority) in [(1, 1), (2, 0), (3, 1), (4, 0)] {
            let request = Request { priority, ..Request::new(vec![0; id as usize], 1) };
            queue.push(Sequence::new(RequestId(id), request));
        }
        assert_eq!((queue.len(), queue.given_tokens()), (4, 10));
        assert!(queue.remove(RequestId(3)).is_some() && queue.remove(RequestId(3)).is_none());
        let order: Vec<u64> = std::iter::from_fn(|| queue.pop_first()).map(|s| s.id.0).collect();
        assert_eq!(order, [2, 4, 1]);
        assert!(queue.is_empty() && queue.given_tokens() == 0);
    }
}
