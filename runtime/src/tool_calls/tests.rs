use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Everything that a parser said, neighbours joined.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    text: String,
    calls: Vec<(String, String)>,
}

fn hear<'a>(format: ToolFormat, pieces: impl IntoIterator<Item = &'a str>) -> Heard {
    hear_until(format, pieces, false)
}

/// As `hear`, of a text that may have been `cut`.
fn hear_until<'a>(format: ToolFormat, pieces: impl IntoIterator<Item = &'a str>, cut: bool) -> Heard {
    let mut parser = format.parser();
    let (mut heard, mut end, mut given) = (Heard::default(), 0, 0);
    let mut take = |steps: Vec<Step>, given: usize| {
        for step in steps {
            assert!(step.end >= end && step.end <= given, "{step:?} after {end}, with {given} given");
            end = step.end;
            match step.said {
                Said::Text(text) => heard.text.push_str(&text),
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
    Heard { text: text.into(), calls }
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

#[test]
fn a_template_tells_its_format() {
    let hermes = r#"{{ "<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}" }}"#;
    assert_eq!(ToolFormat::of_template(hermes), Some(ToolFormat::Hermes));
    assert_eq!(ToolFormat::of_template(r#"{{ "[TOOL_CALLS] [" }}"#), Some(ToolFormat::Mistral));
    for other in [
        "{{ messages }}",
        "<tool_call>\n<function=name>\n<parameter=arguments>",
        "<tool_call>{name}\n<arg_key>{arguments}",
        "[TOOL_CALLS]name[ARGS]{",
        "<tool_calls>{\"name\": \"\", \"arguments\": {}}",
    ] {
        assert_eq!(ToolFormat::of_template(other), None, "{other}");
    }
    assert_eq!(ToolFormat::Mistral.call_id(u64::MAX), "fffffffff");
    assert_eq!(ToolFormat::Hermes.call_id(10), "call_000000000000000a");
}

/// A parser that looked at what it holds again with every piece would take minutes.
#[test]
fn a_megabyte_is_read_in_linear_time() {
    let long = "x".repeat(1 << 20);
    for text in [
        format!("<tool_call>{{\"name\": \"f\", \"arguments\": {{\"a\": \"{long}\"}}}}</tool_call>"),
        format!("<tool_call>{{\"arguments\": {{\"a\": \"{long}\"}}, \"name\": \"f\"}}</tool_call>"),
        format!("<tool_call>{{\"name\": \"{long}"),
        " ".repeat(1 << 20),
        "<tool_call>".repeat(100_000),
    ] {
        let begun = Instant::now();
        let bytes: Vec<String> = text.chars().map(String::from).collect();
        let heard = hear(ToolFormat::Hermes, bytes.iter().map(String::as_str));
        assert!(
            heard.text.len() + heard.calls.iter().map(|(_, arguments)| arguments.len()).sum::<usize>()
                >= 1 << 20
        );
        assert!(begun.elapsed() < Duration::from_secs(30), "took {:?}", begun.elapsed());
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~\n\"\\\\é🦀<>/]{0,12}".prop_map(Value::from),
        Just(json!("</tool_call>")),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z\"\\\\]{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_arguments_come_out_as_they_went_in(
        arguments in prop::collection::btree_map("[a-z]{1,5}", any_json(), 0..4),
        pretty: bool,
        cuts in prop::collection::vec(1usize..9, 1..400),
    ) {
        let arguments = Value::Object(arguments.into_iter().collect());
        let call = json!({"name": "f", "arguments": arguments});
        let call = if pretty { serde_json::to_string_pretty(&call).unwrap() } else { call.to_string() };
        let text = format!("Hm.\n<tool_call>\n{call}\n</tool_call>");
        let (mut pieces, mut rest, mut cut) = (Vec::new(), text.as_str(), cuts.iter().cycle());
        while let Some(size) = cut.next().filter(|_| !rest.is_empty()) {
            let (piece, after) = rest.split_at(rest.ceil_char_boundary(*size.min(&rest.len())));
            pieces.push(piece);
            rest = after;
        }
        let heard = hear(ToolFormat::Hermes, pieces);
        prop_assert_eq!(&heard.text, "Hm.");
        prop_assert_eq!(serde_json::from_str::<Value>(&heard.calls[0].1).unwrap(), arguments);
        prop_assert_eq!(heard.calls.len(), 1);
    }

    #[test]
    fn any_text_is_read_the_same_whatever_its_split(
        words in prop::collection::vec(prop_oneof![
            Just("<tool_call>"), Just("</tool_call>"), Just("\n"), Just(" "), Just("{\"name\": \"f\""), Just(","),
            Just("\"arguments\": {"), Just("}"), Just("\"a\": \"é\\\""), Just("\""), Just("x"), Just("[1]"), Just("<"),
        ], 0..40),
        size in 1usize..8,
    ) {
        let text = words.concat();
        prop_assert_eq!(in_pieces(ToolFormat::Hermes, &text, size), hear(ToolFormat::Hermes, [text.as_str()]));
    }
}
