//! A grammar that an answer with tool calls must follow, as text for llguidance: Lark, with JSON schemas inline.
//!
//! Source: llguidance's docs/syntax.md ("Tool calling", "Reasoning/thinking").

mod channels;
mod objects;
mod parameters;

use super::{ToolFormat, glm, minimax_m2, qwen_coder};
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

/// A part of a strict tool's schema that nothing holds the model to, the way it writes calls.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the parameters of '{tool}' cannot be kept strict: this model writes them as text between tags, for which \
    '{keyword}' in {place} cannot be enforced; leave that out, or 'strict'"
)]
pub struct NotEnforced {
    tool: String,
    keyword: &'static str,
    /// The parameter, or the schema as a whole.
    place: String,
}

/// How a family's calls are written, as rules.
struct Written {
    /// The rule `calls`, behind `open`; `call` is one call.
    calls: String,
    /// What stands before another `calls`; none where one holds all calls.
    between: Option<&'static str>,
    /// The rule of each tool's call, and others.
    rules: Vec<String>,
}

impl CallGrammar<'_> {
    /// The grammar's text. `special` gives the id of a mark that is a special token of the tokenizer: to a grammar,
    /// such a token has no text.
    pub fn lark(&self, special: impl Fn(&str) -> Option<u32>) -> Result<String, NotEnforced> {
        let spelling = Spelling { special: &special };
        let written = match self.format {
            ToolFormat::Harmony => return Ok(self.channels(&spelling)),
            ToolFormat::QwenCoder => self.parameters(&qwen_coder::MARKS, &spelling)?,
            ToolFormat::MiniMaxM2 => self.parameters(&minimax_m2::MARKS, &spelling)?,
            ToolFormat::Glm => self.parameters(&glm::MARKS, &spelling)?,
            _ => self.objects(&spelling),
        };
        let reasoning = match self.reasons {
            Reasons::Never => "",
            Reasons::Maybe => "reasoning? ",
            Reasons::Inside => "reasoned ",
        };
        let again = written.between.filter(|_| self.parallel);
        let start = match (self.required, again) {
            (true, Some(between)) => format!("calls ({between} calls)*"),
            (true, None) => "calls".to_owned(),
            (false, Some(_)) => "calls* TEXT".to_owned(),
            (false, None) => "calls? TEXT".to_owned(),
        };
        // Text that may begin with reasoning must not be taken for an answer: a call in it would be none.
        let ambiguous =
            !self.required && self.reasons == Reasons::Maybe && special(reasoning::OPEN).is_none();
        let not_reasoning =
            if ambiguous { format!(" & ~/\\s*{}(?s:.*)/", reasoning::OPEN) } else { String::new() };
        let mut rules = vec![format!("start: {reasoning}{start}"), format!("TEXT: /(?s:.*)/{not_reasoning}")];
        if self.reasons != Reasons::Never {
            rules.push(format!("reasoning: {} reasoned", spelling.mark(reasoning::OPEN)));
            rules.push("reasoned: reasoned_text /[ \\n]{0,4}/".to_owned());
            rules.push(spelling.text_up_to("reasoned_text", "TEXT", reasoning::CLOSE));
        }
        let open = self.format.spellings()[0];
        rules.push(if self.required {
            format!("open: {}", spelling.mark(open))
        } else {
            spelling.text_up_to("open", "TEXT", open)
        });
        rules.push(format!("calls: open {}", written.calls));
        rules.push(format!("call: {}", self.rule_names().collect::<Vec<_>>().join(" | ")));
        rules.extend(written.rules);
        Ok(rules.join("\n"))
    }

    /// The name of the rule for each tool's call.
    fn rule_names(&self) -> impl Iterator<Item = String> {
        (0..self.tools.len()).map(|at| format!("call_{at}"))
    }

    /// The arguments' object. It stands for itself in a grammar, so that references in it lead to its own definitions.
    fn arguments(&self, tool: &Tool) -> Value {
        let any = || json!({"type": "object"});
        with_json_options(if self.is_bound(tool) { tool.schema() } else { any() })
    }

    /// A tool that asks for nothing strict may be called with any object where the model is free to call or not.
    fn is_bound(&self, tool: &Tool) -> bool {
        self.required || tool.strict
    }
}

/// How a grammar spells marks.
struct Spelling<'a> {
    special: &'a dyn Fn(&str) -> Option<u32>,
}

impl Spelling<'_> {
    /// A mark as a grammar matches it.
    fn mark(&self, mark: &str) -> String {
        (self.special)(mark).map_or_else(|| json!(mark).to_string(), |id| format!("<[{id}]>"))
    }

    /// A rule for any text of a `terminal` up to the first `mark`, and the mark.
    fn text_up_to(&self, rule: &str, terminal: &str, mark: &str) -> String {
        let lazy = if (self.special)(mark).is_some() { "" } else { "[lazy]" };
        format!("{rule}{lazy}: {terminal} {}", self.mark(mark))
    }
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
        assert_eq!(grammar.lark(|_| None).unwrap(), lark.replace("SCHEMA", &schema));
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
        let lark = grammar.lark(|mark| (mark == "[TOOL_CALLS]").then_some(5)).unwrap();
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
        assert!(inside.lark(|_| Some(7)).unwrap().contains("start: reasoned calls\n"));
        assert!(inside.lark(|_| Some(7)).unwrap().contains("reasoned_text: TEXT <[7]>\n"));
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
        let lark = grammar.lark(|_| None).unwrap();
        assert!(lark.starts_with("start: calls* TEXT\nTEXT: /(?s:.*)/\n"));
        let thinking = CallGrammar { reasons: Reasons::Maybe, ..grammar }.lark(|_| None).unwrap();
        let start = "start: reasoning? calls* TEXT\nTEXT: /(?s:.*)/ & ~/\\s*<think>(?s:.*)/\n";
        assert!(thinking.starts_with(start), "{thinking}");
        assert!(lark.contains("open[lazy]: TEXT \"<tool_call>\"\n"));
        assert!(lark.contains(
            "call_0: \"{\\\"name\\\": \\\"free\\\", \\\"arguments\\\": \" %json {\"type\":\"object\",\"x-guidance"
        ));
        assert!(lark.contains("%json {\"type\":\"object\",\"required\":[\"x\"],"));
    }
}
