//! Tool calls in what a model writes. Each family writes them in its own way; a family is a file here, with the
//! format's source, and a line in each function of [`ToolFormat`].

mod call_object;
mod deepseek;
mod found;
mod glm;
mod grammar;
mod harmony;
mod harmony_header;
mod hermes;
mod json_calls;
mod json_scanner;
mod marks;
mod minimax_m1;
mod minimax_m2;
mod mistral;
mod parameter_types;
mod parameter_value;
mod qwen_coder;
mod tagged;
mod tagged_parameters;

use crate::conversation::{Tool, ToolCall};
use deepseek::DeepSeekCalls;
pub use grammar::{CallGrammar, NotEnforced, Reasons};
use harmony::Harmony;
use json_calls::{JsonCalls, Style};
use std::fmt::Debug;
use std::sync::Arc;
use tagged::Tagged;
use tagged_parameters::{ParameterCalls, ParameterMarks};

/// How a family writes tool calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>{…}</tool_call>`, one pair of tags a call: Hermes, Qwen2.5, Qwen3.
    Hermes,
    /// `[TOOL_CALLS] [{…}, {…}]`: Mistral and Mixtral up to tokenizer version 3.
    Mistral,
    /// `<｜tool▁calls▁begin｜>`, with the arguments in a code block: DeepSeek-V3 and R1.
    DeepSeekV3,
    /// The same without code blocks: DeepSeek-V3.1.
    DeepSeekV31,
    /// `<tool_call><function=…><parameter=…>`: Qwen3-Coder.
    QwenCoder,
    /// `<tool_calls>` with an object a line: MiniMax-M1.
    MiniMaxM1,
    /// `<minimax:tool_call><invoke name="…"><parameter name="…">`: MiniMax-M2.
    MiniMaxM2,
    /// `<tool_call>NAME<arg_key>…<arg_value>…`: GLM-4.5.
    Glm,
    /// Messages in channels, `<|channel|>…<|message|>…`, reasoning and content, too: GPT-OSS.
    Harmony,
}

/// All formats.
pub const FORMATS: [ToolFormat; 9] = [
    ToolFormat::Hermes,
    ToolFormat::Mistral,
    ToolFormat::DeepSeekV3,
    ToolFormat::DeepSeekV31,
    ToolFormat::QwenCoder,
    ToolFormat::MiniMaxM1,
    ToolFormat::MiniMaxM2,
    ToolFormat::Glm,
    ToolFormat::Harmony,
];

/// How the answers to one request are looked into.
#[derive(Clone, Debug)]
pub struct CallReading {
    /// How calls are written.
    pub format: ToolFormat,
    /// The tools that may be called; their schemas tell strings from numbers where the format does not. Where there are
    /// none, there are no calls.
    pub tools: Arc<[Tool]>,
}

