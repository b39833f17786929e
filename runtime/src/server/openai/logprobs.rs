//! Log probabilities in OpenAI's two forms.

use crate::answer_text::PlacedToken;
use crate::tokenizer::Tokenizer;
use coterie_engine::TokenLogprobs;
use serde_json::{Map, Value, json};

/// What stands for minus infinity, which JSON lacks.
const IMPOSSIBLE: f32 = -9999.0;

/// `logprobs.content` of a chat answer.
pub(super) fn chat(tokenizer: &Tokenizer, tokens: &[PlacedToken]) -> Value {
    let entry = |token: u32, logprob: f32| {
        let bytes = tokenizer.bytes(token);
        json!({"token": String::from_utf8_lossy(&bytes), "logprob": finite(logprob), "bytes": bytes})
    };
    let content: Vec<Value> = tokens
        .iter()
        .map(|PlacedToken { logprobs: at, .. }| {
            let mut value = entry(at.token, at.logprob);
            value["top_logprobs"] = at.top.iter().map(|(token, logprob)| entry(*token, *logprob)).collect();
            value
        })
        .collect();
    json!({"content": content, "refusal": null})
}

/// `logprobs` of a completion: four arrays, an entry a token.
#[derive(Debug, Default)]
pub(super) struct Columns {
    tokens: Vec<String>,
    token_logprobs: Vec<Value>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<usize>,
}

impl Columns {
    /// Adds a token that begins at character `offset` of the text; `logprobs` are absent for the first token of all.
    pub fn push(
        &mut self,
        tokenizer: &Tokenizer,
        token: u32,
        logprobs: Option<&TokenLogprobs>,
        offset: usize,
    ) {
        self.tokens.push(spelled(tokenizer, token));
        self.text_offset.push(offset);
        self.token_logprobs.push(logprobs.map_or(Value::Null, |at| finite(at.logprob)));
        self.top_logprobs.push(logprobs.map_or(Value::Null, |at| {
            // The token itself is always among them.
            let all = at.top.iter().copied().chain([(at.token, at.logprob)]);
            let map: Map<String, Value> =
                all.map(|(token, logprob)| (spelled(tokenizer, token), finite(logprob))).collect();
            Value::Object(map)
        }));
    }

    pub fn append(&mut self, mut later: Columns) {
        self.tokens.append(&mut later.tokens);
        self.token_logprobs.append(&mut later.token_logprobs);
        self.top_logprobs.append(&mut later.top_logprobs);
        self.text_offset.append(&mut later.text_offset);
    }

    pub fn json(self) -> Value {
        json!({
            "tokens": self.tokens, "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs, "text_offset": self.text_offset,
        })
    }
}

/// The token's text, or `bytes:\xf0\x9f` where it is only a part of a character: two such parts stay two keys.
fn spelled(tokenizer: &Tokenizer, token: u32) -> String {
    String::from_utf8(tokenizer.bytes(token)).unwrap_or_else(|error| {
        let bytes: String = error.as_bytes().iter().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("bytes:{bytes}")
    })
}

fn finite(logprob: f32) -> Value {
    Value::from(if logprob.is_finite() { logprob } else { IMPOSSIBLE })
}
