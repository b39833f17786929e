//! `prompt` of a completion request: a text, or tokens.

use crate::detokenizer::Detokenizer;
use crate::served_model::{NotEncoded, ServedModel, TextSide};
use crate::server::openai::error::ApiError;
use crate::server::openai::parameters::{Parameters, wrong_type};
use crate::tokenizer::Encoded;
use serde_json::Value;

const EXPECTED: &str = "a string or an array of token ids";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// A prompt as text and as tokens.
#[derive(Clone, Debug)]
pub(super) struct EncodedPrompt {
    pub text: String,
    pub encoded: Encoded,
}

/// Takes `prompt`. A list may hold one prompt: one answer has one choice here.
pub(super) fn take(parameters: &mut Parameters) -> Result<Prompt, ApiError> {
    match parameters.any("prompt") {
        None => Err(ApiError::missing("prompt")),
        Some(Value::String(text)) => Ok(Prompt::Text(text)),
        Some(Value::Array(items)) => match items.first() {
            None => Err(ApiError::invalid("prompt", "'prompt' must not be empty.")),
            Some(Value::Number(_)) => tokens(&items, "prompt"),
            Some(_) if items.len() > 1 => {
                let message = format!("'prompt' holds {} prompts; send one a request.", items.len());
                Err(ApiError::unsupported("prompt", message))
            }
            Some(Value::String(text)) => Ok(Prompt::Text(text.clone())),
            Some(Value::Array(one)) => tokens(one, "prompt[0]"),
            Some(other) => Err(wrong_type("prompt[0]", EXPECTED, other)),
        },
        Some(other) => Err(wrong_type("prompt", EXPECTED, &other)),
    }
}

fn tokens(items: &[Value], path: &str) -> Result<Prompt, ApiError> {
    let token = |(at, item): (usize, &Value)| {
        let id = item.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| wrong_type(&format!("{path}[{at}]"), "a token id", item))
    };
    items.iter().enumerate().map(token).collect::<Result<Vec<u32>, ApiError>>().map(Prompt::Tokens)
}

impl Prompt {
    pub async fn encoded(self, model: &ServedModel) -> Result<EncodedPrompt, NotEncoded> {
        match self {
            Prompt::Text(text) => {
                let encoded = model.encode(text.clone(), true).await?;
                Ok(EncodedPrompt { text, encoded })
            }
            Prompt::Tokens(tokens) => Ok(decoded(tokens, &model.text)),
        }
    }
}

fn decoded(tokens: Vec<u32>, side: &TextSide) -> EncodedPrompt {
    let mut detokenizer = Detokenizer::default();
    let (mut text, mut chars) = (String::new(), 0);
    let mut starts = Vec::with_capacity(tokens.len());
    for token in &tokens {
        starts.push(chars);
        let piece = detokenizer.push(&side.tokenizer.shown_bytes(*token));
        chars += piece.chars().count();
        text.push_str(&piece);
    }
    text.push_str(&detokenizer.finish());
    EncodedPrompt { text, encoded: Encoded { tokens, starts } }
}
