//! Calls whose arguments are a JSON object: Hermes, Mistral, MiniMax-M1, DeepSeek.

use super::{CallGrammar, Spelling, Written};
use crate::tool_calls::{ToolFormat, deepseek, hermes, minimax_m1};
use serde_json::json;

impl CallGrammar<'_> {
    pub(super) fn objects(&self, spelling: &Spelling) -> Written {
        let mark = |mark| spelling.mark(mark);
        let (calls, between) = match (self.format, self.parallel) {
            (ToolFormat::Mistral, true) => ("\" [\" call (\", \" call)* \"]\"".to_owned(), None),
            (ToolFormat::Mistral, false) => ("\" [\" call \"]\"".to_owned(), None),
            (ToolFormat::MiniMaxM1, true) => {
                (format!("\"\\n\" (call \"\\n\")+ {}", mark(minimax_m1::CLOSE)), None)
            }
            (ToolFormat::MiniMaxM1, false) => {
                (format!("\"\\n\" call \"\\n\" {}", mark(minimax_m1::CLOSE)), None)
            }
            (ToolFormat::DeepSeekV3, true) => {
                (format!("call (\"\\n\" call)* {}", mark(deepseek::CLOSE)), None)
            }
            (ToolFormat::DeepSeekV31, true) => (format!("call+ {}", mark(deepseek::CLOSE)), None),
            (ToolFormat::DeepSeekV3 | ToolFormat::DeepSeekV31, false) => {
                (format!("call {}", mark(deepseek::CLOSE)), None)
            }
            _ => (format!("\"\\n\" call \"\\n\" {}", mark(hermes::CLOSE)), Some("\"\\n\"")),
        };
        let rules = self.tools.iter().zip(self.rule_names()).map(|(tool, rule)| {
            let (before, after) = self.around_arguments(&tool.name, spelling);
            format!("{rule}: {before} %json {} {after}", self.arguments(tool))
        });
        Written { calls, between, rules: rules.collect() }
    }

    /// What stands before the arguments of a call of the function `name`, and after them.
    fn around_arguments(&self, name: &str, spelling: &Spelling) -> (String, String) {
        let mark = |mark| spelling.mark(mark);
        match self.format {
            ToolFormat::DeepSeekV3 => {
                let head = json!(format!("{name}\n{}\n", deepseek::FENCE));
                let (call, separator) = (mark(deepseek::CALL), mark(deepseek::SEPARATOR));
                let after = json!(format!("\n{}", deepseek::FENCE_END));
                (
                    format!("{call} \"function\" {separator} {head}"),
                    format!("{after} {}", mark(deepseek::CALL_END)),
                )
            }
            ToolFormat::DeepSeekV31 => {
                let (call, separator) = (mark(deepseek::CALL), mark(deepseek::SEPARATOR));
                (format!("{call} {} {separator}", json!(name)), mark(deepseek::CALL_END))
            }
            _ => {
                let before = json!(format!("{{\"name\": {}, \"arguments\": ", json!(name)));
                (before.to_string(), "\"}\"".to_owned())
            }
        }
    }
}
