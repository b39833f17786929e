//! Mistral up to tokenizer version 3: `[TOOL_CALLS] [{"name": …, "arguments": {…}}, …]`.
//!
//! Source: mistral-common's instruct tokenizer v3 and the template of Mixtral-8x22B-Instruct. From version 11 on the
//! form is another: `[TOOL_CALLS]name[ARGS]{…}`.

use super::Signs;

pub(super) const OPEN: &str = "[TOOL_CALLS]";
/// The list's own end.
pub(super) const CLOSE: &str = "]";

pub(super) const IN_TEMPLATE: Signs = Signs { present: &[OPEN], absent: &["[ARGS]"] };

/// The templates refuse ids that are not nine letters or digits.
pub(super) fn call_id(random: u64) -> String {
    format!("{:09x}", random & 0xf_ffff_ffff)
}
