//! Who computes in the next step. By class, and within a class first come, first served: of two running sequences the
//! first is never held up by the second. Decoding takes one row of the budget each; prompts share the rest in chunks,
//! and take less of it while somebody decodes: who waits for a next token waits for others' chunks too. What is over
//! goes to drafts ([`speculation`](crate::speculation)).
//!
//! A sequence is admitted when the cache has room for its tokens so far, and takes blocks as it grows. If none are
//! left, the last running sequence is preempted: it gives all its blocks back, waits in its old place, and later
//! computes its tokens again, prompt and answer alike, as far as they are not in the cache any more. The cache holds
//! at least one whole context, so the first always goes on, and every sequence becomes the first of its class: there
//! is no deadlock. A sequence also makes room for one of a better class.
//!
//! A full block is published when it is placed in a batch, so a sequence may take over blocks that one before it in
//! the very same batch computes.
//!
//! Where the model has running states ([`state`](crate::state)), a running sequence has a slot for its own, and what it
//! takes over ends where there is a snapshot of the state, too. A snapshot is numbered when the rows up to its place are
//! put in a batch, so that it, too, is there for those behind in the same batch. Chunks are not cut where one is made:
//! layers pass each end of a block one by one anyway, and another cut would make every short prompt take two steps.

use crate::batch::Batch;
use crate::block_pool::{BLOCK_SIZE, BlockPool, blocks_for};
use crate::chunks::Chunks;
use crate::queue::Queue;
use crate::request::RequestId;
use crate::sequence::{Sequence, Start};
use crate::speculation::DraftLimits;
use crate::state::{Origin, RunningState, Save, StateLimits};
use std::time::Duration;

/// How much runs at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Longest sequence, tokens. All of it fits into `blocks`.
    pub context: usize,
    /// Blocks of the cache.
    pub blocks: usize,
    /// Rows of one step. A step has at least one row of each running sequence all the same.
    pub step_tokens: usize,
    /// Rows of prompts in a step in which somebody decodes; with `itl` only at first.
    pub mixed_prompt_tokens: usize,
    /// How long steps with prompts are to take in which somebody decodes ([`chunks`](crate::chunks)).
    pub itl: Option<Duration>,
    /// Sequences in one batch at most.
    pub max_running: usize,
    /// Sequences that may wait at most.
    pub max_waiting: usize,
    /// Tokens that waiting sequences came with at most; one sequence may always wait.
    pub max_waiting_tokens: usize,
    /// May sequences take over what others computed?
    pub prefix_cache: bool,
    /// For a model with running states.
    pub states: Option<StateLimits>,
    /// What sequences may guess of their next tokens; none of it where absent.
    pub drafts: Option<DraftLimits>,
}

/// A row of logits that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Index among the running sequences.
    pub running: usize,
    /// Position of the row's token; the logits are about the token behind it.
    pub position: usize,
}

/// What was scheduled so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Prompt tokens put into batches, again after a preemption.
    pub prompt_tokens: u64,
    /// Sequences that started.
    pub started: u64,
    /// Prompt tokens of sequences that started.
    pub started_tokens: u64,
    /// Of these, tokens that were in the cache.
    pub cached_tokens: u64,
    /// How often a sequence gave its blocks up.
    pub preemptions: u64,
    /// Drafts that were computed: one a sequence and step.
    pub drafts: u64,
    /// Tokens in them.
    pub draft_tokens: u64,
    /// Of these, tokens that were generated then.
    pub accepted_tokens: u64,
}

/// What a step has left for drafts once everybody has his rows.
struct DraftRoom {
    limits: DraftLimits,
    rows: usize,
    /// Who may still want some of it.
    sequences: usize,
    blocks: usize,
}

/// The waiting and the running sequences, and the blocks that they hold.
#[derive(Debug)]
pub struct Scheduler {
    waiting: Queue,
    /// By rank.
    running: Vec<Sequence>,
    pool: BlockPool,
    /// State slots that nobody has; none where there are no running states.
    free_slots: Vec<u32>,
    limits: Limits,
    counts: Counts,
    chunks: Chunks,
    /// Rows of prompts in the step that was scheduled last, if somebody decodes in it.
    mixed: Option<usize>,
}

