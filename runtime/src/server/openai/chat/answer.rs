//! A chat answer as OpenAI writes it.

use crate::answer_text::PlacedToken;
use crate::generation::Part;
use crate::served_model::TextSide;
use crate::server::openai::answer::{Answer, Letterhead, Usage, finish_reason};
use crate::server::openai::logprobs;
use serde_json::{Value, json};
use std::sync::Arc;

const CHUNK: &str = "chat.completion.chunk";

pub(in crate::server::openai) struct ChatAnswer {
    letterhead: Letterhead,
    text: Arc<TextSide>,
    with_logprobs: bool,
    choices: usize,
}

impl ChatAnswer {
    pub(super) fn new(model: &str, text: Arc<TextSide>, with_logprobs: bool, choices: usize) -> ChatAnswer {
        ChatAnswer { letterhead: Letterhead::new("chatcmpl", model), text, with_logprobs, choices }
    }

    fn chunk_of(&self, index: usize, delta: Value, logprobs: Value, finish: Option<&str>) -> Value {
        let choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        self.letterhead.object(CHUNK, json!([choice]))
    }

    fn logprobs(&self, tokens: &[PlacedToken]) -> Value {
        if self.with_logprobs { logprobs::chat(&self.text.tokenizer, tokens) } else { Value::Null }
    }

    fn whole_choice(&self, index: usize, parts: Vec<Part>) -> Value {
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
        json!({"index": index, "message": message, "logprobs": self.logprobs(&tokens), "finish_reason": finish})
    }
}

impl Answer for ChatAnswer {
    fn id(&self) -> &str {
        self.letterhead.id()
    }

    fn opening(&mut self) -> Vec<Value> {
        let role = json!({"role": "assistant", "content": "", "refusal": null});
        (0..self.choices).map(|index| self.chunk_of(index, role.clone(), Value::Null, None)).collect()
    }

    fn chunk(&mut self, index: usize, part: Part) -> Value {
        match part {
            Part::Prompt(_) => self.chunk_of(index, json!({}), Value::Null, None),
            Part::Text(piece) => {
                self.chunk_of(index, json!({"content": piece.text}), self.logprobs(&piece.tokens), None)
            }
            Part::End(finish) => self.chunk_of(index, json!({}), Value::Null, Some(finish_reason(finish))),
        }
    }

    fn usage_chunk(&self, usage: Usage) -> Value {
        let mut chunk = self.letterhead.object(CHUNK, json!([]));
        chunk["usage"] = usage.json();
        chunk
    }

    fn whole(self, choices: Vec<Vec<Part>>, usage: Usage) -> Value {
        let choices = choices.into_iter().enumerate().map(|(index, parts)| self.whole_choice(index, parts));
        let mut object = self.letterhead.object("chat.completion", choices.collect());
        object["usage"] = usage.json();
        object
    }
}
