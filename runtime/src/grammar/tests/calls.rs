//! Grammars of tool calls: what they let through is a call for the parser of the same format.

use super::*;
use crate::conversation::Tool;
use crate::tool_calls::{CallGrammar, CallReading, FORMATS, Reasons, Said, ToolFormat};

fn weather() -> Tool {
    let parameters = json!({"type": "object", "required": ["unit"], "additionalProperties": false, "properties": {
        "unit": {"enum": ["C", "K"]}, "deep": {"type": "boolean"}, "at": {"$ref": "#/$defs/place"},
    }, "$defs": {"place": {"type": "object", "properties": {"x": {"enum": [1, 20]}}, "required": ["x"],
                           "additionalProperties": false}}});
    Tool { name: "weather".into(), description: None, parameters: Some(parameters), strict: false }
}

fn now() -> Tool {
    Tool { name: "now".into(), description: None, parameters: None, strict: false }
}

fn grammar(format: ToolFormat, tools: &[&Tool], parallel: bool) -> Format {
    let grammar = CallGrammar { format, tools, parallel, required: true, reasons: Reasons::Never };
    Format::Lark(grammar.lark(|_| None).unwrap())
}

/// Text, and calls by name with their arguments.
fn parsed(format: ToolFormat, text: &str) -> (String, Vec<(String, String)>) {
    let mut parser = CallReading { format, tools: [weather(), now()].into() }.parser();
    let (mut content, mut calls) = (String::new(), Vec::<(String, String)>::new());
    let steps = parser.push(text);
    for step in steps.into_iter().chain(parser.finish(false)) {
        match step.said {
            Said::Text(text) => content += &text,
            Said::CallBegins { name } => calls.push((name, String::new())),
            Said::Arguments(more) => calls.last_mut().unwrap().1 += &more,
            Said::Reasoning(_) | Said::MessageBegins => {}
        }
    }
    (content, calls)
}

