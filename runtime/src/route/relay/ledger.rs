//! What of an answer has happened: events that an entry of the journal has followed. Only those are passed on, so the
//! client has exactly what the journal tells, and another rank can go on from there.

use axum::body::Bytes;
use coterie_api::replay::{Begun, COMMENT, Entry, Journal};

/// Choices that a journal may have; a rank gives at most 128.
const MOST_CHOICES: usize = 1024;
/// Bytes of events that may wait for their entry.
const MOST_HELD: usize = 16 << 20;
/// Events that open an answer at most: one for each choice, and some.
const OPENING: usize = 256;

/// A rank wrote what cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nonsense(pub String);

/// The events and the journal of one answer.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    journal: Option<Journal>,
    held: Vec<u8>,
    /// Events that came before the first entry.
    opening: usize,
    ended: bool,
    /// Tokens of all choices.
    tokens: u64,
    /// Tokens of the prompt, once a rank has told.
    prompt: Option<u64>,
    /// An entry came since the rank began.
    further: bool,
}

impl Ledger {
    /// An event came; returns what may be passed on now.
    pub fn take(&mut self, event: &[u8]) -> Result<Option<Bytes>, Nonsense> {
        if self.ended {
            return Err(Nonsense("an event after the end of the answer".to_owned()));
        }
        let Some(entry) = event.strip_prefix(COMMENT.as_bytes()) else {
            self.held.extend_from_slice(event);
            self.opening += usize::from(self.journal.is_none());
            if self.held.len() > MOST_HELD {
                return Err(Nonsense(format!("{MOST_HELD} bytes without an entry in the journal")));
            }
            return Ok(None);
        };
        let entry = serde_json::from_slice(entry).map_err(|error| nonsense(&error))?;
        self.enter(entry)?;
        self.further = true;
        Ok((!self.held.is_empty()).then(|| std::mem::take(&mut self.held).into()))
    }

    fn enter(&mut self, entry: Entry) -> Result<(), Nonsense> {
        match (entry, &mut self.journal) {
            (Entry::Begun(begun), None) => self.journal = Some(Journal::new(begun)),
            (Entry::Begun(begun), Some(journal)) => same(&journal.begun, &begun)?,
            (Entry::Tokens { .. }, None) => return Err(nonsense(&"tokens before the beginning")),
            (Entry::Tokens { choice, .. }, _) if choice >= MOST_CHOICES => {
                return Err(nonsense(&format!("tokens of choice {choice}")));
            }
            (Entry::Tokens { choice, tokens, cached, prompt }, Some(journal)) => {
                self.tokens += tokens.len() as u64;
                self.prompt = self.prompt.or(prompt);
                journal.take(choice, &tokens, cached);
            }
            (Entry::Ended, _) => self.ended = true,
        }
        Ok(())
    }

    /// What is held, if the rank keeps no journal at all, as one of an older version: then nothing can be gone on with,
    /// and it may as well be passed on.
    pub fn without_journal(&mut self) -> Option<Bytes> {
        let whole = self.held.ends_with(b"data: [DONE]\n\n");
        let none = self.journal.is_none() && !self.ended && (whole || self.opening > OPENING);
        none.then(|| std::mem::take(&mut self.held).into())
    }

    /// The rank is gone, and with it what it sent last. Returns whether the answer had come on with it.
    pub fn break_off(&mut self) -> bool {
        self.held.clear();
        self.opening = 0;
        std::mem::take(&mut self.further)
    }

    /// To go on from; none if nothing was passed on yet.
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// Nothing more can come.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Tokens of the prompt, if a rank has told.
    pub fn prompt(&self) -> Option<u64> {
        self.prompt
    }

    /// Tokens generated so far.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }
}

fn same(before: &Begun, now: &Begun) -> Result<(), Nonsense> {
    if before == now { Ok(()) } else { Err(nonsense(&"another beginning than the one it was to go on from")) }
}

