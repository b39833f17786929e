//! Hermes: `<tool_call>\n{"name": …, "arguments": {…}}\n</tool_call>`, one pair of tags a call.
//!
//! Source: NousResearch's Hermes-Function-Calling, taken over by Qwen2.5 and Qwen3.

use super::Signs;

pub(super) const OPEN: &str = "<tool_call>";
pub(super) const CLOSE: &str = "</tool_call>";

/// Qwen3-Coder and GLM-4.5 have XML between the same tags.
pub(super) const IN_TEMPLATE: Signs =
    Signs { present: &[OPEN, "arguments"], absent: &["<function=", "<arg_key>"] };
