//! What a row of logits means to its sequence: a scored prompt token, or the next token. Both become events.

use crate::model::Logits;
use crate::request::{Event, Finish, Request, TokenLogprobs};
use crate::sampler::{NoToken, Sampler};
use crate::sequence::{Sequence, Start};

/// Notes the log probability of the prompt token behind `position`.
pub fn score_prompt(sequence: &mut Sequence, position: usize, logits: &dyn Logits, row: usize) {
    let top = sequence.request.prompt_logprobs.unwrap_or_default();
    let score = score(logits, row, sequence.tokens[position + 1], top);
    if let Some(scores) = &mut sequence.prompt_scores {
        scores.push(Some(score));
    }
}

/// Tells that a sequence has its first place in a batch.
pub fn start(sequence: &mut Sequence, events: &mut Vec<Event>) {
    if let Start::Now(cached_tokens) = sequence.start {
        events.push(Event::Started { id: sequence.id, cached_tokens });
        sequence.start = Start::Told;
    }
}

/// Chooses the sequence's next token and tells it.
pub fn generate(
    sampler: &mut Sampler,
    sequence: &mut Sequence,
    logits: &dyn Logits,
    row: usize,
    events: &mut Vec<Event>,
) {
    let id = sequence.id;
    if let Some(logprobs) = sequence.prompt_scores.take() {
        events.push(Event::Prompt { id, logprobs, finish: None });
    }
    let generated = sequence.generated();
    let Request { sampling, constraint, .. } = &mut sequence.request;
    let chosen = sampler.sample(logits, row, sampling, &sequence.seen, constraint.as_deref_mut(), generated);
    if let Err(why) = chosen.and_then(|token| take(sequence, token, logits, row, events)) {
        sequence.ended = true;
        events.push(Event::Failed { id, why });
    }
}

fn take(
    sequence: &mut Sequence,
    token: u32,
    logits: &dyn Logits,
    row: usize,
    events: &mut Vec<Event>,
) -> Result<(), NoToken> {
    sequence.tokens.push(token);
    sequence.seen.push(token);
    let finish = sequence.finish();
    if let (None, Some(constraint)) = (finish, &mut sequence.request.constraint) {
        constraint.accept(token).map_err(NoToken::Constraint)?;
    }
    let logprobs = sequence.request.top_logprobs.map(|top| score(logits, row, token, top));
    sequence.ended = finish.is_some();
    events.push(Event::Token { id: sequence.id, token, logprobs, finish });
    Ok(())
}

/// Ends a sequence of which only the prompt was to be scored, once all of it is.
pub fn end_of_scoring(sequence: &mut Sequence, events: &mut Vec<Event>) {
    if sequence.request.max_tokens == 0 && sequence.remaining() == 0 {
        let logprobs = sequence.prompt_scores.take().unwrap_or_default();
        events.push(Event::Prompt { id: sequence.id, logprobs, finish: Some(Finish::Length) });
        sequence.ended = true;
    }
}

fn score(logits: &dyn Logits, row: usize, token: u32, top: usize) -> TokenLogprobs {
    let (logprob, top) = logits.log_softmax_top(row, token, top);
    TokenLogprobs { token, logprob, top }
}
