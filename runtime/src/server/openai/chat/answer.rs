//! A chat answer as OpenAI writes it.

use crate::answer_text::PlacedToken;
use crate::generation::Part;
use crate::served_model::TextSide;
use crate::server::openai::answer::{Answer, Letterhead, Usage, finish_reason};
use crate::server::openai::logprobs;
use serde_json::{Value, json};
use std::sync::Arc;

const CHUNK: &str = "chat.completion.chunk";

pub(super) struct ChatAnswer {
    letterhead: Letterhead,
    text: Arc<TextSide>,
    with_logprobs: bool,
}

impl ChatAnswer {
    pub fn new(model: &str, text: Arc<TextSide>, with_logprobs: bool) -> ChatAnswer {
        ChatAnswer { letterhead: Letterhead::new("chatcmpl", model), text, with_logprobs }
    }

    fn chunk_of(&self, delta: Value, logprobs: Value, finish: Option<&str>) -> Value {
        let choice = json!({"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        self.letterhead.object(CHUNK, json!([choice]))
    }

    fn logprobs(&self, tokens: &[PlacedToken]) -> Value {
        if self.with_logprobs { logprobs::chat(&self.text.tokenizer, tokens) } else { Value::Null }
    }
}

impl Answer for ChatAnswer {
    fn opening(&mut self) -> Option<Value> {
        Some(self.chunk_of(json!({"role": "assistant", "content": "", "refusal": null}), Value::Null, None))
    }

    fn chunk(&mut self, part: Part) -> Value {
        match part {
            Part::Prompt(_) => self.chunk_of(json!({}), Value::Null, None),
            Part::Text(piece) => {
                self.chunk_of(json!({"content": piece.text}), self.logprobs(&piece.tokens), None)
            }
            Part::End(finish) => self.chunk_of(json!({}), Value::Null, Some(finish_reason(finish))),
        }
    }

    fn usage_chunk(&self, usage: Usage) -> Value {
        let mut chunk = self.letterhead.object(CHUNK, json!([]));
        chunk["usage"] = usage.json();
        chunk
    }

    fn whole(self, parts: Vec<Part>, usage: Usage) -> Value {
        let (mut content, mut tokens, mut finish) = (String::new(), Vec::new(), None);
        for part in parts {
            match part {
                Part::Prompt(_) => {}
                Part::Text(piece) => {
                    content.push_str(&piece.text);
                    tokens.extend(piece.tokens);
                }
                Part::End(reason) => finish = Some(finish_reason(reason)),
            }
        }
        let message = json!({"role": "assistant", "content": content, "refusal": null});
        let choice = json!({"index": 0, "message": message, "logprobs": self.logprobs(&tokens), "finish_reason": finish});
        let mut object = self.letterhead.object("chat.completion", json!([choice]));
        object["usage"] = usage.json();
        object
    }
}
