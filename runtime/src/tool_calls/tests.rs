mod families;
mod properties;
mod templates;

use super::*;
use serde_json::json;
use std::time::{Duration, Instant};

/// Everything that a parser said, neighbours joined.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    text: String,
    reasoning: String,
    calls: Vec<(String, String)>,
}

/// What the tests call; functions of other names have no schema.
fn reading(format: ToolFormat) -> CallReading {
    let parameters = json!({"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}, "deep": {"type": "object"},
    }});
    let tool =
        Tool { name: "weather".into(), description: None, parameters: Some(parameters), strict: false };
    CallReading { format, tools: [tool].into() }
}

fn hear<'a>(format: ToolFormat, pieces: impl IntoIterator<Item = &'a str>) -> Heard {
    hear_until(format, pieces, false)
}

/// As `hear`, of a text that may have been `cut`.
fn hear_until<'a>(format: ToolFormat, pieces: impl IntoIterator<Item = &'a str>, cut: bool) -> Heard {
    let mut parser = reading(format).parser();
    let (mut heard, mut end, mut given) = (Heard::default(), 0, 0);
    let mut take = |steps: Vec<Step>, given: usize| {
        for step in steps {
            assert!(step.end >= end && step.end <= given, "{step:?} after {end}, with {given} given");
            end = step.end;
            match step.said {
                Said::Text(text) => heard.text.push_str(&text),
                Said::Reasoning(text) => heard.reasoning.push_str(&text),
                Said::MessageBegins => {}
                Said::CallBegins { name } => heard.calls.push((name, String::new())),
                Said::Arguments(more) => heard.calls.last_mut().unwrap().1.push_str(&more),
            }
        }
    };
    for piece in pieces {
        given += piece.chars().count();
        take(parser.push(piece), given);
    }
    take(parser.finish(cut), given);
    heard
}

/// In pieces of so many characters.
fn in_pieces(format: ToolFormat, text: &str, size: usize) -> Heard {
    let chars: Vec<char> = text.chars().collect();
    let pieces: Vec<String> = chars.chunks(size).map(|piece| piece.iter().collect()).collect();
    hear(format, pieces.iter().map(String::as_str))
}

fn heard(text: &str, calls: &[(&str, &str)]) -> Heard {
    let calls = calls.iter().map(|(name, arguments)| ((*name).into(), (*arguments).into())).collect();
    Heard { text: text.into(), reasoning: String::new(), calls }
}

fn check(format: ToolFormat, text: &str, expected: &Heard) {
    for size in 1..=text.chars().count() {
        assert_eq!(in_pieces(format, text, size), *expected, "{text:?} in pieces of {size}");
    }
}

#[test]
fn hermes_calls_are_found_in_any_split() {
    let call =
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"ü </tool_call> \\\" 🦀\"}}\n</tool_call>";
    let arguments = "{\"a\": \"ü </tool_call> \\\" 🦀\"}";
    let cases = [
        (call.to_owned(), heard("", &[("f", arguments)])),
        (format!("Let me see.\n\n{call}\n"), heard("Let me see.", &[("f", arguments)])),
        (format!("{call}\n{call}{call}"), heard("", &[("f", arguments); 3])),
        (format!("a{call}\nDone. "), heard("a\nDone. ", &[("f", arguments)])),
        (
            "<tool_call>{\"arguments\": {\"x\": [1]}, \"name\": \"g\"}</tool_call>".into(),
            heard("", &[("g", "{\"x\": [1]}")]),
        ),
        ("<tool_call>{\"name\": \"now\"}</tool_call>".into(), heard("", &[("now", "{}")])),
        // The model ended its answer without the closing tag, or in it.
        ("<tool_call>{\"name\": \"f\", \"arguments\": {}}".into(), heard("", &[("f", "{}")])),
        ("<tool_call>{\"name\": \"f\", \"arguments\": {}}\n</tool".into(), heard("", &[("f", "{}")])),
    ];
    for (text, expected) in cases {
        check(ToolFormat::Hermes, &text, &expected);
    }
}

#[test]
fn what_is_no_call_stays_text() {
    for text in [
        "plain text, a < b <tool",
        "  \n ",
        "the tag <tool_call> is written so: <tool_call> {\"name\": …",
        "<tool_call>\n{\"name\": \"f\", \"arguments\": [1]}\n</tool_call>",
        "<tool_call>{\"name\": 5}</tool_call>",
        "\n<tool_call>{\"name\": \"f\", \"argum",
        "<tool_call></tool_call>",
        "<tool_call>{\"function\": \"f\"}</tool_call> and more",
    ] {
        check(ToolFormat::Hermes, text, &heard(text, &[]));
    }
    let after_a_false_one = "<tool_call><tool_call>{\"name\": \"f\"}</tool_call>";
    check(ToolFormat::Hermes, after_a_false_one, &heard("<tool_call>", &[("f", "{}")]));
}

