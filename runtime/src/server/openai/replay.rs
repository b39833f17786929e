//! `coterie_replay`: an answer goes on behind what another rank generated of it (`coterie_api::replay`).

use super::answer::Answer;
use super::error::ApiError;
use super::parameters::Parameters;
use super::settings::MOST_CHOICES;
use super::token_ids::token_ids;
use crate::generation::Draft;
use crate::served_model::ServedModel;
use coterie_api::replay::{Begun, ChoiceJournal, Journal, PARAMETER};
use coterie_engine::NotTaken;
use serde_json::Value;

/// `begun.id` at most, bytes.
pub(super) const LONGEST_ID: usize = 64;
/// More tokens than this are followed one answer at a time, so that a thread is left for short prompts. So many take 10
/// to 20 ms.
const SHORT: usize = 4096;

/// Takes the parameter. Token ids below `vocabulary` exist.
pub(super) fn take(
    parameters: &mut Parameters,
    vocabulary: usize,
    streamed: bool,
) -> Result<Option<Journal>, ApiError> {
    let Some(mut journal) = parameters.object(PARAMETER)? else { return Ok(None) };
    if !streamed {
        let message = format!("'{PARAMETER}' is only allowed when 'stream' is true.");
        return Err(ApiError::invalid(PARAMETER, message));
    }
    let missing = |parameters: &Parameters, name| ApiError::missing(&parameters.path(name));
    let given = journal.object("begun")?.ok_or_else(|| missing(&journal, "begun"))?;
    let path = journal.path("choices");
    let choices = journal.array("choices")?.ok_or_else(|| missing(&journal, "choices"))?;
    journal.finish()?;
    if choices.len() > MOST_CHOICES {
        let message = format!("'{path}' may have {MOST_CHOICES} entries at most, not {}.", choices.len());
        return Err(ApiError::invalid(&path, message));
    }
    let choice = |(at, given): (usize, Value)| choice(given, &format!("{path}[{at}]"), vocabulary);
    let choices = choices.into_iter().enumerate().map(choice).collect::<Result<_, _>>()?;
    Ok(Some(Journal { begun: begun(given)?, choices }))
}

fn begun(mut given: Parameters) -> Result<Begun, ApiError> {
    let path = given.path("id");
    let id = given.string("id")?.ok_or_else(|| ApiError::missing(&path))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if id.is_empty() || id.len() > LONGEST_ID || !id.bytes().all(plain) {
        let message = format!("'{path}' must have 1 to {LONGEST_ID} letters, digits and dashes.");
        return Err(ApiError::invalid(&path, message));
    }
    let mut number = |name| {
        let path = given.path(name);
        given.unsigned(name)?.ok_or_else(|| ApiError::missing(&path))
    };
    let (created, seed) = (number("created")?, number("seed")?);
    given.finish()?;
    Ok(Begun { id, created, seed })
}

fn choice(given: Value, path: &str, vocabulary: usize) -> Result<ChoiceJournal, ApiError> {
    let mut given = Parameters::of(given, path)?;
    let tokens = given.array("tokens")?.unwrap_or_default();
    let tokens = token_ids(&tokens, &given.path("tokens"), vocabulary)?;
    let cached = given.integer("cached", 0..=i64::MAX)?.map(|cached| cached as usize);
    given.finish()?;
    Ok(ChoiceJournal { tokens, cached })
}

/// Leads an answer to where the journals of its choices end. What came of the tokens is dropped: the client has it.
pub(super) async fn follow<A: Answer>(
    mut draft: Draft,
    mut answer: A,
    journals: Vec<ChoiceJournal>,
    model: &ServedModel,
) -> Result<(Draft, A), ApiError> {
    let (found, choices) = (journals.len(), draft.choices());
    if found > choices {
        let message =
            format!("'{PARAMETER}.choices' has {found} entries, but the answer has {choices} choices.");
        return Err(ApiError::invalid(PARAMETER, message));
    }
    let tokens: usize = journals.iter().map(|journal| journal.tokens.len()).sum();
    let turn = if tokens > SHORT { model.turn().await } else { None };
    let work = move || {
        let _turn = turn;
        for (index, journal) in journals.iter().enumerate() {
            follow_choice(&mut draft, &mut answer, index, journal)?;
        }
        Ok((draft, answer))
    };
    let panicked = |_| Err(ApiError::invalid(PARAMETER, format!("'{PARAMETER}' could not be followed.")));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(panicked)
}

fn follow_choice(
    draft: &mut Draft,
    answer: &mut impl Answer,
    index: usize,
    journal: &ChoiceJournal,
) -> Result<(), ApiError> {
    let path = format!("{PARAMETER}.choices[{index}]");
    if let Some(cached) = journal.cached {
        let prompt = draft.prompt_tokens(index);
        if cached > prompt {
            let message = format!("'{path}.cached' is {cached}, but the prompt has {prompt} tokens.");
            return Err(ApiError::invalid(PARAMETER, message));
        }
        draft.was_begun(index, cached);
    }
    for (at, token) in journal.tokens.iter().enumerate() {
        let parts = draft.take(index, *token).map_err(|why| misfit(&format!("{path}.tokens[{at}]"), &why))?;
        for part in parts {
            drop(answer.chunks(index, part));
        }
    }
    Ok(())
}

fn misfit(path: &str, why: &NotTaken) -> ApiError {
    ApiError::invalid(PARAMETER, format!("'{path}' cannot be part of this request's answer: {why}."))
}
