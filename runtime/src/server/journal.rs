//! The journal in a streamed answer: comments from which another rank can go on (`coterie_api::replay`).
//!
//! A step's events are written together with the entry of its tokens: whoever passes events on does so when their entry
//! has come. Events follow from the tokens alone, also where text is held back because it may become something else: a
//! rank that is given the tokens holds back the same. Only log probabilities do not follow from tokens. Therefore a step
//! after which some of them wait for their text is not told; its events wait for the next one after which none do.

use crate::generation::Generation;
use coterie_api::replay::{Begun, COMMENT, Entry};

/// What is yet to be told of an answer.
pub(super) struct Journal {
    begun: Begun,
    choices: Vec<Untold>,
}

/// What is yet to be told of one choice.
struct Untold {
    /// Tokens that are told.
    tokens: usize,
    /// It is told how many of its prompt's tokens were in the cache.
    cached: bool,
    /// Events that wait for their entry.
    events: String,
}

impl Journal {
    /// Tells of what comes behind what `generation` holds now of an answer that began so.
    pub fn new(begun: Begun, generation: &Generation) -> Journal {
        let untold = |choice| Untold {
            tokens: generation.tokens(choice).len(),
            cached: generation.cached_in(choice).is_some(),
            events: String::new(),
        };
        Journal { begun, choices: (0..generation.choices()).map(untold).collect() }
    }

    /// The opening is written.
    pub fn opened(&self, out: &mut String) {
        write(out, &Entry::Begun(self.begun.clone()));
    }

    /// `choice` has come on by a step. Writes its `events` together with the entry, or keeps them until it is `settled`.
    pub fn step(
        &mut self,
        out: &mut String,
        choice: usize,
        events: &str,
        settled: bool,
        generation: &Generation,
    ) {
        let untold = &mut self.choices[choice];
        untold.events.push_str(events);
        let tokens = &generation.tokens(choice)[untold.tokens..];
        // Before its first token there is nothing to go on from: its prompt will be scored again.
        if !settled || tokens.is_empty() {
            return;
        }
        out.push_str(&std::mem::take(&mut untold.events));
        let cached = generation.cached_in(choice).filter(|_| !untold.cached);
        untold.cached |= cached.is_some();
        untold.tokens += tokens.len();
        let prompt = cached.map(|_| generation.prompt_tokens() as u64);
        write(out, &Entry::Tokens { choice, tokens: tokens.to_vec(), cached, prompt });
    }

    /// Writes the events that no step told.
    pub fn rest(&mut self, out: &mut String) {
        self.choices.iter_mut().for_each(|untold| out.push_str(&std::mem::take(&mut untold.events)));
    }

    /// What ends the answer is written, and would be on every rank.
    pub fn ended(&self, out: &mut String) {
        write(out, &Entry::Ended);
    }
}

fn write(out: &mut String, entry: &Entry) {
    // An entry holds nothing that JSON cannot.
    let entry = serde_json::to_string(entry).unwrap_or_default();
    out.push_str(COMMENT);
    out.push_str(&entry);
    out.push_str("\n\n");
}
