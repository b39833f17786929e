//! GLM-4.5: `<tool_call>NAME\n<arg_key>NAME</arg_key>\n<arg_value>VALUE</arg_value>\n</tool_call>`, one pair of outer
//! tags a call; from GLM-4.7 on without the line ends.
//!
//! Sources: the chat templates of GLM-4.5 and GLM-4.6, in llama.cpp's `models/templates`.

use super::Signs;
use super::tagged_parameters::ParameterMarks;

pub(super) const MARKS: ParameterMarks = ParameterMarks {
    open: "<tool_call>",
    close: "</tool_call>",
    function: None,
    named: "</arg_key>",
    function_end: "</tool_call>",
    parameter: "<arg_key>",
    value: Some("<arg_value>"),
    value_end: "</arg_value>",
    on_lines: false,
    several: false,
};

pub(super) const IN_TEMPLATE: Signs =
    Signs { present: &["<tool_call>", "<arg_key>", "<arg_value>"], absent: &["<function="] };
