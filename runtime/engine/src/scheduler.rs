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
use crate::queue::Queue;
use crate::request::RequestId;
use crate::sequence::{Sequence, Start};
use crate::speculation::DraftLimits;
use crate::state::{Origin, RunningState, Save, StateLimits};

/// How much runs at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Longest sequence, tokens. All of it fits into `blocks`.
    pub context: usize,
    /// Blocks of the cache.
    pub blocks: usize,
    /// Rows of one step. A step has at least one row of each running sequence all the same.
    pub step_tokens: usize,
    /// Rows of prompts in a step in which somebody decodes.
    pub mixed_prompt_tokens: usize,
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

impl Limits {
    /// Rows that prompts may have beside `decoding` sequences. However many these are, the first prompt goes on, if
    /// slowly.
    fn prompt_rows(&self, decoding: usize) -> usize {
        let most = if decoding > 0 { self.mixed_prompt_tokens } else { self.step_tokens };
        self.step_tokens.saturating_sub(decoding).min(most).max(1)
    }
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
        let mut prompt_rows = self.limits.prompt_rows(decoding);
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
mod tests {
    use super::*;
    use crate::request::Request;

    fn sequence(id: u64, prompt: usize, max_tokens: usize) -> Sequence {
        Sequence::new(RequestId(id), Request::new(vec![1; prompt], max_tokens))
    }

    const LIMITS: Limits = Limits {
        context: 64,
        blocks: 6,
        step_tokens: 20,
        mixed_prompt_tokens: 20,
        max_running: 3,
        max_waiting: 9,
        max_waiting_tokens: 900,
        prefix_cache: false,
        states: None,
        drafts: None,
    };
    const CACHED: Limits = Limits { prefix_cache: true, ..LIMITS };

