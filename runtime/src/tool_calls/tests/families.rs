//! Each family's calls as its chat template writes them, and what its models make of them; split at every place.

use super::*;
use ToolFormat::{DeepSeekV3, DeepSeekV31, Glm, Harmony, MiniMaxM1, MiniMaxM2, QwenCoder};

/// In any two pieces, and character by character.
fn check_splits(format: ToolFormat, text: &str, expected: &Heard) {
    for (at, _) in text.char_indices() {
        let (before, after) = text.split_at(at);
        assert_eq!(hear(format, [before, after]), *expected, "{before:?} and {after:?}");
    }
    assert_eq!(in_pieces(format, text, 1), *expected, "{text:?}");
}

fn check_all(format: ToolFormat, cases: &[(&str, Heard)]) {
    for (text, expected) in cases {
        check_splits(format, text, expected);
    }
}

const CITY: &str = "{\"city\": \"Köln\"}";

#[test]
fn deepseek_calls() {
    let v3 = "Look:\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Köln\"}\n```\
        <｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    let v31 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Köln\"}<｜tool▁call▁end｜>\
        <｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    let both = [("weather", CITY), ("now", "{}")];
    for format in [DeepSeekV3, DeepSeekV31] {
        check_all(
            format,
            &[
                (v3, heard("Look:", &both)),
                (v31, heard("", &both)),
                // The model mixed both, forgot the end, or went on.
                (
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>\n```json\n{\"city\": \"Köln\"}\n```<｜tool▁call▁end｜>",
                    heard("", &[("weather", CITY)]),
                ),
                (
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
                    heard("", &[("now", "{}")]),
                ),
                (
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜> so",
                    heard(" so", &[("now", "{}")]),
                ),
                (
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{\"a\": ",
                    heard("", &[("now", "{\"a\": ")]),
                ),
            ],
        );
        for text in [
            "<｜tool▁calls▁begin｜><｜tool▁calls▁end｜>",
            "<｜tool▁calls▁begin｜> is a mark",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```python\n{}",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜><｜tool▁sep｜>{}",
        ] {
            check_splits(format, text, &heard(text, &[]));
        }
    }
}

#[test]
fn qwen_coder_calls() {
    check_all(
        QwenCoder,
        &[
            (
                "Look:\n<tool_call>\n<function=weather>\n<parameter=city>\n a\n</b>\n\n</parameter>\n<parameter=days>\n3\n</parameter>\n\
             <parameter=deep>\n{\"x\": [1]}\n</parameter>\n</function>\n</tool_call>\n",
                heard(
                    "Look:",
                    &[("weather", "{\"city\": \" a\\n</b>\\n\", \"days\": 3, \"deep\": {\"x\": [1]}}")],
                ),
            ),
            (
                "<tool_call>\n<function=now>\n</function>\n</tool_call>\n<tool_call><function=f><parameter=n>five</parameter></function></tool_call>",
                heard("", &[("now", "{}"), ("f", "{\"n\": \"five\"}")]),
            ),
            ("<tool_call><function=weather><parameter=city>K", heard("", &[("weather", "{\"city\": \"K")])),
            ("<tool_call><function=weather><parameter=days>12", heard("", &[("weather", "{\"days\": 12")])),
            (
                "<tool_call><function=weather><parameter=city>a</parameter> b",
                heard(" b", &[("weather", "{\"city\": \"a\"")]),
            ),
            (
                "<tool_call><function=weather><tool_call><function=now></function></tool_call>",
                heard("", &[("weather", "{"), ("now", "{}")]),
            ),
        ],
    );
    for text in [
        "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
        "<tool_call><function=>",
        "<tool_call>\n<function=a\nb>",
        "<tool_call>\n<func",
        "<function=f></function>",
    ] {
        check_splits(QwenCoder, text, &heard(text, &[]));
    }
}

#[test]
fn minimax_m1_calls() {
    let two = "Look.\n<tool_calls>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"}}\n\
        {\"name\": \"now\", \"arguments\": {}}\n</tool_calls>";
    check_splits(MiniMaxM1, two, &heard("Look.", &[("weather", CITY), ("now", "{}")]));
    for text in [
        "<tool_calls>[{\"name\": \"f\"}]</tool_calls>",
        "<tool_calls>\n</tool_calls>",
        "<tool_call>{\"name\": \"f\"}",
    ] {
        check_splits(MiniMaxM1, text, &heard(text, &[]));
    }
}

#[test]
fn minimax_m2_calls() {
    let two = "\n<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"city\">Köln</parameter>\n\
        <parameter name=\"days\">3</parameter>\n</invoke>\n<invoke name=\"now\">\n</invoke>\n</minimax:tool_call>";
    check_all(
        MiniMaxM2,
        &[
            (two, heard("", &[("weather", "{\"city\": \"Köln\", \"days\": 3}"), ("now", "{}")])),
            (
                "<minimax:tool_call><invoke name=\"f\"><parameter name=\"a\">\n[1,\n2]\n</parameter>",
                heard("", &[("f", "{\"a\": [1,\n2]")]),
            ),
        ],
    );
    for text in ["<minimax:tool_call>now", "<minimax:tool_call><invoke name=now>", "<invoke name=\"now\">"] {
        check_splits(MiniMaxM2, text, &heard(text, &[]));
    }
}

#[test]
fn glm_calls() {
    check_all(
        Glm,
        &[
            (
                "Look.\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value> Köln</arg_value>\n<arg_key>days</arg_key>\n\
             <arg_value>3</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>",
                heard("Look.", &[("weather", "{\"city\": \" Köln\", \"days\": 3}"), ("now", "{}")]),
            ),
            (
                "<tool_call>weather<arg_key>city</arg_key><arg_value>a</arg_value></tool_call><tool_call>now</tool_call>",
                heard("", &[("weather", "{\"city\": \"a\"}"), ("now", "{}")]),
            ),
        ],
    );
    for text in [
        "the <tool_call> tag",
        "<tool_call>a b</tool_call>",
        "<tool_call>f\nand so on",
        "<tool_call></tool_call>",
    ] {
        check_splits(Glm, text, &heard(text, &[]));
    }
}

#[test]
fn harmony_messages() {
    let of = |reasoning: &str, heard: Heard| Heard { reasoning: reasoning.into(), ..heard };
    let next = "<|end|><|start|>assistant<|channel|>";
    let thought = "<|channel|>analysis<|message|>Why, ü?";
    let call = "commentary to=functions.weather <|constrain|>json<|message|>{\"city\": \"Köln\"}";
    for (text, expected) in [
        (
            format!("{thought}{next}final<|message|>Because. <|return|>"),
            of("Why, ü?", heard("Because. ", &[])),
        ),
        (format!("{thought}{next}{call}<|call|>"), of("Why, ü?", heard("", &[("weather", CITY)]))),
        (format!("{thought}{next}{call}"), of("Why, ü?", heard("", &[("weather", CITY)]))),
        (
            format!("{thought}{next}commentary<|message|>I look.{next}{call}<|call|>"),
            of("Why, ü?", heard("I look.", &[("weather", CITY)])),
        ),
        (
            format!(
                " to=functions.now<|channel|>commentary json<|message|><|call|><|start|>assistant<|channel|>{call}"
            ),
            heard("", &[("now", "{}"), ("weather", CITY)]),
        ),
        ("plain, a <|b and < c".into(), heard("plain, a <|b and < c", &[])),
        ("{\"a\": 1}".into(), heard("{\"a\": 1}", &[])),
        (
            "<|channel|>final<|message|>the <|end|> mark, <|start|>user<|message|>".into(),
            heard("the <|end|> mark, <|start|>user<|message|>", &[]),
        ),
        ("<|channel|>final".into(), heard("<|channel|>final", &[])),
        (
            "<|channel|>commentary to=functions.f<|message|> no JSON".into(),
            heard("<|channel|>commentary to=functions.f<|message|> no JSON", &[]),
        ),
        (
            "<|channel|>commentary to=functions.f<|message|>{\"a\": 1] so".into(),
            heard("] so", &[("f", "{\"a\": 1")]),
        ),
    ] {
        check_splits(Harmony, &text, &expected);
    }
    // No message is a call where none may come.
    let no_tools = CallReading { format: Harmony, tools: [].into() };
    let mut parser = no_tools.parser();
    let steps = parser.push("<|channel|>commentary to=functions.f<|message|>{}<|call|>");
    let text = steps.into_iter().find_map(|step| match step.said {
        Said::Text(text) => Some(text),
        _ => None,
    });
    assert_eq!(text.as_deref(), Some("{}"));
}

#[test]
fn a_harmony_answer_that_is_cut_shows_no_marks() {
    let text = "<|channel|>analysis<|message|>ab<|end|><|start|>assistant<|channel|>commentary to=functions.f<|message|>{}";
    for (at, _) in text.char_indices() {
        let heard = hear_until(Harmony, [&text[..at]], true);
        assert!(heard.text.is_empty() && "ab".starts_with(&heard.reasoning), "{at} {heard:?}");
    }
}

/// Wherever a call is cut, what is told of it is the beginning of what it would have been.
#[test]
fn a_call_that_is_cut_is_a_beginning() {
    for (format, text) in [
        (
            DeepSeekV31,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Köln\"}<｜tool▁call▁end｜>",
        ),
        (
            QwenCoder,
            "<tool_call>\n<function=weather>\n<parameter=city>\nKöln\n</parameter>\n</function>\n</tool_call>",
        ),
        (
            MiniMaxM2,
            "<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"city\">Köln</parameter>\n</invoke>",
        ),
        (Glm, "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Köln</arg_value>\n</tool_call>"),
    ] {
        for (at, _) in text.char_indices() {
            let heard = hear_until(format, [&text[..at]], true);
            assert!(heard.text.is_empty(), "{:?}: {heard:?}", &text[..at]);
            let arguments = heard.calls.first().map_or("", |(_, arguments)| arguments.as_str());
            assert!(CITY.starts_with(arguments), "{:?}: {heard:?}", &text[..at]);
        }
        assert_eq!(hear_until(format, [text], true).calls, heard("", &[("weather", CITY)]).calls);
    }
}
