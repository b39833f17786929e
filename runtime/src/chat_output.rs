//! What a chat answer says: its text, split into reasoning, content and tool calls as it comes.

use crate::answer_text::{Piece, PlacedToken};
use crate::reasoning::ReasoningSplitter;
use crate::tool_calls::{CallParser, Said, Step};
use std::collections::VecDeque;

/// One answer on its way to being understood.
#[derive(Debug)]
pub struct ChatOutput {
    reasoning: ReasoningSplitter,
    calls: Option<Box<dyn CallParser>>,
    /// Only the first call counts.
    only_one_call: bool,
    /// Calls that have begun.
    begun: usize,
    /// The answer ended in a call.
    broke_off: bool,
    messages: Messages,
    /// The character at which the content begins, once it has.
    content_start: Option<usize>,
    reasoning_tokens: usize,
    /// Tokens whose text is not out yet.
    waiting: VecDeque<PlacedToken>,
}

/// Something that an answer says.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// What it is.
    pub part: Spoken,
    /// The tokens whose text begins in it or before, and that no earlier delta had; only where log probabilities
    /// were asked for.
    pub tokens: Vec<PlacedToken>,
}

/// A kind of thing that an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// More of what the model thinks.
    Reasoning(String),
    /// More of what it says.
    Content(String),
    /// Call `index` begins.
    CallBegins {
        /// Counted from 0.
        index: usize,
        /// The function.
        name: String,
    },
    /// More of the arguments of call `index`.
    Arguments {
        /// The call.
        index: usize,
        /// JSON, as it was generated.
        text: String,
    },
}

