//! A request inside the engine: its tokens so far, and how many of them the model has seen.

use crate::block_pool::blocks_for;
use crate::request::{Finish, Request, RequestId, TokenLogprobs};

/// A request that waits or runs.
#[derive(Debug)]
pub struct Sequence {
    /// Its name.
    pub id: RequestId,
    /// What was asked.
    pub request: Request,
    /// Prompt and generated tokens.
    pub tokens: Vec<u32>,
    /// How many of `tokens` are in the cache.
    pub computed: usize,
    /// Blocks of the cache that it holds, in order.
    pub table: Vec<u32>,
    /// The prompt's log probabilities as far as they are known; none if they were not asked for, or are sent.
    pub prompt_scores: Option<Vec<Option<TokenLogprobs>>>,
    /// Its last event is out; the step's end takes it away.
    pub ended: bool,
}

impl Sequence {
    /// A request that has not started.
    pub fn new(id: RequestId, request: Request) -> Sequence {
        let tokens = request.prompt.clone();
        // Nothing predicts the first token.
        let prompt_scores = request.prompt_logprobs.map(|_| vec![None]);
        Sequence { id, request, tokens, computed: 0, table: Vec::new(), prompt_scores, ended: false }
    }

    /// Tokens generated.
    pub fn generated(&self) -> usize {
        self.tokens.len() - self.request.prompt.len()
    }

    /// Tokens that the model has yet to see before the next one can be chosen.
    pub fn remaining(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Blocks with which it can go on to its next token and the one after.
    pub fn blocks_needed(&self) -> usize {
        blocks_for((self.tokens.len() + 1).min(self.request.prompt.len() + self.request.max_tokens))
    }

    /// Forgets what was computed, to compute it again from the first token.
    pub fn restart(&mut self) {
        self.computed = 0;
        if let Some(scores) = &mut self.prompt_scores {
            scores.truncate(1);
        }
    }

    /// Are logits wanted at `position`, that is, for choosing or scoring the token behind it?
    pub fn wants_logits(&self, position: usize) -> bool {
        if position + 1 < self.tokens.len() {
            self.prompt_scores.is_some() && position + 1 < self.request.prompt.len()
        } else {
            self.generated() < self.request.max_tokens
        }
    }

    /// Why the sequence ends with the token just generated, if it does.
    pub fn finish(&self) -> Option<Finish> {
        let last = self.tokens.last()?;
        if self.request.stop_tokens.contains(last) {
            return Some(Finish::Stop);
        }
        (self.generated() >= self.request.max_tokens).then_some(Finish::Length)
    }
}
