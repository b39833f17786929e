//! Harmony: messages in channels. The prompt has written the first one's `<|start|>assistant`.

use super::{CallGrammar, Spelling};
use crate::tool_calls::harmony::{CHANNEL, CONSTRAIN, END, MESSAGE, START};
use serde_json::json;

impl CallGrammar<'_> {
    /// Thoughts, and then one call: the mark behind a call ends the answer.
    pub(super) fn channels(&self, spelling: &Spelling) -> String {
        let mark = |mark| spelling.mark(mark);
        let (channel, constrain, message) = (mark(CHANNEL), mark(CONSTRAIN), mark(MESSAGE));
        let (start, before) = if self.required {
            ("before* call", "\"analysis\"")
        } else {
            ("before* (call | final)", "(\"analysis\" | \"commentary\")")
        };
        let mut rules = vec![
            format!("start: {start}"),
            "TEXT: /(?s:.*)/".to_owned(),
            format!("before: {channel} {before} {message} ended {} \"assistant\"", mark(START)),
            spelling.text_up_to("ended", "TEXT", END),
        ];
        if !self.required {
            rules.push(format!("final: {channel} \"final\" {message} TEXT"));
        }
        rules.push(format!("call: {}", self.rule_names().collect::<Vec<_>>().join(" | ")));
        rules.extend(self.tools.iter().zip(self.rule_names()).map(|(tool, rule)| {
            let to = json!(format!("commentary to=functions.{} ", tool.name));
            let arguments = self.arguments(tool);
            format!("{rule}: {channel} {to} {constrain} \"json\" {message} %json {arguments}")
        }));
        rules.join("\n")
    }
}
