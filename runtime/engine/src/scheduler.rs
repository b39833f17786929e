//! Who computes in the next step. First come, first served: the older of two running sequences is never held up by
//! the younger. Decoding takes one row of the budget each; prompts share the rest in chunks.
//!
//! A sequence is admitted when the cache has room for its tokens so far, and takes blocks as it grows. If none are
//! left, the youngest running sequence is preempted: it gives all its blocks back, waits at the head of the queue, and
//! later computes its tokens again, prompt and answer alike. The cache holds at least one whole context, so the oldest
//! always goes on, and every sequence becomes the oldest: there is no deadlock.

use crate::batch::Batch;
use crate::block_pool::{BLOCK_SIZE, BlockPool, blocks_for};
use crate::request::RequestId;
use crate::sequence::Sequence;
use std::collections::VecDeque;

/// How much runs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest sequence, tokens. All of it fits into `blocks`.
    pub context: usize,
    /// Blocks of the cache.
    pub blocks: usize,
    /// Rows of one step. A step has at least one row of each running sequence all the same.
    pub step_tokens: usize,
    /// Sequences in one batch at most.
    pub max_running: usize,
    /// Sequences that may wait at most.
    pub max_waiting: usize,
}

/// A row of logits that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Index among the running sequences.
    pub running: usize,
    /// Position of the row's token; the logits are about the token behind it.
    pub position: usize,
}

/// The waiting and the running sequences, and the blocks that they hold.
#[derive(Debug)]
pub struct Scheduler {
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    pool: BlockPool,
    limits: Limits,
    prompt_tokens: u64,
    preemptions: u64,
}

impl Scheduler {
    /// Nothing waits, nothing runs.
    pub fn new(limits: Limits) -> Scheduler {
        assert!(blocks_for(limits.context) <= limits.blocks, "the cache holds at least one whole context");
        assert!(limits.step_tokens > 0 && limits.max_running > 0, "a step does something");
        Scheduler {
            waiting: VecDeque::new(),
            running: Vec::new(),
            pool: BlockPool::new(limits.blocks),
            limits,
            prompt_tokens: 0,
            preemptions: 0,
        }
    }

    /// How much runs at once.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Sequences that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sequences that run, in the order in which they came.
    pub fn running(&mut self) -> &mut [Sequence] {
        &mut self.running
    }

    /// How many run.
    pub fn running_count(&self) -> usize {
        self.running.len()
    }

    /// Blocks in use, and blocks in all.
    pub fn blocks_used(&self) -> (usize, usize) {
        (self.pool.blocks() - self.pool.free(), self.pool.blocks())
    }

    /// Prompt tokens put into batches so far.
    pub fn prompt_tokens(&self) -> u64 {
        self.prompt_tokens
    }

