//! How an endpoint writes an answer down: whole, or chunk by chunk.

use super::fresh_number;
use crate::generation::{Generation, Part};
use crate::server::unix_seconds;
use coterie_engine::Finish;
use serde_json::{Value, json};

/// Names this build, for clients that compare answers.
const FINGERPRINT: &str = concat!("coterie-", env!("CARGO_PKG_VERSION"));

/// The form in which one endpoint answers one request.
pub(in crate::server) trait Answer: Send + 'static {
    /// What the answer is called.
    fn id(&self) -> &str;
    /// The chunks that go before all others.
    fn opening(&mut self) -> Vec<Value>;
    /// The chunks that tell of a part of choice `index`; none where its text may yet become something else.
    fn chunks(&mut self, index: usize, part: Part) -> Vec<Value>;
    /// What was counted so far, with what only the endpoint knows.
    fn counted(&self, usage: Usage) -> Usage {
        usage
    }
    /// The chunk that counts.
    fn usage_chunk(&self, usage: Usage) -> Value;
    /// All parts of all choices in one object.
    fn whole(self, choices: Vec<Vec<Part>>, usage: Usage) -> Value;
}

/// Tokens of one answer, all choices together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Usage {
    prompt: usize,
    cached: usize,
    completion: usize,
    /// Of the completion, where the model marks its reasoning.
    pub reasoning: Option<usize>,
}

impl Usage {
    pub fn of(generation: &Generation) -> Usage {
        Usage {
            prompt: generation.prompt_tokens(),
            cached: generation.cached_tokens(),
            completion: generation.completion_tokens(),
            reasoning: None,
        }
    }

    pub fn json(self) -> Value {
        let mut json = json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        });
        if let Some(reasoning) = self.reasoning {
            json["completion_tokens_details"] = json!({"reasoning_tokens": reasoning});
        }
        json
    }
}

/// What stands at the top of every object of one answer.
#[derive(Clone, Debug)]
pub(super) struct Letterhead {
    id: String,
    created: u64,
    model: String,
}

impl Letterhead {
    /// `prefix` is OpenAI's for the kind of answer.
    pub fn new(prefix: &str, model: &str) -> Letterhead {
        let id = format!("{prefix}-{:016x}{:016x}", fresh_number(), fresh_number());
        Letterhead { id, created: unix_seconds(), model: model.to_owned() }
    }

    /// What the answer is called.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// An object of this answer.
    pub fn object(&self, kind: &str, choices: Value) -> Value {
        json!({
            "id": self.id, "object": kind, "created": self.created, "model": self.model,
            "system_fingerprint": FINGERPRINT, "choices": choices,
        })
    }
}

pub(super) fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}