    /// One step as (request, first position, rows) in batch order; generated tokens are 7.
    fn step(scheduler: &mut Scheduler) -> Vec<(u64, usize, usize)> {
        let (mut batch, mut wanted) = (Batch::default(), Vec::new());
        scheduler.schedule(&mut batch, &mut wanted);
        assert_eq!(batch.logit_rows.len(), wanted.len());
        let mut written = batch.slots.clone();
        written.sort_unstable();
        assert!(written.windows(2).all(|pair| pair[0] < pair[1]), "no place of the cache is written twice");
        let described = batch.sequences.iter().map(|rows| {
            let table = &batch.tables[rows.table.clone()];
            let owner = scheduler.running.iter().find(|s| s.table == table).expect("the rows are somebody's");
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
        assert_eq!(scheduler.blocks_held().0, 1);
        assert_eq!(step(&mut scheduler), [(1, 7, 1)]);
        assert_eq!(scheduler.blocks_held(), (0, 6));
        assert_eq!(step(&mut scheduler), []);
    }

    #[test]
    fn prompts_take_smaller_chunks_beside_who_decodes() {
        let mut scheduler = Scheduler::new(Limits { mixed_prompt_tokens: 6, ..LIMITS });
        scheduler.enqueue(sequence(1, 4, 3));
        scheduler.enqueue(sequence(2, 30, 2));
        assert_eq!(step(&mut scheduler), [(1, 0, 4), (2, 0, 16)]);
        scheduler.enqueue(sequence(3, 5, 1));
        assert_eq!(step(&mut scheduler), [(1, 4, 1), (2, 16, 6)]);
        assert_eq!(step(&mut scheduler), [(1, 5, 1), (2, 22, 6)]);
        assert_eq!(step(&mut scheduler), [(2, 28, 2), (3, 0, 5)], "nobody decodes any more");
        assert_eq!(step(&mut scheduler), [(2, 30, 1)]);
    }

    #[test]
    fn the_queue_waits_for_its_head() {
        let mut scheduler = Scheduler::new(LIMITS);
        scheduler.enqueue(sequence(1, 33, 1));
        scheduler.enqueue(sequence(2, 49, 1));
        scheduler.enqueue(sequence(3, 1, 1));
        // 3 blocks are taken, 3 are left: the second needs 4, and the third does not overtake it.
        assert_eq!(step(&mut scheduler), [(1, 0, 20)]);
        assert_eq!((scheduler.waiting().len(), scheduler.running_count()), (2, 1));
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
        assert_eq!(scheduler.waiting().len(), 0);
        scheduler.remove(RequestId(1));
        assert_eq!(scheduler.blocks_held().0, 0);
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
        assert_eq!(scheduler.counts().preemptions, 0);
        assert_eq!(step(&mut scheduler), [(1, 18, 1)]);
        assert_eq!((scheduler.counts().preemptions, scheduler.waiting().len()), (1, 1));
        for first in 19..22 {
            assert_eq!(step(&mut scheduler), [(1, first, 1)]);
        }
        assert_eq!(step(&mut scheduler), [(2, 0, 17)]);
        assert_eq!((scheduler.blocks_held().0, scheduler.waiting().len()), (0, 0));
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

    #[test]
    fn what_one_computes_others_take_over_in_the_same_step() {
        let mut scheduler = Scheduler::new(CACHED);
        for id in 1..=3 {
            scheduler.enqueue(sequence(id, 40, 2));
        }
        // Three times three blocks were more than there are; two of each are shared.
        assert_eq!(step(&mut scheduler), [(1, 0, 20)]);
        assert_eq!(step(&mut scheduler), [(1, 20, 20)]);
        assert_eq!(step(&mut scheduler), [(1, 40, 1), (2, 32, 8), (3, 32, 8)]);
        assert_eq!(scheduler.counts().cached_tokens, 64);
        assert_eq!(step(&mut scheduler), [(2, 40, 1), (3, 40, 1)]);
        assert_eq!(scheduler.blocks_held(), (0, 6));

        // What they left is still there, but for the last token, whose logits somebody must compute.
        scheduler.enqueue(sequence(4, 32, 1));
        assert_eq!(step(&mut scheduler), [(4, 16, 16)]);
    }

    #[test]
    fn other_scopes_and_scored_prompts_share_nothing() {
        let mut scheduler = Scheduler::new(CACHED);
        scheduler.enqueue(sequence(1, 18, 1));
        assert_eq!(step(&mut scheduler), [(1, 0, 18)]);
        let request = Request::new(vec![1; 18], 1);
        scheduler.enqueue(Sequence::new(RequestId(2), Request { cache_scope: 5, ..request.clone() }));
        assert_eq!(step(&mut scheduler), [(2, 0, 18)]);
        scheduler.enqueue(sequence(3, 18, 1));
        assert_eq!(step(&mut scheduler), [(3, 16, 2)]);
        let mut scored = Sequence::new(RequestId(4), Request { prompt_logprobs: Some(0), ..request });
        let (mut batch, mut wanted) = (Batch::default(), Vec::new());
        scheduler.enqueue(std::mem::replace(&mut scored, sequence(5, 1, 1)));
        scheduler.schedule(&mut batch, &mut wanted);
        assert_eq!((batch.rows(), wanted.len()), (18, 18));
    }

    #[test]
    fn a_preempted_sequence_finds_its_own_blocks_again() {
        let mut scheduler = Scheduler::new(Limits { context: 48, blocks: 3, step_tokens: 40, ..CACHED });
        scheduler.enqueue(sequence(1, 16, 9));
        let other = Request::new(vec![2; 15], 3);
        assert_eq!(step(&mut scheduler), [(1, 0, 16)]);
        scheduler.enqueue(Sequence::new(RequestId(2), other));
        assert_eq!(step(&mut scheduler), [(1, 16, 1), (2, 0, 15)]);
        assert_eq!(step(&mut scheduler), [(1, 17, 1), (2, 15, 1)]);
        // All three blocks are held, and the second sequence needs a fourth.
        for first in 18..24 {
            assert_eq!(step(&mut scheduler), [(1, first, 1)]);
        }
        assert_eq!(step(&mut scheduler), [(2, 16, 1)]);
        let counts = scheduler.counts();
        assert_eq!((counts.preemptions, counts.prompt_tokens), (1, 31));
        assert_eq!(counts.cached_tokens, 0, "its own blocks are no hit");
    }

    #[test]
    fn a_better_class_goes_first_and_takes_the_place_of_a_worse_one() {
        let mut scheduler = Scheduler::new(Limits { max_running: 1, ..LIMITS });
        let of_class = |id, priority| {
            let request = Request { priority, ..Request::new(vec![1; 4], 2) };
            Sequence::new(RequestId(id), request)
        };
        scheduler.enqueue(of_class(1, 9));
        assert_eq!(step(&mut scheduler), [(1, 0, 4)]);
        scheduler.enqueue(of_class(2, 9));
        scheduler.enqueue(of_class(3, 5));
        assert_eq!(step(&mut scheduler), [(3, 0, 4)]);
        assert_eq!(step(&mut scheduler), [(3, 4, 1)]);
        assert_eq!(step(&mut scheduler), [(1, 0, 5)]);
        assert_eq!(step(&mut scheduler), [(2, 0, 4)]);
        assert_eq!(scheduler.counts().preemptions, 1);
    }
}
