//! A grammar that an answer with tool calls must follow, as text for llguidance: Lark, with JSON schemas inline.
//!
//! Source: llguidance's docs/syntax.md ("Tool calling", "Reasoning/thinking").

use super::ToolFormat;
use crate::conversation::Tool;
use crate::grammar::with_json_options;
use crate::reasoning;
use serde_json::{Value, json};

/// What the answer must hold.
#[derive(Clone, Copy, Debug)]
pub struct CallGrammar<'a> {
    /// How the model writes calls.
    pub format: ToolFormat,
    /// The tools that may be called; at least one.
    pub tools: &'a [&'a Tool],
    /// More than one call may come.
    pub parallel: bool,
    /// At least one call must come, and no text beside it. Without it, text may come instead and before.
    pub required: bool,
    /// What may come before.
    pub reasons: Reasons,
}

/// The reasoning that an answer may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reasons {
    /// None.
    Never,
    /// It may, with its tags.
    Maybe,
    /// It does, and the prompt has written the opening tag.
    Inside,
}

impl CallGrammar<'_> {
    /// The grammar's text. `special` gives the id of a mark that is a special token of the tokenizer: to a grammar,
    /// such a token has no text.
    pub fn lark(&self, special: impl Fn(&str) -> Option<u32>) -> String {
        let marks = self.format.marks();
        let reasoning = match self.reasons {
            Reasons::Never => "",
            Reasons::Maybe => "reasoning? ",
            Reasons::Inside => "reasoned ",
        };
        let many = self.parallel && !marks.list;
        let start = match (self.required, many) {
            (true, true) => "calls (\"\\n\" calls)*",
            (true, false) => "calls",
            (false, true) => "calls* TEXT",
            (false, false) => "calls? TEXT",
        };
        // Text that may begin with reasoning must not be taken for an answer: a call in it would be none.
        let ambiguous =
            !self.required && self.reasons == Reasons::Maybe && special(reasoning::OPEN).is_none();
        let not_reasoning =
            if ambiguous { format!(" & ~/\\s*{}(?s:.*)/", reasoning::OPEN) } else { String::new() };
        let mut rules = vec![format!("start: {reasoning}{start}"), format!("TEXT: /(?s:.*)/{not_reasoning}")];
        if self.reasons != Reasons::Never {
            rules.push(format!("reasoning: {} reasoned", spelled(reasoning::OPEN, &special)));
            rules.push("reasoned: reasoned_text /[ \\n]{0,4}/".to_owned());
            rules.push(text_up_to("reasoned_text", reasoning::CLOSE, &special));
        }
        rules.push(if self.required {
            format!("open: {}", spelled(marks.open, &special))
        } else {
            text_up_to("open", marks.open, &special)
        });
        rules.push(match (marks.list, self.parallel) {
            (true, true) => "calls: open \" [\" call (\", \" call)* \"]\"".to_owned(),
            (true, false) => "calls: open \" [\" call \"]\"".to_owned(),
            (false, _) => format!("calls: open \"\\n\" call \"\\n\" {}", spelled(marks.close, &special)),
        });
        let names: Vec<String> = (0..self.tools.len()).map(|at| format!("call_{at}")).collect();
        rules.push(format!("call: {}", names.join(" | ")));
        // The arguments' schema stands for itself, so that references in it lead to its own definitions.
        rules.extend(self.tools.iter().zip(&names).map(|(tool, rule)| {
            let before = json!(format!("{{\"name\": {}, \"arguments\": ", json!(tool.name)));
            format!("{rule}: {before} %json {} \"}}\"", self.schema(tool))
        }));
        rules.join("\n")
    }

    /// A tool that asks for nothing strict may be called with any object where the model is free to call or not.
    fn schema(&self, tool: &Tool) -> Value {
        let any = || json!({"type": "object"});
        with_json_options(if self.required || tool.strict { tool.schema() } else { any() })
    }
}