impl Scheduler {
    /// Nothing waits, nothing runs.
    pub fn new(limits: Limits) -> Scheduler {
        assert!(blocks_for(limits.context) <= limits.blocks, "the cache holds at least one whole context");
        assert!(limits.step_tokens > 0 && limits.max_running > 0, "a step does something");
        let slots = limits.states.map_or(0, |_| limits.max_running as u32);
        Scheduler {
            waiting: Queue::default(),
            running: Vec::new(),
            pool: BlockPool::new(limits.blocks, limits.states.map(|states| states.snapshots)),
            free_slots: (0..slots).rev().collect(),
            chunks: Chunks::new(limits.mixed_prompt_tokens, limits.itl, limits.step_tokens),
            mixed: None,
            limits,
            counts: Counts::default(),
        }
    }

    /// How much runs at once.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Sequences that wait.
    pub fn waiting(&self) -> &Queue {
        &self.waiting
    }

    /// Sequences that run, by rank.
    pub fn running(&mut self) -> &mut [Sequence] {
        &mut self.running
    }

    /// How many run.
    pub fn running_count(&self) -> usize {
        self.running.len()
    }

    /// Tokens that running sequences have yet to compute before their next one can be generated: of prompts, mostly.
    pub fn prefilling_tokens(&self) -> usize {
        self.running.iter().map(Sequence::remaining).filter(|remaining| *remaining > 1).sum()
    }

    /// Blocks that sequences hold, and blocks in all.
    pub fn blocks_held(&self) -> (usize, usize) {
        (self.pool.blocks() - self.pool.free(), self.pool.blocks())
    }

    /// What was scheduled so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Puts a sequence into the queue.
    pub fn enqueue(&mut self, sequence: Sequence) {
        self.waiting.push(sequence);
    }

    /// Takes a sequence out, wherever it is, and frees its blocks.
    pub fn remove(&mut self, id: RequestId) {
        if self.waiting.remove(id).is_none() {
            self.retire(|sequence| sequence.id == id);
        }
    }

    /// Takes out the running sequences that `done` names, and frees their blocks.
    pub fn retire(&mut self, done: impl Fn(&Sequence) -> bool) {
        let (pool, free_slots) = (&mut self.pool, &mut self.free_slots);
        self.running.retain_mut(|sequence| {
            let done = done(sequence);
            if done {
                pool.take_back(&mut sequence.table);
                free_slots.extend(sequence.state.map(|state| state.slot));
            }
            !done
        });
    }

    /// Takes what came true of the drafts for computed. To be called when the tokens of the scheduled step are known,
    /// before anything is taken out.
    pub fn settle(&mut self) {
        for sequence in &mut self.running {
            let [drafted, accepted] = sequence.settle();
            self.counts.drafts += u64::from(drafted > 0);
            self.counts.draft_tokens += drafted as u64;
            self.counts.accepted_tokens += accepted as u64;
            // A draft is never published before it is known to be text.
            while accepted > 0 && self.limits.prefix_cache && sequence.publish_next(&mut self.pool).is_some()
            {
            }
        }
    }

    /// Fills `batch` with what a draft module is to see of the settled step: the tokens that followed its rows, and in
    /// `seen` these rows. Behind its `logit_rows` go on the running sequences that `asking` lists.
    pub fn followers(&self, batch: &mut Batch, seen: &mut Vec<u32>, asking: &mut Vec<usize>) {
        batch.clear();
        seen.clear();
        asking.clear();
        for (running, sequence) in self.running.iter().enumerate() {
            let Some((row, position, tokens)) = sequence.followed() else { continue };
            batch.push(tokens, position, &sequence.table, BLOCK_SIZE);
            seen.extend((row..row + tokens.len()).map(|row| row as u32));
            if sequence.remaining() == 1 {
                batch.logit_rows.push(batch.rows() as u32 - 1);
                asking.push(running);
            }
        }
    }

