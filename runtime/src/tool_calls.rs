//! Tool calls in what a model writes. Each family writes them in its own way; a family is a file here, with the
//! format's source, and a line in each function of [`ToolFormat`].

mod call_object;
mod grammar;
mod hermes;
mod json_scanner;
mod mistral;
mod tagged_json;

pub use grammar::{CallGrammar, Reasons};
use std::fmt::Debug;
use tagged_json::{Marks, TaggedJson};

/// How a family writes tool calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>{…}</tool_call>`, one pair of tags a call: Hermes, Qwen2.5, Qwen3.
    Hermes,
    /// `[TOOL_CALLS] [{…}, {…}]`: Mistral and Mixtral up to tokenizer version 3.
    Mistral,
}

/// Finds tool calls in text that comes in pieces, in whatever places it is split.
pub trait CallParser: Debug + Send {
    /// Adds a piece.
    fn push(&mut self, piece: &str) -> Vec<Step>;
    /// A call has begun and is not whole.
    fn is_within_call(&self) -> bool;
    /// Nothing follows: gives out what was held back. Where the text was `cut`, what may have become a call is dropped.
    fn finish(&mut self, cut: bool) -> Vec<Step>;
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is.
    pub said: Said,
    /// It reaches to this character of the text, counted from the first piece's beginning.
    pub end: usize,
}

/// What a text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Text; never empty.
    Text(String),
    /// A call of this function begins. The function need not exist.
    CallBegins {
        /// The function.
        name: String,
    },
    /// More of the arguments of the call that began last: JSON, as it was generated.
    Arguments(String),
}

impl ToolFormat {
    /// The format that a chat template asks the model for; none if it is one that is not known here.
    pub fn of_template(template: &str) -> Option<ToolFormat> {
        let formats =
            [(ToolFormat::Hermes, hermes::IN_TEMPLATE), (ToolFormat::Mistral, mistral::IN_TEMPLATE)];
        formats.into_iter().find(|(_, signs)| signs.are_in(template)).map(|(format, _)| format)
    }

    /// A parser for one answer.
    pub fn parser(self) -> Box<dyn CallParser> {
        Box::new(TaggedJson::new(self.marks()))
    }

    /// An id for a call, made of a random number, in a form that the family's templates take back.
    pub fn call_id(self, random: u64) -> String {
        match self {
            ToolFormat::Hermes => format!("call_{random:016x}"),
            ToolFormat::Mistral => mistral::call_id(random),
        }
    }

    /// The marks' spellings; a tokenizer may have tokens for them that are not shown otherwise.
    pub fn spellings(self) -> [&'static str; 2] {
        [self.marks().open, self.marks().close]
    }

    fn marks(self) -> Marks {
        match self {
            ToolFormat::Hermes => hermes::MARKS,
            ToolFormat::Mistral => mistral::MARKS,
        }
    }
}

/// What tells a family's template from others'.
struct Signs {
    present: &'static [&'static str],
    absent: &'static [&'static str],
}

impl Signs {
    fn are_in(&self, template: &str) -> bool {
        self.present.iter().all(|sign| template.contains(sign))
            && !self.absent.iter().any(|sign| template.contains(sign))
    }
}

#[cfg(test)]
mod tests;
