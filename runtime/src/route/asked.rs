//! What a request asks for, as far as the front door must know. The rank judges all the rest.

use super::members::members;
use super::prefix::{Blocks, blocks};
use crate::server::ApiError;
use axum::body::Bytes;
use coterie_api::replay::{Journal, PARAMETER};
use serde::de::IgnoredAny;
use std::ops::Range;

/// Bytes of a prompt that are about one token: OpenAI's rule of thumb for English. Only weights and limits are
/// reckoned with it.
pub const TOKEN_BYTES: u64 = 4;
/// Tokens that an answer is taken for where the client sets no limit.
const USUAL_ANSWER: u64 = 256;
/// Choices that a rank gives at most; what asks for more is refused there.
const MOST_CHOICES: u64 = 128;

/// A request for tokens.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The model, in the client's words.
    pub model: String,
    /// Whether the answer is to be sent while it is generated.
    pub streamed: bool,
    /// How many answers.
    pub choices: u64,
    /// About how many tokens the prompt has.
    pub prompt_tokens: u64,
    /// About how many tokens the answers have at most.
    pub answer_tokens: u64,
    /// The prompt's beginnings, to find ranks that have seen them.
    pub prefix: Blocks,
    body: Bytes,
    model_at: Range<usize>,
    /// Where the body's closing brace is.
    end: usize,
}

impl Asked {
    /// Reads a body.
    pub fn read(body: Bytes) -> Result<Asked, ApiError> {
        let mut seen = Seen::default();
        let end = members(&body, |name, at| seen.member(&body, name, at)).map_err(|_| not_read(&body))?;
        if seen.replays {
            return Err(ApiError::unknown_parameter(PARAMETER));
        }
        let model_at = seen.model.ok_or_else(|| ApiError::missing("model"))?;
        let model = serde_json::from_slice(&body[model_at.clone()])
            .map_err(|_| ApiError::invalid("model", "'model' must be a string."))?;
        let choices = seen.choices.unwrap_or(1).clamp(1, MOST_CHOICES);
        let span = |at: Option<Range<usize>>| at.map_or(&[][..], |at| &body[at]);
        let prompt = span(seen.prompt);
        let tools = span(seen.tools);
        Ok(Asked {
            model,
            streamed: seen.streamed,
            choices,
            prompt_tokens: (prompt.len() + tools.len()) as u64 / TOKEN_BYTES + 1,
            answer_tokens: choices * seen.limit.unwrap_or(USUAL_ANSWER),
            prefix: blocks(tools, prompt),
            model_at,
            end,
            body,
        })
    }

    /// What it weighs against other requests, tokens.
    pub fn cost(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.answer_tokens)
    }

    /// Bytes of its body.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The body for a rank that calls the model `served_name`, to go on from `journal` if there is one.
    pub fn body(&self, served_name: &str, journal: Option<&Journal>) -> Bytes {
        if journal.is_none() && self.model == served_name {
            return self.body.clone();
        }
        let mut body = Vec::with_capacity(self.body.len() + 64);
        body.extend_from_slice(&self.body[..self.model_at.start]);
        write_json(&mut body, &served_name);
        body.extend_from_slice(&self.body[self.model_at.end..self.end]);
        if let Some(journal) = journal {
            body.extend_from_slice(b",\"");
            body.extend_from_slice(PARAMETER.as_bytes());
            body.extend_from_slice(b"\":");
            write_json(&mut body, journal);
        }
        body.push(b'}');
        body.into()
    }
}

/// Strings and numbers always can be written, and so can a vector.
fn write_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    if let Err(error) = serde_json::to_writer(out, value) {
        tracing::error!(%error, "a value could not be written as JSON");
    }
}

/// Why a body is not one object: in a parser's words, which cost too much for every body.
fn not_read(body: &[u8]) -> ApiError {
    match serde_json::from_slice::<IgnoredAny>(body) {
        Err(error) => ApiError::malformed_json(&error),
        Ok(_) => ApiError::no_object("another value"),
    }
}

/// Members that were met; of one that is there twice the last counts, as it does to ranks.
#[derive(Default)]
struct Seen {
    model: Option<Range<usize>>,
    streamed: bool,
    choices: Option<u64>,
    limit: Option<u64>,
    prompt: Option<Range<usize>>,
    tools: Option<Range<usize>>,
    replays: bool,
}

impl Seen {
    fn member(&mut self, body: &[u8], name: &str, at: Range<usize>) {
        let number = || serde_json::from_slice(&body[at.clone()]).ok();
        match name {
            "model" => self.model = Some(at).filter(|at| &body[at.clone()] != b"null"),
            "stream" => self.streamed = &body[at] == b"true",
            "n" => self.choices = number(),
            "max_tokens" | "max_completion_tokens" => self.limit = number().or(self.limit),
            "messages" | "prompt" => self.prompt = Some(at),
            "tools" => self.tools = Some(at),
            PARAMETER => self.replays = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coterie_api::replay::Begun;
    use serde_json::{Value, json};

    fn asked(body: &str) -> Asked {
        Asked::read(Bytes::copy_from_slice(body.as_bytes())).unwrap()
    }

    fn refused(body: &str) -> String {
        Asked::read(Bytes::copy_from_slice(body.as_bytes())).unwrap_err().message().to_owned()
    }

    #[test]
    fn what_matters_is_read() {
        let text = "x".repeat(400);
        let request = asked(&format!(
            r#"{{"messages":[{{"role":"user","content":"{text}"}}],"stream":true,"n":3,"max_tokens":10,"model":"a/\u0062"}}"#
        ));
        assert_eq!((&*request.model, request.streamed, request.choices), ("a/b", true, 3));
        assert_eq!((request.prompt_tokens, request.answer_tokens), (108, 30));
        let plain = asked(r#"{"model":"m","stream":false,"n":null}"#);
        assert_eq!((plain.streamed, plain.choices, plain.answer_tokens), (false, 1, USUAL_ANSWER));
    }

    #[test]
    fn the_rank_gets_its_own_name_and_the_journal() {
        let text = r#"{"model" : "chat/smol" , "prompt":"a"}  "#;
        let request = asked(text);
        assert_eq!(request.body("chat/smol", None), text);
        let renamed: Value = serde_json::from_slice(&request.body("smol", None)).unwrap();
        assert_eq!(renamed, json!({"model": "smol", "prompt": "a"}));
        let journal = Journal::new(Begun { id: "i".into(), created: 1, seed: 2 });
        let replayed: Value = serde_json::from_slice(&request.body("smol", Some(&journal))).unwrap();
        assert_eq!(replayed[PARAMETER], serde_json::to_value(&journal).unwrap());
        assert_eq!(replayed["model"], "smol");
    }

    #[test]
    fn what_names_no_model_is_refused_as_a_rank_would() {
        assert_eq!(refused("{}"), "Missing required parameter: 'model'.");
        assert_eq!(refused(r#"{"model":null}"#), "Missing required parameter: 'model'.");
        assert_eq!(refused(r#"{"model":7}"#), "'model' must be a string.");
        assert_eq!(refused("[]"), "The body of the request must be a JSON object, not another value.");
        assert!(refused("{\"model\":").contains("not valid JSON"));
        assert_eq!(refused(r#"{"model":"m","coterie_replay":{}}"#), "Unknown parameter: 'coterie_replay'.");
    }
}
