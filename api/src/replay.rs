//! How a stream goes on after its rank is gone: the journal that a rank writes into a stream for the front door, and
//! the request by which another rank goes on from it.
//!
//! A request with the header [`JOURNAL`] whose answer is streamed gets, between its events, comments of the form
//! `: coterie ENTRY` with a JSON [`Entry`] each, and an empty line behind it as behind every event; clients that see them
//! ignore them, as every SSE client must. **What no
//! entry has followed has not happened:** events are passed on only when the entry after them has come, so whatever a
//! dying rank sent last without one is dropped, and is generated again. An answer of a given request and seed depends
//! on its tokens only, so a rank that is given the journal's tokens goes on with the very next event.
//!
//! To go on, the same request is sent with the member [`PARAMETER`] in its body: the [`Journal`]. Its answer begins
//! with the first event after the journal, without what opens an answer; its own journal goes on likewise, without
//! [`Entry::Begun`].

use serde::{Deserialize, Serialize};

/// Header by which a journal is asked for; its value is `1`.
pub const JOURNAL: &str = "coterie-journal";
/// What a comment with an [`Entry`] begins with.
pub const COMMENT: &str = ": coterie ";
/// Member of a request's body that holds the [`Journal`] to go on from.
pub const PARAMETER: &str = "coterie_replay";

/// One step of an answer. The events before it, back to the entry before, belong to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// What opens the answer is sent.
    Begun(Begun),
    /// A choice has come on.
    Tokens {
        /// Which.
        choice: usize,
        /// The tokens that were generated since its last entry, in order.
        tokens: Vec<u32>,
        /// Prompt tokens that were in the cache; with the first entry of a choice.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cached: Option<usize>,
        /// Tokens of the request's prompts, all together; with the first entry of a choice. For who keeps accounts: nothing
        /// goes on from it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prompt: Option<u64>,
    },
    /// The answer is complete, with its end or with an error that another rank would repeat. After any other error there
    /// is none.
    Ended,
}

/// What an answer was given when it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// What the answer is called.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The seed: the client's, or the one that was drawn.
    pub seed: u64,
}

/// All that an answer depends on beside its request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// How it began.
    pub begun: Begun,
    /// By number.
    pub choices: Vec<ChoiceJournal>,
}

/// One choice of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChoiceJournal {
    /// The tokens generated so far, the one that ended it included.
    pub tokens: Vec<u32>,
    /// Prompt tokens that were in the cache of the rank that began it; none before it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<usize>,
}

impl Journal {
    /// Of an answer that has begun.
    pub fn new(begun: Begun) -> Journal {
        Journal { begun, choices: Vec::new() }
    }

    /// Takes what happened to a choice.
    pub fn take(&mut self, choice: usize, tokens: &[u32], cached: Option<usize>) {
        if self.choices.len() <= choice {
            self.choices.resize_with(choice + 1, ChoiceJournal::default);
        }
        let journal = &mut self.choices[choice];
        journal.tokens.extend_from_slice(tokens);
        journal.cached = journal.cached.or(cached);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_short_line_and_reads_back() {
        let entry = Entry::Tokens { choice: 1, tokens: vec![3, 5], cached: None, prompt: None };
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(text, r#"{"tokens":{"choice":1,"tokens":[3,5]}}"#);
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
        assert_eq!(serde_json::to_string(&Entry::Ended).unwrap(), r#""ended""#);
    }

    #[test]
    fn a_journal_keeps_the_tokens_of_each_choice_in_order() {
        let mut journal = Journal::new(Begun { id: "a".into(), created: 1, seed: 2 });
        journal.take(1, &[7], Some(16));
        journal.take(0, &[1], None);
        journal.take(1, &[8, 9], None);
        let tokens: Vec<_> = journal.choices.iter().map(|choice| choice.tokens.clone()).collect();
        assert_eq!(tokens, [vec![1], vec![7, 8, 9]]);
        assert_eq!(journal.choices[1].cached, Some(16));
    }
}
