//! A request inside the engine: its tokens so far, and how many of them the model has seen.

use crate::block_pool::{BLOCK_SIZE, BlockPool, blocks_for};
use crate::penalties::Seen;
use crate::prefix::{BlockTokens, Prefix};
use crate::request::{Finish, Request, RequestId, TokenLogprobs};
use crate::speculation::{DraftLimits, Speculation};
use crate::state::{Origin, RunningState};

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
    /// What its penalties are about.
    pub seen: Seen,
    /// Has it been in a batch, and if so, how many of its tokens were computed by others before?
    pub start: Start,
    /// Its last event is out; the step's end takes it away.
    pub ended: bool,
    /// Its running state while it runs, if the model has such.
    pub state: Option<RunningState>,
    /// What it guesses, once it has begun to.
    pub speculation: Option<Speculation>,
    /// Its first row in the step's batch and the position of that, if it has any.
    pub placed: Option<(usize, usize)>,
    /// Blocks of `table` that are full and have a name.
    named: usize,
    /// The name of the tokens in them.
    prefix: Prefix,
}

/// How far a sequence is from its first place in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It has had none.
    Ahead,
    /// It has one in this step; so many of its tokens were in the cache.
    Now(usize),
    /// It has had one, and that is told.
    Told,
}

/// Who goes first: the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Its class.
    pub priority: u8,
    /// When it came.
    pub id: RequestId,
}

impl Sequence {
    /// A request that has not started.
    pub fn new(id: RequestId, request: Request) -> Sequence {
        Sequence {
            id,
            tokens: [&request.prompt[..], &request.generated].concat(),
            computed: 0,
            table: Vec::new(),
            // Nothing predicts the first token. Once there is an answer, they are told.
            prompt_scores: request
                .prompt_logprobs
                .filter(|_| request.generated.is_empty())
                .map(|_| vec![None]),
            seen: Seen::of(&request),
            start: Start::Ahead,
            ended: false,
            state: None,
            speculation: None,
            placed: None,
            named: 0,
            prefix: Prefix::Empty { scope: request.cache_scope },
            request,
        }
    }

    /// Its place among others.
    pub fn rank(&self) -> Rank {
        Rank { priority: self.request.priority, id: self.id }
    }

    /// Tokens of the answer so far, those that it came with included.
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

    /// Takes over what others computed for the same beginning, as far as there is any. At least one token is left
    /// for it to compute: its logits are in no block.
    ///
    /// One with a running state goes on from a snapshot of it, which stays what it is only until the batch is
    /// computed: its next rows must be in this one.
    pub fn share(&mut self, pool: &mut BlockPool) {
        let most = match self.state {
            Some(_) => self.shareable(pool, BlockPool::find),
            None => usize::MAX,
        };
        for _ in 0..most {
            let Some(tokens) = self.next_shareable() else { break };
            let Some(longer) = pool.share(&mut self.table, self.prefix, &tokens) else { break };
            self.prefix = longer;
            self.named += 1;
            self.computed += BLOCK_SIZE;
        }
        if most > 0
            && let Some(state) = &mut self.state
        {
            let snapshot = pool.take_snapshot(self.prefix);
            state.origin = Origin::Snapshot(snapshot.expect("what is shareable ends with a snapshot"));
        }
    }

    /// Blocks that it could take over and that somebody else holds: those need no room of its own.
    pub fn held_by_others(&self, pool: &BlockPool) -> usize {
        self.shareable(pool, BlockPool::held_by_others)
    }

    /// How many of the next blocks it could take over: as many as `find` finds, up to the last behind which it could
    /// go on.
    fn shareable(
        &self,
        pool: &BlockPool,
        find: impl Fn(&BlockPool, Prefix, &BlockTokens) -> Option<Prefix>,
    ) -> usize {
        let (mut prefix, mut found, mut whole) = (self.prefix, 0, 0);
        while let Some(tokens) = self.shareable_at(self.computed + found * BLOCK_SIZE)
            && let Some(longer) = find(pool, prefix, &tokens)
        {
            (prefix, found) = (longer, found + 1);
            if pool.is_whole(prefix) {
                whole = found;
            }
        }
        whole
    }