fn nonsense(what: &dyn std::fmt::Display) -> Nonsense {
    Nonsense(format!("its journal has {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: &str = ": coterie {\"begun\":{\"id\":\"a\",\"created\":1,\"seed\":2}}\n\n";

    fn tokens(tokens: &str) -> String {
        format!(": coterie {{\"tokens\":{{\"choice\":0,\"tokens\":{tokens}}}}}\n\n")
    }

    fn taken(ledger: &mut Ledger, event: &str) -> String {
        let passed = ledger.take(event.as_bytes()).unwrap().unwrap_or_default();
        String::from_utf8(passed.to_vec()).unwrap()
    }

    #[test]
    fn what_no_entry_has_followed_has_not_happened() {
        let mut ledger = Ledger::default();
        assert_eq!(taken(&mut ledger, "data: 0\n\n"), "");
        assert_eq!(taken(&mut ledger, BEGUN), "data: 0\n\n");
        taken(&mut ledger, "data: 1\n\n");
        taken(&mut ledger, "data: 2\n\n");
        assert_eq!(taken(&mut ledger, &tokens("[5,6]")), "data: 1\n\ndata: 2\n\n");
        taken(&mut ledger, "data: 3\n\n");
        assert!(ledger.break_off());
        assert!(!ledger.break_off(), "nothing came since");
        assert_eq!(taken(&mut ledger, "data: 3\n\n"), "");
        assert_eq!(taken(&mut ledger, &tokens("[7]")), "data: 3\n\n");
        assert_eq!(ledger.journal().unwrap().choices[0].tokens, [5, 6, 7]);
        taken(&mut ledger, "data: [DONE]\n\n");
        assert!(!ledger.ended());
        assert_eq!(taken(&mut ledger, ": coterie \"ended\"\n\n"), "data: [DONE]\n\n");
        assert!(ledger.ended() && ledger.tokens() == 3);
    }

    #[test]
    fn a_journal_that_cannot_be_is_nonsense() {
        let begun = || {
            let mut ledger = Ledger::default();
            taken(&mut ledger, BEGUN);
            ledger
        };
        for entry in [
            ": coterie {\n\n",
            ": coterie {\"tokens\":{\"choice\":4000000000,\"tokens\":[1]}}\n\n",
            ": coterie {\"begun\":{\"id\":\"a\",\"created\":1,\"seed\":3}}\n\n",
        ] {
            assert!(begun().take(entry.as_bytes()).is_err(), "{entry}");
        }
        assert!(Ledger::default().take(tokens("[1]").as_bytes()).is_err());
        assert_eq!(begun().take(BEGUN.as_bytes()), Ok(None), "the same beginning is none");
        let mut ended = begun();
        taken(&mut ended, ": coterie \"ended\"\n\n");
        assert!(ended.take(b"data: 1\n\n").is_err());
    }

    #[test]
    fn a_rank_that_keeps_no_journal_is_known_by_its_end_or_by_its_length() {
        let mut short = Ledger::default();
        taken(&mut short, "data: 1\n\n");
        assert_eq!(short.without_journal(), None);
        taken(&mut short, "data: [DONE]\n\n");
        assert_eq!(short.without_journal().unwrap(), "data: 1\n\ndata: [DONE]\n\n");
        let mut long = Ledger::default();
        assert!(
            (0..1000).any(|_| taken(&mut long, "data: 1\n\n").is_empty() && long.without_journal().is_some())
        );
        let mut usual = Ledger::default();
        taken(&mut usual, BEGUN);
        (0..1000).for_each(|_| drop(taken(&mut usual, "data: 1\n\n")));
        taken(&mut usual, "data: [DONE]\n\n");
        assert_eq!(usual.without_journal(), None);
    }

    #[test]
    fn a_rank_that_writes_no_journal_does_not_fill_the_memory() {
        let mut ledger = Ledger::default();
        let event = vec![b'x'; 1 << 20];
        assert!((0..20).any(|_| ledger.take(&event).is_err()));
    }
}
