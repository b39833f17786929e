//! MiniMax-M2: `<minimax:tool_call>\n<invoke name="NAME">\n<parameter name="NAME">VALUE</parameter>\n</invoke>\n
//! </minimax:tool_call>`, all calls between one pair of outer tags.
//!
//! Sources: the chat template of MiniMax-M2 and `docs/tool_calling_guide.md` of MiniMax-M2.5, which has the same form.

use super::Signs;
use super::tagged_parameters::ParameterMarks;

pub(super) const MARKS: ParameterMarks = ParameterMarks {
    open: "<minimax:tool_call>",
    close: "</minimax:tool_call>",
    function: Some("<invoke name=\""),
    named: "\">",
    function_end: "</invoke>",
    parameter: "<parameter name=\"",
    value: None,
    value_end: "</parameter>",
    on_lines: false,
    several: true,
};

pub(super) const IN_TEMPLATE: Signs =
    Signs { present: &["<minimax:tool_call>", "<invoke name=", "<parameter name="], absent: &[] };
