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

pub(in crate::server::openai) struct CompletionAnswer {
    letterhead: Letterhead,
    text: Arc<TextSide>,
    with_logprobs: bool,
    /// What the choices begin with.
    echo: Option<Echo>,
    choices: usize,
}

/// The prompts, where choices begin with theirs.
pub(super) struct Echo {
    prompts: Vec<EncodedPrompt>,
    choices_per_prompt: usize,
    /// Characters of each prompt, which go before a choice's own.
    lengths: Vec<usize>,
}

impl Echo {
    /// Choices of the same prompt follow each other.
    pub fn new(prompts: Vec<EncodedPrompt>, choices_per_prompt: usize) -> Echo {
        let lengths = prompts.iter().map(|prompt| prompt.text.chars().count()).collect();
        Echo { prompts, choices_per_prompt, lengths }
    }
}

impl CompletionAnswer {
    pub(super) fn new(
        model: &str,
        text: Arc<TextSide>,
        with_logprobs: bool,
        echo: Option<Echo>,
        choices: usize,
    ) -> CompletionAnswer {
        CompletionAnswer { letterhead: Letterhead::new("cmpl", model), text, with_logprobs, echo, choices }
    }

    fn chunk_of(&self, index: usize, text: &str, logprobs: Option<Columns>, finish: Option<&str>) -> Value {
        self.letterhead.object(KIND, json!([choice(index, text, logprobs, finish)]))
    }

    /// Text and log probabilities of the choice's prompt.
    fn echoed(&self, index: usize, logprobs: &[Option<TokenLogprobs>]) -> (&str, Option<Columns>) {
        let Some(echo) = &self.echo else { return ("", None) };
        let EncodedPrompt { text, encoded } = &echo.prompts[index / echo.choices_per_prompt];
        let mut columns = Columns::default();
        for (at, (token, start)) in encoded.tokens.iter().zip(&encoded.starts).enumerate() {
            columns.push(&self.text.tokenizer, *token, logprobs.get(at).and_then(Option::as_ref), *start);
        }
        (text, self.with_logprobs.then_some(columns))
    }

    fn columns(&self, index: usize, piece: &Piece) -> Option<Columns> {
        let before = self.echo.as_ref().map_or(0, |echo| echo.lengths[index / echo.choices_per_prompt]);
        let mut columns = Columns::default();
        for placed in &piece.tokens {
            let (logprobs, offset) = (&placed.logprobs, before + placed.start);
            columns.push(&self.text.tokenizer, logprobs.token, Some(logprobs), offset);
        }
        self.with_logprobs.then_some(columns)
    }

    fn whole_choice(&self, index: usize, parts: &[Part]) -> Value {
        let prompt_logprobs = parts.iter().find_map(|part| match part {
            Part::Prompt(logprobs) => Some(logprobs.as_slice()),
            _ => None,
        });
        let (echoed, mut columns) = self.echoed(index, prompt_logprobs.unwrap_or(&[]));
        let (mut text, mut finish) = (echoed.to_owned(), None);
        for part in parts {
            match part {
                Part::Prompt(_) => {}
                Part::Text(piece) => {
                    text.push_str(&piece.text);
                    if let Some(more) = self.columns(index, piece) {
                        columns.get_or_insert_default().append(more);
                    }
                }
                Part::End(reason) => finish = Some(finish_reason(*reason)),
            }
        }
        if self.with_logprobs {
            columns.get_or_insert_default();
        }
        choice(index, &text, columns, finish)
    }
}

fn choice(index: usize, text: &str, logprobs: Option<Columns>, finish: Option<&str>) -> Value {
    let logprobs = logprobs.map_or(Value::Null, Columns::json);
    json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish})
}

impl Answer for CompletionAnswer {
    fn letterhead(&mut self) -> &mut Letterhead {
        &mut self.letterhead
    }

    /// With log probabilities, the echo waits for the prompt's.
    fn opening(&mut self) -> Vec<Value> {
        if self.with_logprobs || self.echo.is_none() {
            return Vec::new();
        }
        (0..self.choices).map(|index| self.chunk_of(index, self.echoed(index, &[]).0, None, None)).collect()
    }

    fn chunks(&mut self, index: usize, part: Part) -> Vec<Value> {
        vec![match part {
            Part::Prompt(logprobs) if self.with_logprobs => {
                let (text, columns) = self.echoed(index, &logprobs);
                self.chunk_of(index, text, columns, None)
            }
            Part::Prompt(_) => self.chunk_of(index, "", None, None),
            Part::Text(piece) => self.chunk_of(index, &piece.text, self.columns(index, &piece), None),
            Part::End(finish) => self.chunk_of(index, "", None, Some(finish_reason(finish))),
        }]
    }

    fn is_settled(&self, _: usize) -> bool {
        true
    }

    fn usage_chunk(&self, usage: Usage) -> Value {
        let mut chunk = self.letterhead.object(KIND, json!([]));
        chunk["usage"] = usage.json();
        chunk
    }

    fn whole(self, choices: Vec<Vec<Part>>, usage: Usage) -> Value {
        let choices = choices.iter().enumerate().map(|(index, parts)| self.whole_choice(index, parts));
        let mut object = self.letterhead.object(KIND, choices.collect());
        object["usage"] = usage.json();
        object
    }
}
