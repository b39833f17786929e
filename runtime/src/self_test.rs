//! Before anybody is served, the model answers itself: a prompt goes the whole way, and a token must come back.

use crate::conversation::{Conversation, Message, Role};
use crate::engine_thread::NotSubmitted;
use crate::served_model::{NotEncoded, ServedModel};
use crate::termination::{failed, model_rejected};
use coterie_api::launch::Termination;
use coterie_engine::{Event, Request};
use std::time::Instant;

const PROMPT: &str = "Hello";

/// Generates one token.
pub async fn run(model: &ServedModel) -> Result<(), Termination> {
    let mut tokens = prompt(model).await.map_err(|why| match why {
        NotEncoded::Failed(why) => failed(why),
        why => model_rejected(why.into_message()),
    })?;
    if tokens.is_empty() {
        return Err(model_rejected(format!(
            "the tokenizer makes no token of {PROMPT:?}; download tokenizer.json again"
        )));
    }
    tokens.truncate(model.engine.context_length().saturating_sub(1).max(1));
    let request = Request { top_logprobs: Some(0), ..Request::new(tokens, 1) };
    let mut events =
        model.engine.submit(vec![request], Instant::now()).await.map_err(|refused| match refused {
            NotSubmitted::Rejected(rule) => model_rejected(format!(
                "the engine refused the first prompt: {rule}; tokenizer.json may be another model's"
            )),
            NotSubmitted::TooMany { .. } | NotSubmitted::TooManyTokens { .. } => {
                failed("the engine has no place for one request")
            }
            NotSubmitted::Cut(_) => failed("the engine stopped before it generated a token"),
        })?;
    let mut first = events.next().await;
    if let Ok(Some((_, Event::Started { .. }))) = first {
        first = events.next().await;
    }
    match first {
        Ok(Some((_, Event::Token { logprobs: Some(scored), .. }))) if scored.logprob.is_finite() => Ok(()),
        Ok(Some((_, Event::Failed { why, .. }))) => {
            Err(model_rejected(format!("the model generated no token: {why}")))
        }
        Ok(_) => Err(model_rejected(
            "the model's first token has no finite probability; its weights are damaged: download them again",
        )),
        Err(_) => Err(failed("the engine stopped before it generated a token")),
    }
}

/// What a user would send. A template that does not take a plain first message can still be used by those who know it.
async fn prompt(model: &ServedModel) -> Result<Vec<u32>, NotEncoded> {
    let hello = Conversation { messages: vec![Message::new(Role::User, PROMPT)], ..Conversation::default() };
    match model.encode_chat(hello).await {
        Some(Ok(prompt)) => return Ok(prompt.tokens),
        Some(Err(broken @ (NotEncoded::Exceeded(_) | NotEncoded::Failed(_)))) => return Err(broken),
        Some(Err(refused)) => tracing::warn!(
            refused = refused.into_message(),
            "the chat template does not take a plain user message"
        ),
        None => {}
    }
    Ok(model.encode(PROMPT.to_owned(), true).await?.tokens)
}
