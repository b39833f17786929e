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
    itl: None,
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
fn chunks_become_as_large_as_a_token_may_wait_for() {
    let itl = Some(Duration::from_millis(50));
    let wide =
        Limits { context: 4096, blocks: 600, step_tokens: 512, mixed_prompt_tokens: 64, itl, ..LIMITS };
    let mut scheduler = Scheduler::new(wide);
    scheduler.enqueue(sequence(1, 4, 60));
    step(&mut scheduler);
    scheduler.enqueue(sequence(2, 4000, 1));
    let mut rows = Vec::new();
    for _ in 0..20 {
        let placed = step(&mut scheduler);
        let prompt = placed.iter().find(|(id, ..)| *id == 2).map_or(0, |(.., rows)| *rows);
        rows.push(prompt);
        scheduler.took(Duration::from_micros(10_000 + 200 * prompt as u64));
    }
    assert_eq!(rows[0], 64);
    let last = rows[rows.len() - 3];
    assert!((180..=190).contains(&last), "0.95 of 50 ms is 187 rows: {rows:?}");
    assert_eq!(scheduler.prefilling_tokens(), 4000 - rows.iter().sum::<usize>());
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