#[test]
fn arguments_that_break_off_keep_what_came_and_the_rest_is_text() {
    check(
        ToolFormat::Hermes,
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1] oops",
        &heard("] oops", &[("f", "{\"a\": 1")]),
    );
    check(
        ToolFormat::Hermes,
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"cut",
        &heard("", &[("f", "{\"a\": \"cut")]),
    );
    check(
        ToolFormat::Hermes,
        "<tool_call>{\"name\": \"f\", \"arguments\": {}, oops}</tool_call>",
        &heard(", oops}</tool_call>", &[("f", "{}")]),
    );
}

#[test]
fn of_a_call_that_is_cut_nothing_is_text() {
    let hermes = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}, \"id\": 1}\n</tool_call>";
    let mistral = "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\"}]";
    for (format, marks) in [(ToolFormat::Hermes, hermes), (ToolFormat::Mistral, mistral)] {
        for end in 1..=marks.len() {
            let text = format!("Hm. {}", &marks[..end]);
            assert_eq!(hear_until(format, [text.as_str()], true).text, "Hm.", "{text}");
        }
        // What is no call is text, cut or not.
        for text in ["a \n", "x < y", "<tool_call>[1]", "[TOOL_CALLS]x"] {
            let heard = hear_until(format, [text], true);
            assert_eq!((heard.text.as_str(), heard.calls.len()), (text, 0));
        }
    }
}

#[test]
fn mistral_lists_of_calls_are_found_in_any_split() {
    let one = "{\"name\": \"f\", \"arguments\": {\"a\": \"[]\"}}";
    let two = "{\"name\": \"g\", \"arguments\": {}, \"id\": \"abc123def\"}";
    check(
        ToolFormat::Mistral,
        &format!("[TOOL_CALLS] [{one}, {two}]"),
        &heard("", &[("f", "{\"a\": \"[]\"}"), ("g", "{}")]),
    );
    check(
        ToolFormat::Mistral,
        &format!("Sure. [TOOL_CALLS][{one}]"),
        &heard("Sure.", &[("f", "{\"a\": \"[]\"}")]),
    );
    check(
        ToolFormat::Mistral,
        &format!("[TOOL_CALLS] [{one}, then"),
        &heard(", then", &[("f", "{\"a\": \"[]\"}")]),
    );
    for text in ["[TOOL_CALLS] []", "[TOOL_CALLS] none", "[TOOL"] {
        check(ToolFormat::Mistral, text, &heard(text, &[]));
    }
}

/// A parser that looked at what it holds again with every piece would take minutes.
#[test]
fn a_megabyte_is_read_in_linear_time() {
    let long = "x".repeat(1 << 20);
    use ToolFormat::{DeepSeekV3, Glm, Harmony, Hermes, MiniMaxM2, QwenCoder};
    for (format, text) in [
        (Hermes, format!("<tool_call>{{\"name\": \"f\", \"arguments\": {{\"a\": \"{long}\"}}}}</tool_call>")),
        (Hermes, format!("<tool_call>{{\"arguments\": {{\"a\": \"{long}\"}}, \"name\": \"f\"}}</tool_call>")),
        (Hermes, format!("<tool_call>{{\"name\": \"{long}")),
        (Hermes, " ".repeat(1 << 20)),
        (Hermes, "<tool_call>".repeat(100_000)),
        (DeepSeekV3, "<｜tool▁calls▁begin｜>".repeat(60_000)),
        (DeepSeekV3, format!("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{long}")),
        (QwenCoder, format!("<tool_call><function=weather><parameter=days>{long}</parameter>")),
        (QwenCoder, format!("<tool_call><function=weather><parameter=city>{}", "\n</para".repeat(150_000))),
        (MiniMaxM2, "<minimax:tool_call><invoke name=\"".repeat(40_000)),
        (Glm, format!("<tool_call>{long}")),
        (Glm, "<tool_call>f<arg_key>a</arg_key>".repeat(120_000)),
        (Harmony, "<|start|>".repeat(120_000)),
        (Harmony, format!("<|channel|>{long}")),
        (Harmony, "<|start|>assistant<|channel|>".repeat(40_000)),
        (Harmony, format!("<|channel|>commentary to=functions.f<|message|>{{\"a\": \"{long}\"}}")),
    ] {
        let begun = Instant::now();
        let bytes: Vec<String> = text.chars().map(String::from).collect();
        let heard = hear(format, bytes.iter().map(String::as_str));
        assert!(
            heard.text.len() + heard.calls.iter().map(|(_, arguments)| arguments.len()).sum::<usize>()
                >= 1 << 20
        );
        assert!(begun.elapsed() < Duration::from_secs(30), "took {:?}", begun.elapsed());
    }
}
