//! What holds for any text, in any split.

use super::*;
use proptest::prelude::*;
use serde_json::Value;

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
        format in prop::sample::select(FORMATS.to_vec()),
        words in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        size in 1usize..8,
    ) {
        let all = words_of(format);
        let text: String = words.iter().map(|word| word.get(&all).as_str()).collect();
        prop_assert_eq!(in_pieces(format, &text, size), hear(format, [text.as_str()]));
        let cut = hear_until(format, [text.as_str()], true);
        let halves = text.split_at(text.ceil_char_boundary(text.len() / 2));
        prop_assert_eq!(hear_until(format, [halves.0, halves.1], true), cut);
    }

    /// Without a call nothing of a text is lost but whitespace; harmony has marks of its own, which are no text.
    #[test]
    fn what_holds_no_call_comes_out_as_it_was(
        format in prop::sample::select(FORMATS.to_vec()),
        words in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let all = words_of(format);
        let text: String = words.iter().map(|word| word.get(&all).as_str()).collect();
        let heard = hear(format, [text.as_str()]);
        if heard.calls.is_empty() && !(format == ToolFormat::Harmony && text.contains("<|")) {
            prop_assert_eq!(heard.text, text);
        }
    }

    #[test]
    fn any_parameters_come_out_as_they_went_in(
        city in "[ -;=?-~\n\"\\\\é🦀]{0,12}",
        days: i32,
        deep in any_json(),
        size in 1usize..9,
    ) {
        let deep = json!({"x": deep});
        let parameters = [("city", city.clone()), ("days", days.to_string()), ("deep", deep.to_string())];
        // In JSON's own spelling no closing tag stands in a value.
        let parameters = parameters.map(|(name, value)| (name, value.replace("</", "<\\/")));
        let expected = json!({"city": city, "days": days, "deep": deep});
        for format in [ToolFormat::QwenCoder, ToolFormat::MiniMaxM2, ToolFormat::Glm] {
            let text = format!("Hm.\n{}", call_with(format, &parameters));
            let heard = in_pieces(format, &text, size);
            prop_assert_eq!(&heard.text, "Hm.");
            prop_assert_eq!(heard.calls.len(), 1);
            prop_assert_eq!(serde_json::from_str::<Value>(&heard.calls[0].1).unwrap(), expected.clone());
        }
    }
}

/// A call of `weather` as its template writes it.
fn call_with(format: ToolFormat, parameters: &[(&str, String)]) -> String {
    let each = |write: &dyn Fn(&str, &str) -> String| -> String {
        parameters.iter().map(|(name, value)| write(name, value)).collect()
    };
    match format {
        ToolFormat::QwenCoder => format!(
            "<tool_call>\n<function=weather>\n{}</function>\n</tool_call>",
            each(&|name, value| format!("<parameter={name}>\n{value}\n</parameter>\n"))
        ),
        ToolFormat::MiniMaxM2 => format!(
            "<minimax:tool_call>\n<invoke name=\"weather\">\n{}</invoke>\n</minimax:tool_call>",
            each(&|name, value| format!("<parameter name=\"{name}\">{value}</parameter>\n"))
        ),
        _ => format!(
            "<tool_call>weather\n{}</tool_call>",
            each(&|name, value| format!("<arg_key>{name}</arg_key>\n<arg_value>{value}</arg_value>\n"))
        ),
    }
}

/// What texts in this format are made of, and what is not quite.
fn words_of(format: ToolFormat) -> Vec<String> {
    let plain = [
        "\n",
        " ",
        "x",
        "é",
        "<",
        "</",
        "{\"name\": \"f\", ",
        "{\"name\": \"f\"",
        "\"arguments\": {",
        "}",
        "{",
        "\"a\": \"é\\\"",
        "\"",
        ",",
        "[1]",
        "]",
        "[",
        "weather",
        "city",
        "days",
        "5",
        "function",
        "```json",
        "```",
        "assistant",
        "analysis",
        "final",
        "commentary to=functions.f",
        " to=functions.f",
        "user",
        ">",
        "\">",
    ];
    let marks = format.spellings();
    let halves = marks.iter().map(|mark| &mark[..mark.ceil_char_boundary(mark.len() / 2)]);
    let thrice = marks.iter().chain(&marks).chain(&marks).copied();
    plain.into_iter().chain(halves).chain(thrice).map(str::to_owned).collect()
}