    /// Fills `batch` with the next step's rows, and `wanted` with who waits for its `logit_rows`, one for one.
    pub fn schedule(&mut self, batch: &mut Batch, wanted: &mut Vec<Wanted>) {
        batch.clear();
        wanted.clear();
        self.admit();
        self.running.iter_mut().for_each(|sequence| sequence.placed = None);
        let decoding = self.running.iter().filter(|s| s.remaining() == 1).count();
        let may = self.prompt_rows(decoding);
        let mut prompt_rows = may;
        self.mixed = None;
        let mut draft_room = self.draft_room(decoding, prompt_rows);
        let mut next = 0;
        while next < self.running.len() {
            let was_decoding = self.running[next].remaining() == 1;
            // A snapshot may be gone in the next step: who begins from one must have rows in this.
            if self.limits.prefix_cache && (self.limits.states.is_none() || prompt_rows > 0) {
                self.running[next].share(&mut self.pool);
            }
            let remaining = self.running[next].remaining();
            let rows = if was_decoding { 1 } else { remaining.min(prompt_rows) };
            if rows > 0 {
                if !self.secure_blocks(next, rows) {
                    return;
                }
                prompt_rows -= if was_decoding { 0 } else { rows };
                if was_decoding && let Some(room) = &mut draft_room {
                    self.draft(next, room);
                }
                self.place(next, rows, batch, wanted);
            }
            next += 1;
        }
        self.mixed = (decoding > 0).then_some(may - prompt_rows);
    }

    /// The step that was scheduled last took so long, all in all.
    pub fn took(&mut self, time: Duration) {
        if let Some(prompt_rows) = self.mixed.take() {
            self.chunks.took(prompt_rows, time);
        }
    }

    /// Rows that prompts may have beside `decoding` sequences. However many these are, the first prompt goes on, if
    /// slowly.
    fn prompt_rows(&self, decoding: usize) -> usize {
        let most = if decoding > 0 { self.chunks.rows() } else { self.limits.step_tokens };
        self.limits.step_tokens.saturating_sub(decoding).min(most).max(1)
    }

    /// Moves the first of the queue into the batch while there is room for it beside what the running prompts still
    /// need, and makes it from those of a worse class.
    fn admit(&mut self) {
        let mut free = self.room();
        while let Some(first) = self.waiting.first() {
            let rank = first.rank();
            let mut needed = first.blocks_needed();
            if needed > free && self.limits.prefix_cache {
                needed -= first.held_by_others(&self.pool);
            }
            if self.running.len() < self.limits.max_running && needed <= free {
                free -= needed;
                let mut first = self.waiting.pop_first().expect("it was just looked at");
                first.state = self.free_slots.pop().map(|slot| RunningState { slot, origin: Origin::Zero });
                let place = self.running.partition_point(|sequence| sequence.rank() < rank);
                self.running.insert(place, first);
            } else if self.running.last().is_some_and(|last| last.rank().priority > rank.priority) {
                self.preempt_last();
                free = self.room();
            } else {
                return;
            }
        }
    }

    /// Free blocks beside those that the running prompts still need.
    fn room(&self) -> usize {
        let lacking = |s: &Sequence| s.blocks_needed().saturating_sub(s.table.len());
        self.pool.free().saturating_sub(self.running.iter().map(lacking).sum())
    }

    /// Gives a running sequence the blocks for its next `rows` tokens, preempting later ones if it must. False if it
    /// had to give up its own, being the last. Those before it in the batch stay.
    fn secure_blocks(&mut self, running: usize, rows: usize) -> bool {
        loop {
            let sequence = &mut self.running[running];
            if self.pool.extend(&mut sequence.table, blocks_for(sequence.computed + rows)) {
                return true;
            }
            self.preempt_last();
            if self.running.len() == running {
                return false;
            }
        }
    }

