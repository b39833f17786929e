//! How a chat answer is to be read, and what it must be: from the model's family, the tools, and the prompt's end.

use super::tools::ToolUse;
use crate::chat_output::ChatOutput;
use crate::reasoning::{self, ReasoningSplitter};
use crate::served_model::TextSide;
use crate::tool_calls::{CallReading, NotEnforced, Reasons, ToolFormat};

/// How the answers to one prompt are read.
pub(super) struct Reading<'a> {
    pub tool_use: &'a ToolUse,
    pub tool_format: ToolFormat,
    pub side: &'a TextSide,
    pub prompt: &'a str,
}

impl Reading<'_> {
    /// What one answer says.
    pub fn output(&self) -> ChatOutput {
        let reasoning = match self.reasons() {
            Reasons::Never => ReasoningSplitter::off(),
            Reasons::Maybe => ReasoningSplitter::new(),
            Reasons::Inside => ReasoningSplitter::inside(),
        };
        let calls = self.calls().map(|calls| calls.parser());
        ChatOutput::new(reasoning, calls, !self.tool_use.parallel)
    }

    /// How calls are found, if there may be any, or if their format marks more than calls.
    pub fn calls(&self) -> Option<CallReading> {
        let reading = || CallReading { format: self.tool_format, tools: self.tool_use.shown().into() };
        self.looks().then(reading)
    }

    /// The marks that are special tokens, but are looked for in the text.
    pub fn shown(&self) -> Vec<u32> {
        let tags = if self.side.reasons { &reasoning::TAGS[..] } else { &[] };
        let marks = if self.looks() { self.tool_format.spellings() } else { Vec::new() };
        tags.iter().chain(&marks).filter_map(|mark| self.side.tokenizer.special_token(mark)).collect()
    }

    /// The grammar that an answer must follow, if it may not be anything.
    pub fn grammar(&self) -> Result<Option<String>, NotEnforced> {
        let special = |mark: &str| self.side.tokenizer.special_token(mark);
        self.tool_use.grammar(self.tool_format, self.reasons(), special)
    }

    fn looks(&self) -> bool {
        self.tool_use.may_call() || self.tool_format.marks_reasoning()
    }

    /// The reasoning between tags.
    fn reasons(&self) -> Reasons {
        match self.side.reasons && !self.tool_format.marks_reasoning() {
            false => Reasons::Never,
            true if reasoning::begins_inside(self.prompt) => Reasons::Inside,
            true => Reasons::Maybe,
        }
    }
}