    /// Publishes the next block that has become full, and says how many tokens there are up to its end, and their
    /// name.
    pub fn publish_next(&mut self, pool: &mut BlockPool) -> Option<(usize, Prefix)> {
        let tokens = block_at(&self.tokens[..self.computed], self.named * BLOCK_SIZE)?;
        self.prefix = pool.publish(self.table[self.named], self.prefix, &tokens);
        self.named += 1;
        Some((self.named * BLOCK_SIZE, self.prefix))
    }

    /// The draft module guesses that `token` follows.
    pub fn set_next(&mut self, token: u32) {
        self.speculation.get_or_insert_with(Speculation::by_module).set_next(Some(token));
    }

    /// Guesses what follows, and says how much of it is to be computed behind the last token: at most `most` tokens,
    /// as far as they are worth it.
    pub fn draft(&mut self, most: usize, limits: &DraftLimits) -> usize {
        let longest = self.request.prompt.len() + self.request.max_tokens;
        let speculation = self.speculation.get_or_insert_with(|| match limits.module {
            true => Speculation::by_module(),
            false => Speculation::by_lookup(longest),
        });
        speculation.draft(&self.tokens, most, limits.worth)
    }

    /// The tokens that the step computes behind the known ones.
    pub fn drafted(&self) -> &[u32] {
        self.speculation.as_ref().map_or(&[], Speculation::drafted)
    }

    /// The step is done: what came of the draft is computed. Returns how many tokens were drafted, and how many came.
    pub fn settle(&mut self) -> [usize; 2] {
        let Some(speculation) = &mut self.speculation else { return [0; 2] };
        let came = &self.tokens[self.computed..];
        let drafted = speculation.judge(came);
        // The last of what came was never in a batch.
        let accepted = came.len().saturating_sub(1).min(drafted);
        self.computed += accepted;
        [drafted, accepted]
    }

    /// The rows of the step that a draft module is to see: the first, its position, and the tokens that follow each. Of
    /// the last token none follows yet.
    pub fn followed(&self) -> Option<(usize, usize, &[u32])> {
        let (row, position) = self.placed.filter(|_| !self.ended)?;
        let end = self.computed.min(self.tokens.len() - 1);
        (position < end).then(|| (row, position, &self.tokens[position + 1..=end]))
    }

    /// Gives all blocks up and forgets what was computed, to compute it again from the first token. Its state slot, if
    /// it has one, is somebody else's from then on.
    pub fn restart(&mut self, pool: &mut BlockPool) {
        pool.take_back(&mut self.table);
        self.computed = 0;
        self.named = 0;
        self.state = None;
        self.placed = None;
        if let Some(speculation) = &mut self.speculation {
            speculation.set_next(None);
        }
        self.prefix = Prefix::Empty { scope: self.request.cache_scope };
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
        self.request.finish(*self.tokens.last()?, self.generated())
    }

    /// The tokens of the next block, if all before are in whole blocks with names.
    fn next_shareable(&self) -> Option<BlockTokens> {
        (self.computed == self.named * BLOCK_SIZE).then(|| self.shareable_at(self.computed)).flatten()
    }

    fn shareable_at(&self, from: usize) -> Option<BlockTokens> {
        // A prompt that is scored needs the logits of all its tokens.
        let last = if self.prompt_scores.is_some() { 0 } else { self.tokens.len() - 1 };
        block_at(&self.tokens[..last], from)
    }
}

fn block_at(tokens: &[u32], from: usize) -> Option<BlockTokens> {
    tokens.get(from..from + BLOCK_SIZE)?.try_into().ok()
}