impl ChatOutput {
    /// An answer that `reasoning` splits and `calls` looks into, if calls are wanted.
    pub fn new(
        reasoning: ReasoningSplitter,
        calls: Option<Box<dyn CallParser>>,
        only_one_call: bool,
    ) -> Self {
        ChatOutput {
            reasoning,
            calls,
            only_one_call,
            begun: 0,
            broke_off: false,
            messages: Messages::default(),
            content_start: None,
            reasoning_tokens: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Adds a piece of the answer.
    pub fn push(&mut self, piece: Piece) -> Vec<Delta> {
        if self.reasoning.is_inside() || self.calls.as_ref().is_some_and(|calls| calls.is_reasoning()) {
            self.reasoning_tokens += piece.count;
        }
        self.waiting.extend(piece.tokens);
        let mut deltas = Vec::new();
        for stretch in self.reasoning.push(&piece.text) {
            self.stretch(stretch.reasoning, stretch.text, stretch.end, &mut deltas);
        }
        deltas
    }

    /// Nothing follows: gives out what was held back. In an answer that was `cut`, the beginning of a call is no content.
    pub fn finish(&mut self, cut: bool) -> Vec<Delta> {
        let mut deltas = Vec::new();
        if let Some(stretch) = self.reasoning.finish() {
            self.stretch(stretch.reasoning, stretch.text, stretch.end, &mut deltas);
        }
        if let Some(calls) = &mut self.calls {
            // One that does not count may break off.
            self.broke_off = calls.is_within_call() && !(self.only_one_call && self.begun > 1);
            let steps = calls.finish(cut);
            self.steps(steps, &mut deltas);
        }
        if !self.waiting.is_empty() {
            let tokens = self.waiting.drain(..).collect();
            deltas.push(Delta { part: Spoken::Content(String::new()), tokens });
        }
        deltas
    }

    /// No log probabilities wait for the text that their tokens begin.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Calls came, and the last one is whole.
    pub fn has_called(&self) -> bool {
        self.begun > 0 && !self.broke_off
    }

    /// Tokens whose text came while the answer was reasoning; the closing tag's is the last of them.
    pub fn reasoning_tokens(&self) -> usize {
        self.reasoning_tokens
    }

    fn stretch(&mut self, reasoning: bool, text: String, end: usize, deltas: &mut Vec<Delta>) {
        if reasoning {
            return self.say(Spoken::Reasoning(text), end, deltas);
        }
        self.content_start.get_or_insert_with(|| end - text.chars().count());
        match &mut self.calls {
            Some(calls) => {
                let steps = calls.push(&text);
                self.steps(steps, deltas);
            }
            None => self.say(Spoken::Content(text), end, deltas),
        }
    }

    fn steps(&mut self, steps: Vec<Step>, deltas: &mut Vec<Delta>) {
        let start = self.content_start.unwrap_or(0);
        for Step { said, end } in steps {
            let part = match said {
                Said::Text(text) => Spoken::Content(self.messages.content(text)),
                Said::Reasoning(text) => Spoken::Reasoning(self.messages.reasoning(text)),
                Said::MessageBegins => {
                    self.messages.begin();
                    continue;
                }
                Said::CallBegins { name } => {
                    self.begun += 1;
                    Spoken::CallBegins { index: self.begun - 1, name }
                }
                Said::Arguments(text) => Spoken::Arguments { index: self.begun - 1, text },
            };
            match part {
                Spoken::CallBegins { index, .. } | Spoken::Arguments { index, .. }
                    if self.only_one_call && index > 0 => {}
                part => self.say(part, start + end, deltas),
            }
        }
    }

    fn say(&mut self, part: Spoken, end: usize, deltas: &mut Vec<Delta>) {
        let many = self.waiting.partition_point(|token| token.start < end);
        deltas.push(Delta { part, tokens: self.waiting.drain(..many).collect() });
    }
}

/// Several messages in one answer, which are one text of each kind: each message begins a new line of it.
#[derive(Debug, Default)]
struct Messages {
    /// The message has said nothing yet.
    begins: bool,
    has_content: bool,
    has_reasoning: bool,
}

impl Messages {
    fn begin(&mut self) {
        self.begins = true;
    }

    fn content(&mut self, text: String) -> String {
        let before = std::mem::replace(&mut self.has_content, true);
        self.next_line(text, before)
    }

    fn reasoning(&mut self, text: String) -> String {
        let before = std::mem::replace(&mut self.has_reasoning, true);
        self.next_line(text, before)
    }

    fn next_line(&mut self, text: String, before: bool) -> String {
        if std::mem::take(&mut self.begins) && before { format!("\n{text}") } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool_calls::{CallReading, ToolFormat};
    use coterie_engine::TokenLogprobs;

    const TEXT: &str = "<think>ü?</think>\nSo: \n<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>\
        <tool_call>{\"name\": \"g\", \"arguments\": {\"a\": 1}}</tool_call>";

    /// A token a piece of `size` characters, with its number as its id.
    fn run(only_one_call: bool, size: usize) -> (Vec<Delta>, ChatOutput) {
        let parser = CallReading { format: ToolFormat::Hermes, tools: [].into() }.parser();
        let mut output = ChatOutput::new(ReasoningSplitter::new(), Some(parser), only_one_call);
        let chars: Vec<char> = TEXT.chars().collect();
        let mut deltas = Vec::new();
        for (at, piece) in chars.chunks(size).enumerate() {
            let logprobs = TokenLogprobs { token: at as u32, logprob: -1.0, top: Vec::new() };
            let token = PlacedToken { start: at * size, logprobs };
            let piece = Piece { text: piece.iter().collect(), tokens: vec![token], count: 1, stopped: false };
            deltas.extend(output.push(piece));
        }
        deltas.extend(output.finish(false));
        (deltas, output)
    }

    fn joined(deltas: &[Delta]) -> (String, String, Vec<(String, String)>) {
        let (mut reasoning, mut content, mut calls) = (String::new(), String::new(), Vec::new());
        for delta in deltas {
            match &delta.part {
                Spoken::Reasoning(text) => reasoning.push_str(text),
                Spoken::Content(text) => content.push_str(text),
                Spoken::CallBegins { index, name } => {
                    assert_eq!(*index, calls.len());
                    calls.push((name.clone(), String::new()));
                }
                Spoken::Arguments { index, text } => calls[*index].1.push_str(text),
            }
        }
        (reasoning, content, calls)
    }

    #[test]
    fn an_answer_is_taken_apart_wherever_its_pieces_end() {
        let calls = vec![("f".to_owned(), "{}".to_owned()), ("g".to_owned(), "{\"a\": 1}".to_owned())];
        for size in 1..TEXT.chars().count() {
            let (deltas, output) = run(false, size);
            assert_eq!(joined(&deltas), ("ü?".into(), "So:".into(), calls.clone()), "pieces of {size}");
            assert!(output.has_called());
        }
        let (deltas, _) = run(true, 3);
        assert_eq!(joined(&deltas).2, calls[..1]);
    }

    #[test]
    fn every_token_goes_out_once_in_order_and_not_before_its_text() {
        for size in 1..20 {
            let (deltas, _) = run(false, size);
            let tokens: Vec<u32> =
                deltas.iter().flat_map(|delta| &delta.tokens).map(|token| token.logprobs.token).collect();
            let all: Vec<u32> = (0..TEXT.chars().count().div_ceil(size) as u32).collect();
            assert_eq!(tokens, all, "pieces of {size}");
        }
        let (deltas, _) = run(false, 1);
        let begins = deltas.iter().find(|delta| delta.part == Spoken::Content("S".into())).unwrap();
        let starts: Vec<usize> = begins.tokens.iter().map(|token| token.start).collect();
        let tag = TEXT.chars().position(|c| c == '/').unwrap() - 1;
        assert_eq!(starts, (tag..=tag + "</think>\n".len()).collect::<Vec<usize>>());
    }

    #[test]
    fn messages_of_one_kind_are_lines_of_one_text() {
        let answer = "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>\
            <|start|>assistant<|channel|>commentary<|message|>c<|end|><|start|>assistant<|channel|>final<|message|>d\ne";
        for size in 1..answer.len() {
            let parser = CallReading { format: ToolFormat::Harmony, tools: [].into() }.parser();
            let mut output = ChatOutput::new(ReasoningSplitter::off(), Some(parser), false);
            let pieces =
                answer.as_bytes().chunks(size).map(|piece| String::from_utf8_lossy(piece).into_owned());
            let mut deltas: Vec<Delta> = pieces
                .flat_map(|text| output.push(Piece { text, tokens: Vec::new(), count: 1, stopped: false }))
                .collect();
            deltas.extend(output.finish(false));
            assert_eq!(joined(&deltas), ("a\nb".into(), "c\nd\ne".into(), Vec::new()), "pieces of {size}");
        }
    }

    #[test]
    fn reasoning_tokens_are_those_between_the_tags_and_the_closing_one() {
        let (_, output) = run(false, 1);
        assert_eq!(output.reasoning_tokens(), "u?</think>".len());
    }
}