    fn preempt_last(&mut self) {
        if let Some(mut last) = self.running.pop() {
            self.free_slots.extend(last.state.map(|state| state.slot));
            last.restart(&mut self.pool);
            self.waiting.push(last);
            self.counts.preemptions += 1;
        }
    }

    /// What is left for drafts beside `decoding` sequences and the prompts that have `prompt_rows` rows together.
    fn draft_room(&self, decoding: usize, prompt_rows: usize) -> Option<DraftRoom> {
        let limits = self.limits.drafts?;
        let prompts = self.running.iter().map(Sequence::remaining).filter(|remaining| *remaining > 1);
        let taken = decoding + prompts.sum::<usize>().min(prompt_rows);
        let rows = limits.rows.saturating_sub(decoding).min(self.limits.step_tokens.saturating_sub(taken));
        Some(DraftRoom { limits, rows, sequences: decoding, blocks: self.room() })
    }

    /// Lets a running sequence that decodes guess what comes behind its next row, as far as there is room to compute it.
    fn draft(&mut self, running: usize, room: &mut DraftRoom) {
        let share = room.rows.div_ceil(room.sequences);
        room.sequences -= 1;
        let sequence = &mut self.running[running];
        let (position, held) = (sequence.computed, sequence.table.len());
        let to_come = sequence.request.max_tokens.saturating_sub(sequence.generated());
        if to_come == 0 {
            return;
        }
        let most = room.limits.tokens.min(share).min(to_come - 1);
        let mut most = most.min((held + room.blocks) * BLOCK_SIZE - (position + 1));
        if sequence.state.is_some() {
            // Only rows of a block that is not full can be taken back, and a row that fills one may make a snapshot.
            most = most.min((BLOCK_SIZE - 2).saturating_sub(position % BLOCK_SIZE));
        }
        let drafted = sequence.draft(most, &room.limits);
        let blocks = blocks_for(position + 1 + drafted);
        room.rows -= drafted;
        room.blocks -= blocks.saturating_sub(held);
        let extended = self.pool.extend(&mut sequence.table, blocks);
        debug_assert!(extended, "these blocks were free and nobody else's");
    }

    /// Adds the next `rows` tokens of a running sequence to the batch, and its draft.
    fn place(&mut self, running: usize, rows: usize, batch: &mut Batch, wanted: &mut Vec<Wanted>) {
        let sequence = &mut self.running[running];
        let (from, to) = (sequence.computed, sequence.computed + rows);
        let first = batch.push(&sequence.tokens[from..to], from, &sequence.table, BLOCK_SIZE);
        batch.extend(sequence.drafted(), BLOCK_SIZE);
        sequence.placed = Some((first, from));
        for position in from..to + sequence.drafted().len() {
            if sequence.wants_logits(position) {
                batch.logit_rows.push((first + position - from) as u32);
                wanted.push(Wanted { running, position });
            }
        }
        let prompt = sequence.request.prompt.len();
        if sequence.start == Start::Ahead {
            let cached = from.min(prompt);
            sequence.start = Start::Now(cached);
            self.counts.started += 1;
            self.counts.started_tokens += prompt as u64;
            self.counts.cached_tokens += cached as u64;
        }
        sequence.computed = to;
        self.counts.prompt_tokens += prompt.clamp(from, to).abs_diff(from) as u64;
        let first_save = batch.saves.len();
        if self.limits.prefix_cache {
            while let Some((tokens, name)) = sequence.publish_next(&mut self.pool) {
                if self.limits.states.is_some_and(|states| states.is_due(tokens, sequence.tokens.len()))
                    && let Some(snapshot) = self.pool.make_snapshot(name)
                {
                    batch.saves.push(Save { tokens, snapshot });
                }
            }
        }
        if let Some(state) = &mut sequence.state {
            batch.push_state(*state, first_save);
            state.origin = Origin::Slot;
        }
    }
}

#[cfg(test)]
mod tests;