    /// How often a sequence gave its blocks up to an older one.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// Puts a sequence at the end of the queue.
    pub fn enqueue(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    /// Takes a sequence out, wherever it is, and frees its blocks.
    pub fn remove(&mut self, id: RequestId) {
        if let Some(at) = self.waiting.iter().position(|s| s.id == id) {
            self.waiting.remove(at);
        }
        self.retire(|sequence| sequence.id == id);
    }

    /// Takes out the running sequences that `done` names, and frees their blocks.
    pub fn retire(&mut self, done: impl Fn(&Sequence) -> bool) {
        let pool = &mut self.pool;
        self.running.retain_mut(|sequence| {
            let done = done(sequence);
            if done {
                pool.take_back(&mut sequence.table);
            }
            !done
        });
    }

    /// Fills `batch` with the next step's rows, and `wanted` with who waits for its `logit_rows`, one for one.
    pub fn schedule(&mut self, batch: &mut Batch, wanted: &mut Vec<Wanted>) {
        batch.clear();
        wanted.clear();
        self.admit();
        // A sequence that waits for its next token only must not wait for others' prompts; and however many decode,
        // the oldest prompt goes on, if slowly.
        let decoding = self.running.iter().filter(|s| s.remaining() == 1).count();
        let mut prompt_rows = self.limits.step_tokens.saturating_sub(decoding).max(1);
        let mut next = 0;
        while next < self.running.len() {
            let remaining = self.running[next].remaining();
            let rows = if remaining == 1 { 1 } else { remaining.min(prompt_rows) };
            if rows > 0 {
                if !self.secure_blocks(next, rows) {
                    return;
                }
                prompt_rows -= if remaining == 1 { 0 } else { rows };
                self.place(next, rows, batch, wanted);
            }
            next += 1;
        }
    }

    /// Moves the queue's head into the batch while there is room for it beside what the running prompts still need.
    fn admit(&mut self) {
        let lacking = |s: &Sequence| s.blocks_needed().saturating_sub(s.table.len());
        let mut free = self.pool.free().saturating_sub(self.running.iter().map(lacking).sum());
        while self.running.len() < self.limits.max_running
            && let Some(first) = self.waiting.pop_front_if(|first| first.blocks_needed() <= free)
        {
            free = free.saturating_sub(first.blocks_needed());
            self.running.push(first);
        }
    }

    /// Gives a running sequence the blocks for its next `rows` tokens, preempting younger ones if it must. False if
    /// it had to give up its own, being the youngest. Those before it in the batch are older and stay.
    fn secure_blocks(&mut self, running: usize, rows: usize) -> bool {
        loop {
            let sequence = &mut self.running[running];
            if self.pool.extend(&mut sequence.table, blocks_for(sequence.computed + rows)) {
                return true;
            }
            let mut youngest = self.running.pop().expect("the sequence itself is running");
            self.pool.take_back(&mut youngest.table);
            youngest.restart();
            self.waiting.push_front(youngest);
            self.preemptions += 1;
            if self.running.len() == running {
                return false;
            }
        }
    }

    /// Adds the next `rows` tokens of a running sequence to the batch.
    fn place(&mut self, running: usize, rows: usize, batch: &mut Batch, wanted: &mut Vec<Wanted>) {
        let sequence = &mut self.running[running];
        let (from, to) = (sequence.computed, sequence.computed + rows);
        let first = batch.push(&sequence.tokens[from..to], from, &sequence.table, BLOCK_SIZE);
        for position in from..to {
            if sequence.wants_logits(position) {
                batch.logit_rows.push((first + position - from) as u32);
                wanted.push(Wanted { running, position });
            }
        }
        sequence.computed = to;
        self.prompt_tokens += sequence.request.prompt.len().clamp(from, to).abs_diff(from) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Request, Sampling};

    fn sequence(id: u64, prompt: usize, max_tokens: usize) -> Sequence {
        let request = Request {
            prompt: vec![1; prompt],
            max_tokens,
            sampling: Sampling { temperature: 0.0, top_p: 1.0, seed: 0 },
            stop_tokens: Vec::new(),
            top_logprobs: None,
            prompt_logprobs: None,
        };
        Sequence::new(RequestId(id), request)
    }

    const LIMITS: Limits = Limits { context: 64, blocks: 6, step_tokens: 20, max_running: 3, max_waiting: 9 };

    /// One step as (request, first position, rows) in batch order; generated tokens are 7.
    fn step(scheduler: &mut Scheduler) -> Vec<(u64, usize, usize)> {
        let (mut batch, mut wanted) = (Batch::default(), Vec::new());
        scheduler.schedule(&mut batch, &mut wanted);
        assert_eq!(batch.logit_rows.len(), wanted.len());
        let mut taken: Vec<u32> = scheduler.running.iter().flat_map(|s| s.table.clone()).collect();
        taken.sort_unstable();
        assert!(taken.windows(2).all(|pair| pair[0] < pair[1]), "no block is held twice");
        let described = batch.sequences.iter().map(|rows| {
            let owner = scheduler
                .running
                .iter()
                .find(|s| s.table.first() == batch.tables.get(rows.table.start))
                .expect("the rows are somebody's");
            (owner.id.0, rows.context - rows.rows.len(), rows.rows.len())
        });
        let described = described.collect();
        for Wanted { running, position } in wanted {
            assert_eq!(position + 1, scheduler.running[running].tokens.len());
            scheduler.running[running].tokens.push(7);
        }
        scheduler.retire(|s| s.generated() > 0 && s.finish().is_some());
        described
    }

    #[test]
    fn prompts_are_cut_into_chunks_and_mixed_with_decoding() {
        let mut scheduler = Scheduler::new(LIMITS);
        scheduler.enqueue(sequence(1, 4, 5));
        scheduler.enqueue(sequence(2, 30, 2));
        assert_eq!(step(&mut scheduler), [(1, 0, 4), (2, 0, 16)]);
        assert_eq!(step(&mut scheduler), [(1, 4, 1), (2, 16, 14)]);
        assert_eq!(step(&mut scheduler), [(1, 5, 1), (2, 30, 1)]);
        assert_eq!(step(&mut scheduler), [(1, 6, 1)]);
        assert_eq!(scheduler.blocks_used().0, 1);
        assert_eq!(step(&mut scheduler), [(1, 7, 1)]);
        assert_eq!(scheduler.blocks_used(), (0, 6));
        assert_eq!(step(&mut scheduler), []);
    }

    #[test]
    fn the_queue_waits_for_its_head() {
        let mut scheduler = Scheduler::new(LIMITS);
        scheduler.enqueue(sequence(1, 33, 1));
        scheduler.enqueue(sequence(2, 49, 1));
        scheduler.enqueue(sequence(3, 1, 1));
        // 3 blocks are taken, 3 are left: the second needs 4, and the third does not overtake it.
        assert_eq!(step(&mut scheduler), [(1, 0, 20)]);
        assert_eq!((scheduler.waiting(), scheduler.running_count()), (2, 1));
        assert_eq!(step(&mut scheduler), [(1, 20, 13)]);
        assert_eq!(step(&mut scheduler), [(2, 0, 19), (3, 0, 1)]);
    }

    #[test]
    fn a_cancelled_sequence_leaves_its_blocks_at_once() {
        let mut scheduler = Scheduler::new(LIMITS);
        scheduler.enqueue(sequence(1, 33, 31));
        scheduler.enqueue(sequence(2, 40, 20));
        step(&mut scheduler);
        scheduler.remove(RequestId(2));
        assert_eq!(scheduler.waiting(), 0);
        scheduler.remove(RequestId(1));
        assert_eq!(scheduler.blocks_used().0, 0);
        assert_eq!(scheduler.pool.free(), 6);
    }

    /// Two sequences outgrow the cache: the younger gives way, and starts again when the older is done.
    #[test]
    fn the_youngest_is_preempted_and_computes_its_tokens_again() {
        let mut scheduler = Scheduler::new(Limits { context: 48, blocks: 3, ..LIMITS });
        scheduler.enqueue(sequence(1, 15, 8));
        scheduler.enqueue(sequence(2, 14, 4));
        assert_eq!(step(&mut scheduler), [(1, 0, 15), (2, 0, 5)]);
        assert_eq!(step(&mut scheduler), [(1, 15, 1), (2, 5, 9)]);
        assert_eq!(step(&mut scheduler), [(1, 16, 1), (2, 14, 1)]);
        assert_eq!(step(&mut scheduler), [(1, 17, 1), (2, 15, 1)]);
        // The third block goes to the older, so there is none for the younger's 17th token.
        assert_eq!(scheduler.preemptions(), 0);
        assert_eq!(step(&mut scheduler), [(1, 18, 1)]);
        assert_eq!((scheduler.preemptions(), scheduler.waiting()), (1, 1));
        for first in 19..22 {
            assert_eq!(step(&mut scheduler), [(1, first, 1)]);
        }
        assert_eq!(step(&mut scheduler), [(2, 0, 17)]);
        assert_eq!((scheduler.blocks_used().0, scheduler.waiting()), (0, 0));
    }

    #[test]
    fn a_full_batch_of_decoding_does_not_starve_a_prompt() {
        let mut scheduler = Scheduler::new(Limits { step_tokens: 2, ..LIMITS });
        scheduler.enqueue(sequence(1, 1, 9));
        scheduler.enqueue(sequence(2, 1, 9));
        scheduler.enqueue(sequence(3, 3, 1));
        assert_eq!(step(&mut scheduler), [(1, 0, 1), (2, 0, 1), (3, 0, 1)]);
        assert_eq!(step(&mut scheduler), [(1, 1, 1), (2, 1, 1), (3, 1, 1)]);
    }
}