/// A mark as a grammar matches it.
fn spelled(mark: &str, special: &impl Fn(&str) -> Option<u32>) -> String {
    special(mark).map_or_else(|| json!(mark).to_string(), |id| format!("<[{id}]>"))
}

/// A rule for any text up to the first `mark`, and the mark.
fn text_up_to(rule: &str, mark: &str, special: &impl Fn(&str) -> Option<u32>) -> String {
    let lazy = if special(mark).is_some() { "" } else { "[lazy]" };
    format!("{rule}{lazy}: TEXT {}", spelled(mark, special))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, parameters: Value) -> Tool {
        Tool { name: name.into(), description: None, parameters: Some(parameters), strict: false }
    }

    #[test]
    fn a_required_hermes_call_is_written_as_the_format_says() {
        let tool = tool("get-weather", json!({"type": "object", "properties": {"city": {"type": "string"}}}));
        let grammar = CallGrammar {
            format: ToolFormat::Hermes,
            tools: &[&tool],
            parallel: false,
            required: true,
            reasons: Reasons::Never,
        };
        let lark = "start: calls\n\
            TEXT: /(?s:.*)/\n\
            open: \"<tool_call>\"\n\
            calls: open \"\\n\" call \"\\n\" \"</tool_call>\"\n\
            call: call_0\n\
            call_0: \"{\\\"name\\\": \\\"get-weather\\\", \\\"arguments\\\": \" \
            %json SCHEMA \"}\"";
        let schema = with_json_options(tool.schema()).to_string();
        assert_eq!(grammar.lark(|_| None), lark.replace("SCHEMA", &schema));
    }

    #[test]
    fn special_marks_are_tokens_and_reasoning_goes_first() {
        let (f, g) = (tool("f", json!({})), tool("g", json!({})));
        let grammar = CallGrammar {
            format: ToolFormat::Mistral,
            tools: &[&f, &g],
            parallel: true,
            required: true,
            reasons: Reasons::Maybe,
        };
        let lark = grammar.lark(|mark| (mark == "[TOOL_CALLS]").then_some(5));
        for rule in [
            "start: reasoning? calls\n",
            "reasoning: \"<think>\" reasoned\n",
            "reasoned_text[lazy]: TEXT \"</think>\"\n",
            "open: <[5]>\n",
            "calls: open \" [\" call (\", \" call)* \"]\"\n",
            "call: call_0 | call_1\n",
        ] {
            assert!(lark.contains(rule), "{rule} is not in\n{lark}");
        }
        let inside = CallGrammar { reasons: Reasons::Inside, ..grammar };
        assert!(inside.lark(|_| Some(7)).contains("start: reasoned calls\n"));
        assert!(inside.lark(|_| Some(7)).contains("reasoned_text: TEXT <[7]>\n"));
    }

    #[test]
    fn where_no_call_is_required_only_strict_tools_bind() {
        let schema = json!({"type": "object", "required": ["x"]});
        let (free, strict) = (tool("free", schema.clone()), Tool { strict: true, ..tool("strict", schema) });
        let grammar = CallGrammar {
            format: ToolFormat::Hermes,
            tools: &[&free, &strict],
            parallel: true,
            required: false,
            reasons: Reasons::Never,
        };
        let lark = grammar.lark(|_| None);
        assert!(lark.starts_with("start: calls* TEXT\nTEXT: /(?s:.*)/\n"));
        let thinking = CallGrammar { reasons: Reasons::Maybe, ..grammar }.lark(|_| None);
        let start = "start: reasoning? calls* TEXT\nTEXT: /(?s:.*)/ & ~/\\s*<think>(?s:.*)/\n";
        assert!(thinking.starts_with(start), "{thinking}");
        assert!(lark.contains("open[lazy]: TEXT \"<tool_call>\"\n"));
        assert!(lark.contains(
            "call_0: \"{\\\"name\\\": \\\"free\\\", \\\"arguments\\\": \" %json {\"type\":\"object\",\"x-guidance"
        ));
        assert!(lark.contains("%json {\"type\":\"object\",\"required\":[\"x\"],"));
    }
}
