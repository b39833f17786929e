//! Hermes: `<tool_call>\n{"name": …, "arguments": {…}}\n</tool_call>`, one pair of tags a call.
//!
//! Source: NousResearch's Hermes-Function-Calling, taken over by Qwen2.5 and Qwen3.

use super::Signs;
use super::tagged_json::Marks;

pub(super) const MARKS: Marks = Marks { open: "<tool_call>", close: "</tool_call>", list: false };

/// Qwen3-Coder and GLM-4.5 have XML between the same tags.
pub(super) const IN_TEMPLATE: Signs =
    Signs { present: &["<tool_call>", "arguments"], absent: &["<function=", "<arg_key>"] };
