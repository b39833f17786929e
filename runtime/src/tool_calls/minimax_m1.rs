//! MiniMax-M1: `<tool_calls>`, calls as JSON objects on a line each, `</tool_calls>`.
//!
//! Sources: the chat template in MiniMax-M1's tokenizer_config.json, its `docs/function_call_guide.md`, and vLLM's
//! `examples/tool_chat_template_minimax_m1.jinja`. Jamba and Hunyuan have a JSON array between the same tags.

use super::Signs;
use crate::conversation::ToolCall;
use serde_json::json;

pub(super) const OPEN: &str = "<tool_calls>";
pub(super) const CLOSE: &str = "</tool_calls>";

pub(super) const IN_TEMPLATE: Signs =
    Signs { present: &[OPEN, CLOSE, "<args-json-object"], absent: &["<tool_call>"] };

/// The released template leaves out what was called.
pub(super) fn in_text(calls: &[ToolCall]) -> String {
    let line = |ToolCall { function, .. }: &ToolCall| {
        json!({"name": function.name, "arguments": function.arguments}).to_string() + "\n"
    };
    format!("{OPEN}\n{}{CLOSE}", calls.iter().map(line).collect::<String>())
}
