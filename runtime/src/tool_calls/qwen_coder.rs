//! Qwen3-Coder: `<tool_call>\n<function=NAME>\n<parameter=NAME>\nVALUE\n</parameter>\n</function>\n</tool_call>`, one pair
//! of outer tags a call.
//!
//! Sources: the chat template of Qwen3-Coder-30B-A3B-Instruct, in vLLM's `examples/tool_chat_template_qwen3coder.jinja`.

use super::Signs;
use super::tagged_parameters::ParameterMarks;

pub(super) const MARKS: ParameterMarks = ParameterMarks {
    open: "<tool_call>",
    close: "</tool_call>",
    function: Some("<function="),
    named: ">",
    function_end: "</function>",
    parameter: "<parameter=",
    value: None,
    value_end: "</parameter>",
    on_lines: true,
    several: false,
};

pub(super) const IN_TEMPLATE: Signs =
    Signs { present: &["<tool_call>", "<function=", "<parameter="], absent: &["<arg_key>"] };
