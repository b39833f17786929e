//! Tool calls and reasoning of each family, whole and streamed, as its template's text tells.

use crate::server::{Server, user};
use serde_json::{Value, json};

const TURNS: &str =
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}";

/// What a family's template holds, and how a call of `sum` with `{"a": 5, "b": "5"}` is written.
const FAMILIES: [(&str, &str); 7] = [
    (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜><｜tool▁sep｜>```json",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>sum\n```json\n{\"a\": 5, \"b\": \"5\"}\n```\
         <｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜><｜tool▁sep｜>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>sum<｜tool▁sep｜>{\"a\": 5, \"b\": \"5\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    (
        "<tool_call><function=<parameter=",
        "<tool_call>\n<function=sum>\n<parameter=a>\n5\n</parameter>\n<parameter=b>\n5\n</parameter>\n</function>\n</tool_call>",
    ),
    (
        "<tool_calls></tool_calls><args-json-object",
        "<tool_calls>\n{\"name\": \"sum\", \"arguments\": {\"a\": 5, \"b\": \"5\"}}\n</tool_calls>",
    ),
    (
        "<minimax:tool_call><invoke name=<parameter name=",
        "<minimax:tool_call>\n<invoke name=\"sum\">\n<parameter name=\"a\">5</parameter>\n\
         <parameter name=\"b\">5</parameter>\n</invoke>\n</minimax:tool_call>",
    ),
    (
        "<tool_call><arg_key><arg_value>",
        "<tool_call>sum\n<arg_key>a</arg_key>\n<arg_value>5</arg_value>\n<arg_key>b</arg_key>\n<arg_value>5</arg_value>\n</tool_call>",
    ),
    (
        "<|start|>assistant<|channel|>analysis<|message|>",
        "<|channel|>commentary to=functions.sum <|constrain|>json<|message|>{\"a\": 5, \"b\": \"5\"}",
    ),
];

async fn server(signs: &str) -> Server {
    Server::start_with_template(&format!("{TURNS}{{# {signs} #}}")).await
}

fn saying(text: &str, more: Value) -> Value {
    let mut body = user(&format!("say:{text}"), more);
    let parameters = json!({"type": "object", "required": ["a", "b"], "additionalProperties": false,
        "properties": {"a": {"enum": [5]}, "b": {"enum": ["5"]}}});
    body["tools"] = json!([{"type": "function", "function": {"name": "sum", "parameters": parameters}}]);
    body
}

/// The message that a stream's deltas make.
fn assembled(chunks: &[Value]) -> Value {
    let (mut texts, mut calls) = ([String::new(), String::new()], Vec::<Value>::new());
    for delta in chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]) {
        for (text, name) in texts.iter_mut().zip(["content", "reasoning_content"]) {
            text.push_str(delta[name].as_str().unwrap_or_default());
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let function = &call["function"];
            if call.get("id").is_some() {
                calls.push(json!({"name": function["name"], "arguments": ""}));
            }
            let arguments = &mut calls[call["index"].as_u64().unwrap() as usize]["arguments"];
            let more = function["arguments"].as_str().unwrap();
            *arguments = format!("{}{more}", arguments.as_str().unwrap()).into();
        }
    }
    json!({"content": texts[0], "reasoning": texts[1], "calls": calls})
}

/// The same of a message that came whole.
fn whole(answer: &Value) -> Value {
    let message = &answer["choices"][0]["message"];
    let text = |name: &str| message[name].as_str().unwrap_or_default();
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    let calls: Vec<&Value> = calls.map(|call| &call["function"]).collect();
    json!({"content": text("content"), "reasoning": text("reasoning_content"), "calls": calls})
}

#[tokio::test]
async fn each_familys_call_is_found_whole_and_streamed() {
    for (signs, call) in FAMILIES {
        let server = server(signs).await;
        let calls = json!([{"name": "sum", "arguments": "{\"a\": 5, \"b\": \"5\"}"}]);
        let expected = json!({"content": "", "reasoning": "", "calls": calls});
        let answer = server.chat(saying(call, json!({"max_tokens": 400}))).await.json();
        assert_eq!(whole(&answer), expected, "{signs}");
        assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls", "{signs}");
        let streamed = saying(call, json!({"max_tokens": 400, "stream": true}));
        let streamed = server.chat(streamed).await.chunks();
        assert_eq!(assembled(&streamed), expected, "{signs}");
        assert_eq!(streamed.last().unwrap()["choices"][0]["finish_reason"], "tool_calls", "{signs}");
    }
}

#[tokio::test]
async fn a_required_call_is_written_in_each_familys_form() {
    for (signs, call) in FAMILIES {
        let server = server(signs).await;
        let more = json!({"tool_choice": "required", "parallel_tool_calls": false, "max_tokens": 400});
        // The model would give other arguments.
        let answer = server.chat(saying(&call.replace('5', "6"), more)).await.json();
        let call = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
        let arguments: Value =
            serde_json::from_str(call["arguments"].as_str().unwrap_or_default()).unwrap_or_default();
        assert_eq!(
            (&call["name"], arguments),
            (&json!("sum"), json!({"a": 5, "b": "5"})),
            "{signs} {answer}"
        );
    }
}

#[tokio::test]
async fn channels_are_told_apart_with_and_without_tools() {
    let server = server(FAMILIES[6].0).await;
    let text = "<|channel|>analysis<|message|>Why, ü?<|start|>assistant<|channel|>final<|message|>Because.";
    let tokens = "Why, ü?<|start|>".len();
    for body in [saying(text, json!({})), user(&format!("say:{text}"), json!({}))] {
        let expected = json!({"content": "Because.", "reasoning": "Why, ü?", "calls": []});
        let answer = server.chat(body.clone()).await.json();
        assert_eq!(whole(&answer), expected);
        assert_eq!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], tokens);
        let mut streamed = body;
        streamed["stream"] = true.into();
        assert_eq!(assembled(&server.chat(streamed).await.chunks()), expected);
    }
    // A stop string is looked for in texts, and not in marks or calls.
    let call = FAMILIES[6].1;
    let answer = server.chat(saying(call, json!({"stop": ["to=", "5"], "max_tokens": 400}))).await.json();
    assert_eq!(whole(&answer)["calls"][0]["arguments"], "{\"a\": 5, \"b\": \"5\"}");
    let answer = server.chat(user(&format!("say:{text}"), json!({"stop": "caus"}))).await.json();
    assert_eq!(whole(&answer), json!({"content": "Be", "reasoning": "Why, ü?", "calls": []}));
}

#[tokio::test]
async fn what_a_family_cannot_keep_strict_is_refused() {
    let server = server(FAMILIES[2].0).await;
    let parameters = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}});
    let function = json!({"name": "sum", "parameters": parameters, "strict": true});
    let body = user("say:x", json!({"tools": [{"type": "function", "function": function}]}));
    let refused = server.chat(body).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("tools")));
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("'pattern'"), "{refused:?}");
}