/// One call as the templates write it.
fn written(format: ToolFormat) -> &'static str {
    match format {
        ToolFormat::Hermes => {
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"unit\": \"C\", \"deep\": true}}\n</tool_call>"
        }
        ToolFormat::Mistral => {
            "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"unit\": \"C\", \"deep\": true}}]"
        }
        ToolFormat::DeepSeekV3 => {
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n\
             {\"unit\": \"C\", \"deep\": true}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        }
        ToolFormat::DeepSeekV31 => {
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"unit\": \"C\", \"deep\": true}\
             <｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        }
        ToolFormat::QwenCoder => {
            "<tool_call>\n<function=weather>\n<parameter=unit>\nC\n</parameter>\n<parameter=deep>\ntrue\n</parameter>\n\
             </function>\n</tool_call>"
        }
        ToolFormat::MiniMaxM1 => {
            "<tool_calls>\n{\"name\": \"weather\", \"arguments\": {\"unit\": \"C\", \"deep\": true}}\n</tool_calls>"
        }
        ToolFormat::MiniMaxM2 => {
            "<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"unit\">C</parameter>\n\
             <parameter name=\"deep\">true</parameter>\n</invoke>\n</minimax:tool_call>"
        }
        ToolFormat::Glm => {
            "<tool_call>weather\n<arg_key>unit</arg_key>\n<arg_value>C</arg_value>\n<arg_key>deep</arg_key>\n\
             <arg_value>true</arg_value>\n</tool_call>"
        }
        ToolFormat::Harmony => {
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.weather \
             <|constrain|>json<|message|>{\"unit\": \"C\", \"deep\": true}"
        }
    }
}

#[test]
fn each_familys_call_is_let_through_and_nothing_else() {
    let grammars = grammars(LONGER_TOKENS);
    let (weather, now) = (weather(), now());
    for format in FORMATS {
        let call = written(format);
        let one = grammar(format, &[&weather], false);
        assert!(takes(&grammars, &one, call), "{format:?}\n{one:?}");
        assert!(takes(&grammars, &grammar(format, &[&now, &weather], true), call), "{format:?}");
        for bad in [
            call.replace("weather", "whether"),
            call.replace('C', "F"),
            call.replace("true", "1"),
            format!("Sure. {call}"),
            format!("{call}."),
        ] {
            assert!(!takes(&grammars, &one, &bad), "{format:?} {bad}");
        }
        let (content, calls) = parsed(format, call);
        assert_eq!(content, "");
        let expected = "{\"unit\": \"C\", \"deep\": true}".to_owned();
        assert_eq!(calls, [("weather".to_owned(), expected)], "{format:?}");
    }
}

#[test]
fn whatever_a_grammar_lets_through_is_a_call() {
    let grammars = grammars(LONGER_TOKENS);
    let (weather, now) = (weather(), now());
    for format in FORMATS {
        let mut ended = 0;
        for seed in 0..30 {
            let form = grammar(format, &[&weather, &now], seed % 2 == 0);
            let mut constraint = grammars.compile(&form).unwrap();
            let Some(answer) = random_answer(&grammars, &mut *constraint, &mut Dice(seed), 600).unwrap()
            else {
                continue;
            };
            ended += 1;
            let answer = String::from_utf8_lossy(&answer);
            let (content, calls) = parsed(format, &answer);
            assert!(content.trim().is_empty() && !calls.is_empty(), "{format:?} {answer}");
            assert!(seed % 2 == 0 || calls.len() == 1, "{format:?} {answer}");
            for (name, arguments) in calls {
                let arguments: Value = serde_json::from_str(&arguments).unwrap();
                assert!(
                    name == "now" && arguments == json!({})
                        || ["C", "K"].iter().any(|unit| arguments["unit"] == *unit)
                );
                assert!(arguments.get("at").is_none_or(|at| at["x"].is_number()), "{format:?} {answer}");
            }
        }
        assert!(ended > 5, "{format:?}: {ended} ended");
    }
}

#[test]
fn a_string_between_tags_is_any_text() {
    let grammars = grammars(LONGER_TOKENS);
    let parameters =
        json!({"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]});
    let tool = Tool { name: "say".into(), description: None, parameters: Some(parameters), strict: true };
    for (format, before, after) in [
        (
            ToolFormat::QwenCoder,
            "<tool_call>\n<function=say>\n<parameter=text>\n",
            "\n</parameter>\n</function>\n</tool_call>",
        ),
        (
            ToolFormat::MiniMaxM2,
            "<minimax:tool_call>\n<invoke name=\"say\">\n<parameter name=\"text\">",
            "</parameter>\n</invoke>\n</minimax:tool_call>",
        ),
        (ToolFormat::Glm, "<tool_call>say<arg_key>text</arg_key><arg_value>", "</arg_value></tool_call>"),
    ] {
        let form = grammar(format, &[&tool], true);
        for text in ["", "5", "a \"b\"\n </b> <parameter 漢"] {
            assert!(takes(&grammars, &form, &format!("{before}{text}{after}")), "{format:?} {text}");
        }
        assert!(!takes(&grammars, &form, before));
    }
}

#[test]
fn a_mark_that_is_a_token_is_written_as_one() {
    let grammars = grammars(LONGER_TOKENS);
    let (weather, special) = (weather(), |mark: &str| (mark == "<tool_call>").then_some(CALL));
    for format in [ToolFormat::Hermes, ToolFormat::QwenCoder, ToolFormat::Glm] {
        for required in [true, false] {
            let tools = &[&Tool { strict: true, ..weather.clone() }];
            let grammar = CallGrammar { format, tools, parallel: true, required, reasons: Reasons::Maybe };
            let mut constraint = grammars.compile(&Format::Lark(grammar.lark(special).unwrap())).unwrap();
            feed(&mut *constraint, "<think>Hm.</think>").unwrap();
            assert!(allowed(&mut *constraint).unwrap().contains(&CALL), "{format:?}");
            constraint.accept(CALL).unwrap();
            feed(&mut *constraint, written(format).strip_prefix("<tool_call>").unwrap()).unwrap();
            assert!(allowed(&mut *constraint).unwrap().contains(&END), "{format:?}");
        }
    }
}

#[test]
fn what_cannot_be_kept_strict_is_refused_by_name() {
    let schema = |property: Value| json!({"type": "object", "properties": {"text": property}});
    for (parameters, keyword) in [
        (schema(json!({"type": "string", "pattern": "^a$"})), "'pattern' in the parameter 'text'"),
        (schema(json!({"type": "string", "maxLength": 3})), "'maxLength' in the parameter 'text'"),
        (json!({"anyOf": [{"type": "object"}]}), "'anyOf' in the schema"),
    ] {
        let tool = Tool { name: "say".into(), description: None, parameters: Some(parameters), strict: true };
        let lark = |format, strict| {
            let tools = &[&Tool { strict, ..tool.clone() }];
            CallGrammar { format, tools, parallel: true, required: true, reasons: Reasons::Never }
                .lark(|_| None)
        };
        let refused = lark(ToolFormat::QwenCoder, true).unwrap_err().to_string();
        assert!(refused.contains(keyword) && refused.contains("'say'"), "{refused}");
        assert!(lark(ToolFormat::QwenCoder, false).is_ok());
        assert!(lark(ToolFormat::Hermes, true).is_ok());
    }
}
