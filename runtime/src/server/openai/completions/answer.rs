//! A completion as OpenAI writes it.

use super::prompt::EncodedPrompt;
use crate::answer_text::Piece;
use crate::generation::Part;
use crate::served_model::TextSide;
use crate::server::openai::answer::{Answer, Letterhead, Usage, finish_reason};
use crate::server::openai::logprobs::Columns;
use coterie_engine::TokenLogprobs;
use serde_json::{Value, json};
use std::sync::Arc;

const KIND: &str = "text_completion";

/// The answer begins with the prompt.
pub(super) struct Echo {
    pub prompt: EncodedPrompt,
}

pub(super) struct CompletionAnswer {
    letterhead: Letterhead,
    text: Arc<TextSide>,
    with_logprobs: bool,
    echo: Option<Echo>,
    /// Characters of the echo, which go before the answer's own.
    offset: usize,
}

impl CompletionAnswer {
    pub fn new(
        model: &str,
        text: Arc<TextSide>,
        with_logprobs: bool,
        echo: Option<Echo>,
    ) -> CompletionAnswer {
        let offset = echo.as_ref().map_or(0, |echo| echo.prompt.text.chars().count());
        CompletionAnswer { letterhead: Letterhead::new("cmpl", model), text, with_logprobs, echo, offset }
    }

    fn object(&self, text: &str, logprobs: Option<Columns>, finish: Option<&str>) -> Value {
        let logprobs = logprobs.map_or(Value::Null, Columns::json);
        let choice = json!({"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish});
        self.letterhead.object(KIND, json!([choice]))
    }

    /// Text and log probabilities of the prompt.
    fn echoed(&self, logprobs: &[Option<TokenLogprobs>]) -> (String, Option<Columns>) {
        let Some(Echo { prompt }) = &self.echo else { return (String::new(), None) };
        let mut columns = Columns::default();
        for (at, (token, start)) in prompt.encoded.tokens.iter().zip(&prompt.encoded.starts).enumerate() {
            columns.push(&self.text.tokenizer, *token, logprobs.get(at).and_then(Option::as_ref), *start);
        }
        (prompt.text.clone(), self.with_logprobs.then_some(columns))
    }

    fn columns(&self, piece: &Piece) -> Option<Columns> {
        let mut columns = Columns::default();
        for placed in &piece.tokens {
            let (logprobs, offset) = (&placed.logprobs, self.offset + placed.start);
            columns.push(&self.text.tokenizer, logprobs.token, Some(logprobs), offset);
        }
        self.with_logprobs.then_some(columns)
    }
}

impl Answer for CompletionAnswer {
    /// With log probabilities, the echo waits for the prompt's.
    fn opening(&mut self) -> Option<Value> {
        if self.with_logprobs || self.echo.is_none() {
            return None;
        }
        let (text, _) = self.echoed(&[]);
        Some(self.object(&text, None, None))
    }

    fn chunk(&mut self, part: Part) -> Value {
        match part {
            Part::Prompt(logprobs) if self.with_logprobs => {
                let (text, columns) = self.echoed(&logprobs);
                self.object(&text, columns, None)
            }
            Part::Prompt(_) => self.object("", None, None),
            Part::Text(piece) => self.object(&piece.text, self.columns(&piece), None),
            Part::End(finish) => self.object("", None, Some(finish_reason(finish))),
        }
    }

    fn usage_chunk(&self, usage: Usage) -> Value {
        let mut chunk = self.letterhead.object(KIND, json!([]));
        chunk["usage"] = usage.json();
        chunk
    }

    fn whole(self, parts: Vec<Part>, usage: Usage) -> Value {
        let prompt_logprobs = parts.iter().find_map(|part| match part {
            Part::Prompt(logprobs) => Some(logprobs.as_slice()),
            _ => None,
        });
        let (mut text, mut columns) = self.echoed(prompt_logprobs.unwrap_or(&[]));
        let mut finish = None;
        for part in &parts {
            match part {
                Part::Prompt(_) => {}
                Part::Text(piece) => {
                    text.push_str(&piece.text);
                    if let Some(more) = self.columns(piece) {
                        columns.get_or_insert_default().append(more);
                    }
                }
                Part::End(reason) => finish = Some(finish_reason(*reason)),
            }
        }
        if self.with_logprobs {
            columns.get_or_insert_default();
        }
        let mut object = self.object(&text, columns, finish);
        object["usage"] = usage.json();
        object
    }
}
