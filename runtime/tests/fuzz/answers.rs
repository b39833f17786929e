//! What a model writes: tool calls and reasoning, found alike however the text is split.

use crate::fuzz::{Target, run};
use coterie_runtime::conversation::Tool;
use coterie_runtime::reasoning::ReasoningSplitter;
use coterie_runtime::tool_calls::{CallReading, FORMATS, Said, ToolFormat};
use serde_json::json;

const WORDS: &[&str] = &[
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "<think>",
    "</think>",
    "\"name\"",
    "\"arguments\"",
    "{",
    "}",
    "[",
    "]",
    ": ",
    ", ",
    "\\\"",
    "\\u00e4",
    "{}",
    "null",
    "<tool",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    "```json",
    "<function=",
    "</function>",
    "<parameter=",
    "</parameter>",
    "<tool_calls>",
    "</tool_calls>",
    "<minimax:tool_call>",
    "<invoke name=\"",
    "</invoke>",
    "<parameter name=\"",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<|start|>assistant",
    "<|channel|>",
    "commentary to=functions.f",
    "<|message|>",
    "<|end|>",
    "<|call|>",
    "</",
    "🦀",
    "\n",
];

#[test]
fn tool_calls() {
    let target = Target {
        name: "tool_calls",
        inputs: 2_000,
        json: false,
        words: WORDS,
        repair: |_| {},
        memory: |input| (16 << 20) + 200 * input,
    };
    run(&target, |input| {
        let text = String::from_utf8_lossy(input);
        let found = FORMATS.map(|format| {
            let whole = calls(format, [&*text].into_iter());
            assert_eq!(calls(format, pieces(&text)), whole, "{format:?} of {text:?}");
            whole.iter().filter(|said| matches!(said, Said::CallBegins { .. })).count()
        });
        let calls = found.map(|calls| format!("{} calls, ", "x".repeat(calls.min(3)))).concat();
        format!("{calls}{}", thoughts(&text))
    });
}

/// What was said, neighbours of one kind together.
fn calls<'a>(format: ToolFormat, pieces: impl Iterator<Item = &'a str>) -> Vec<Said> {
    let mut parser = CallReading { format, tools: [tool()].into() }.parser();
    let mut steps: Vec<_> = pieces.flat_map(|piece| parser.push(piece)).collect();
    steps.extend(parser.finish(false));
    assert!(steps.is_sorted_by_key(|step| step.end));
    let mut together: Vec<Said> = Vec::new();
    for step in steps {
        match (together.last_mut(), step.said) {
            (Some(Said::Text(before)), Said::Text(more)) => before.push_str(&more),
            (Some(Said::Reasoning(before)), Said::Reasoning(more)) => before.push_str(&more),
            (Some(Said::Arguments(before)), Said::Arguments(more)) => before.push_str(&more),
            (_, said) => together.push(said),
        }
    }
    together
}

/// A tool of which the types of two parameters are known.
fn tool() -> Tool {
    let parameters = json!({"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}});
    Tool { name: "weather".into(), description: None, parameters: Some(parameters), strict: false }
}

/// `text` in pieces of one to seven characters, always the same.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let (mut rest, mut turn) = (text, text.len());
    std::iter::from_fn(move || {
        turn = turn.wrapping_mul(5).wrapping_add(3);
        let end = rest.char_indices().nth(1 + turn % 7).map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Whether the text holds reasoning.
fn thoughts(text: &str) -> &'static str {
    let split = |mut splitter: ReasoningSplitter, pieces: &mut dyn Iterator<Item = &str>| {
        let mut stretches: Vec<_> = pieces.flat_map(|piece| splitter.push(piece)).collect();
        stretches.extend(splitter.finish());
        let of_kind = |reasoning| -> String {
            stretches.iter().filter(|s| s.reasoning == reasoning).map(|s| s.text.as_str()).collect()
        };
        (of_kind(true), of_kind(false))
    };
    for splitter in [ReasoningSplitter::new, ReasoningSplitter::inside] {
        let whole = split(splitter(), &mut [text].into_iter());
        assert_eq!(split(splitter(), &mut pieces(text)), whole, "{text:?}");
    }
    if split(ReasoningSplitter::new(), &mut [text].into_iter()).0.is_empty() { "" } else { " thought" }
}