/// Finds tool calls in text that comes in pieces, in whatever places it is split.
pub trait CallParser: Debug + Send {
    /// Adds a piece.
    fn push(&mut self, piece: &str) -> Vec<Step>;
    /// A call has begun and is not whole.
    fn is_within_call(&self) -> bool;
    /// What comes now is reasoning, as far as can be told.
    fn is_reasoning(&self) -> bool {
        false
    }
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
    /// What the model thinks, where its format marks that, too; never empty.
    Reasoning(String),
    /// A message begins that is no call, where an answer may have several.
    MessageBegins,
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
        FORMATS.into_iter().find(|format| format.signs().are_in(template))
    }

    /// An id for a call, made of a random number, in a form that the family's templates take back.
    pub fn call_id(self, random: u64) -> String {
        match self {
            ToolFormat::Mistral => mistral::call_id(random),
            _ => format!("call_{random:016x}"),
        }
    }

    /// The marks' spellings; a tokenizer may have tokens for them that are not shown otherwise.
    pub fn spellings(self) -> Vec<&'static str> {
        match self {
            ToolFormat::Hermes => vec![hermes::OPEN, hermes::CLOSE],
            ToolFormat::Mistral => vec![mistral::OPEN, mistral::CLOSE],
            ToolFormat::MiniMaxM1 => vec![minimax_m1::OPEN, minimax_m1::CLOSE],
            ToolFormat::DeepSeekV3 | ToolFormat::DeepSeekV31 => deepseek::MARKS.into(),
            ToolFormat::QwenCoder => qwen_coder::MARKS.spellings(),
            ToolFormat::MiniMaxM2 => minimax_m2::MARKS.spellings(),
            ToolFormat::Glm => glm::MARKS.spellings(),
            ToolFormat::Harmony => harmony::MARKS.into(),
        }
    }

    /// The format tells reasoning, too, without the usual tags, and in answers that hold no calls.
    pub fn marks_reasoning(self) -> bool {
        self == ToolFormat::Harmony
    }

    /// Its models think between the usual tags, although neither their templates nor their tokenizers have them.
    pub fn thinks(self) -> bool {
        self == ToolFormat::MiniMaxM1
    }

    /// What tells the model of its tools where its template does not, from their definitions, one a line; none where
    /// that is not known.
    pub fn instructions(self, definitions: &str) -> Option<String> {
        match self {
            ToolFormat::DeepSeekV3 => Some(deepseek::instructions(definitions, true)),
            ToolFormat::DeepSeekV31 => Some(deepseek::instructions(definitions, false)),
            _ => None,
        }
    }

    /// `calls` as the model writes them, for templates that do not; none where all that are known do.
    pub fn in_text(self, calls: &[ToolCall]) -> Option<String> {
        (self == ToolFormat::MiniMaxM1).then(|| minimax_m1::in_text(calls))
    }

    fn signs(self) -> Signs {
        match self {
            ToolFormat::Hermes => hermes::IN_TEMPLATE,
            ToolFormat::Mistral => mistral::IN_TEMPLATE,
            ToolFormat::DeepSeekV3 => deepseek::V3_IN_TEMPLATE,
            ToolFormat::DeepSeekV31 => deepseek::V31_IN_TEMPLATE,
            ToolFormat::QwenCoder => qwen_coder::IN_TEMPLATE,
            ToolFormat::MiniMaxM1 => minimax_m1::IN_TEMPLATE,
            ToolFormat::MiniMaxM2 => minimax_m2::IN_TEMPLATE,
            ToolFormat::Glm => glm::IN_TEMPLATE,
            ToolFormat::Harmony => harmony::IN_TEMPLATE,
        }
    }
}

impl CallReading {
    /// A parser for one answer.
    pub fn parser(&self) -> Box<dyn CallParser> {
        let json = |style, open, close| Box::new(Tagged::new(open, JsonCalls::new(style, close)));
        match self.format {
            ToolFormat::Hermes => json(Style::One, hermes::OPEN, hermes::CLOSE),
            ToolFormat::Mistral => json(Style::List, mistral::OPEN, mistral::CLOSE),
            ToolFormat::MiniMaxM1 => json(Style::Lines, minimax_m1::OPEN, minimax_m1::CLOSE),
            ToolFormat::DeepSeekV3 | ToolFormat::DeepSeekV31 => {
                Box::new(Tagged::new(deepseek::OPEN, DeepSeekCalls::new()))
            }
            ToolFormat::QwenCoder => self.parameters(&qwen_coder::MARKS),
            ToolFormat::MiniMaxM2 => self.parameters(&minimax_m2::MARKS),
            ToolFormat::Glm => self.parameters(&glm::MARKS),
            ToolFormat::Harmony => Box::new(Harmony::new(!self.tools.is_empty())),
        }
    }

    fn parameters(&self, marks: &'static ParameterMarks) -> Box<dyn CallParser> {
        Box::new(Tagged::new(marks.open, ParameterCalls::new(marks, self.tools.clone())))
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
