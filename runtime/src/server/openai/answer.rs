//! How an endpoint writes an answer down: whole, or chunk by chunk.

use super::fresh_number;
use crate::generation::{Generation, Part};
use crate::server::unix_time;
use coterie_api::replay::Begun;
use coterie_engine::Finish;
use serde_json::{Value, json};

/// Names this build, for clients that compare answers.
const FINGERPRINT: &str = concat!("coterie-", env!("CARGO_PKG_VERSION"));

/// The form in which one endpoint answers one request.
pub(in crate::server) trait Answer: Send + 'static {
    /// What stands at the top of each of its objects.
    fn letterhead(&mut self) -> &mut Letterhead;
    /// The chunks that go before all others.
    fn opening(&mut self) -> Vec<Value>;
    /// The chunks that tell of a part of choice `index`; none where its text may yet become something else.
    fn chunks(&mut self, index: usize, part: Part) -> Vec<Value>;
    /// No log probabilities of choice `index` wait for a later chunk.
    fn is_settled(&self, index: usize) -> bool;
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
pub(in crate::server) struct Letterhead {
    id: String,
    created: u64,
    model: String,
}

impl Letterhead {
    /// `prefix` is OpenAI's for the kind of answer.
    pub fn new(prefix: &str, model: &str) -> Letterhead {
        let id = format!("{prefix}-{:016x}{:016x}", fresh_number(), fresh_number());
        Letterhead { id, created: unix_time().as_secs(), model: model.to_owned() }
    }

    /// What the answer is called.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The answer was begun elsewhere, as that.
    pub fn go_on(&mut self, begun: &Begun) {
        self.id.clone_from(&begun.id);
        self.created = begun.created;
    }

    /// How the answer began, with this seed.
    pub fn begun(&self, seed: u64) -> Begun {
        Begun { id: self.id.clone(), created: self.created, seed }
    }

    /// A number for call `call` of choice `choice` that is as hard to foresee as the answer's id, and the same on every
    /// rank and in every version: FNV-1a (Fowler, Noll, Vo) over the three, and the last steps of SplitMix64 (Steele et
    /// al., 2014), because the number's low bits alone must differ, too.
    pub fn call_number(&self, choice: usize, call: usize) -> u64 {
        let numbers = [choice as u64, call as u64].map(u64::to_le_bytes);
        let bytes = self.id.bytes().chain(numbers.into_iter().flatten());
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let mut mixed = bytes.fold(0xcbf2_9ce4_8422_2325, hash);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
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
