//! A chat answer as OpenAI writes it.

use super::whole::Whole;
use crate::answer_text::PlacedToken;
use crate::chat_output::{ChatOutput, Delta, Spoken};
use crate::generation::Part;
use crate::served_model::TextSide;
use crate::server::openai::answer::{Answer, Letterhead, Usage, finish_reason};
use crate::server::openai::logprobs;
use crate::tool_calls::ToolFormat;
use coterie_engine::Finish;
use serde_json::{Value, json};
use std::sync::Arc;

const CHUNK: &str = "chat.completion.chunk";

pub(in crate::server::openai) struct ChatAnswer {
    letterhead: Letterhead,
    text: Arc<TextSide>,
    form: Form,
    choices: Vec<ChatOutput>,
}

/// What an answer's form depends on beside its text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub with_logprobs: bool,
    /// The model marks its reasoning.
    pub reasons: bool,
    pub tool_format: ToolFormat,
    /// The answer is nothing but calls.
    pub call_is_required: bool,
    /// The client chose the function that is called.
    pub call_is_named: bool,
}

impl ChatAnswer {
    pub(super) fn new(model: &str, text: Arc<TextSide>, form: Form, choices: Vec<ChatOutput>) -> ChatAnswer {
        ChatAnswer { letterhead: Letterhead::new("chatcmpl", model), text, form, choices }
    }

    fn chunk_of(&self, index: usize, delta: Value, logprobs: Value, finish: Option<&str>) -> Value {
        let choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        self.letterhead.object(CHUNK, json!([choice]))
    }

    fn delta(&self, at: usize, delta: Delta) -> Value {
        let json = match delta.part {
            Spoken::Reasoning(text) => json!({"reasoning_content": text, "reasoning": text}),
            Spoken::Content(text) => json!({"content": text}),
            Spoken::CallBegins { index, name } => {
                let function = json!({"name": name, "arguments": ""});
                let id = self.form.tool_format.call_id(self.letterhead.call_number(at, index));
                json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})
            }
            Spoken::Arguments { index, text } => {
                json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
            }
        };
        self.chunk_of(at, json, self.logprobs(&delta.tokens), None)
    }

    fn logprobs(&self, tokens: &[PlacedToken]) -> Value {
        if self.form.with_logprobs { logprobs::chat(&self.text.tokenizer, tokens) } else { Value::Null }
    }

    /// `stop` and not `tool_calls` for a function that the client chose, as OpenAI documents it. An answer that was
    /// cut says so, whatever it holds; one that ends in a call has not called.
    fn finish_reason(&self, index: usize, finish: Finish) -> &'static str {
        let called = self.choices[index].has_called() && !self.form.call_is_named;
        if called && finish == Finish::Stop { "tool_calls" } else { finish_reason(finish) }
    }

    /// What was held back. Where nothing but calls may come, a stop token cuts them, too.
    fn finish(&mut self, index: usize, finish: Finish) -> Vec<Delta> {
        self.choices[index].finish(finish == Finish::Length || self.form.call_is_required)
    }

    fn whole_choice(&mut self, index: usize, parts: Vec<Part>) -> Value {
        let (mut whole, mut finish) = (Whole::default(), None);
        for part in parts {
            match part {
                Part::Prompt(_) => {}
                Part::Text(piece) => whole.extend(self.choices[index].push(piece)),
                Part::End(reason) => {
                    whole.extend(self.finish(index, reason));
                    finish = Some(self.finish_reason(index, reason));
                }
            }
        }
        let logprobs = self.logprobs(&whole.tokens);
        let message = whole.message(self.form, |call| self.letterhead.call_number(index, call));
        json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish})
    }
}

impl Answer for ChatAnswer {
    fn letterhead(&mut self) -> &mut Letterhead {
        &mut self.letterhead
    }

    fn opening(&mut self) -> Vec<Value> {
        let role = json!({"role": "assistant", "content": "", "refusal": null});
        (0..self.choices.len()).map(|index| self.chunk_of(index, role.clone(), Value::Null, None)).collect()
    }

    fn chunks(&mut self, index: usize, part: Part) -> Vec<Value> {
        let (deltas, finish) = match part {
            Part::Prompt(_) => (Vec::new(), None),
            Part::Text(piece) => (self.choices[index].push(piece), None),
            Part::End(finish) => (self.finish(index, finish), Some(finish)),
        };
        let last = finish.map(|finish| {
            self.chunk_of(index, json!({}), Value::Null, Some(self.finish_reason(index, finish)))
        });
        deltas.into_iter().map(|delta| self.delta(index, delta)).chain(last).collect()
    }

    fn is_settled(&self, index: usize) -> bool {
        self.choices[index].is_settled()
    }

    /// With the tokens of the reasoning, where the model marks it.
    fn counted(&self, mut usage: Usage) -> Usage {
        let reasoning = || self.choices.iter().map(ChatOutput::reasoning_tokens).sum();
        usage.reasoning = self.form.reasons.then(reasoning);
        usage
    }

    fn usage_chunk(&self, usage: Usage) -> Value {
        let mut chunk = self.letterhead.object(CHUNK, json!([]));
        chunk["usage"] = self.counted(usage).json();
        chunk
    }

    fn whole(mut self, choices: Vec<Vec<Part>>, usage: Usage) -> Value {
        let choices =
            choices.into_iter().enumerate().map(|(index, parts)| self.whole_choice(index, parts)).collect();
        let mut object = self.letterhead.object("chat.completion", choices);
        object["usage"] = self.counted(usage).json();
        object
    }
}
