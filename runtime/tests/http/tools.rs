//! Tool calls: told to the model, found in its answer, answered by the client.

use crate::server::{Server, user};
use serde_json::{Value, json};

const CALL: &str = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>";
const OTHER: &str = "<tool_call>\n{\"arguments\": {\"a\": [1, 2]}, \"name\": \"sum\"}\n</tool_call>";

fn tools() -> Value {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    json!([
        {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": parameters}},
        {"type": "function", "function": {"name": "sum"}},
    ])
}

/// A request that makes the model say `text` and may call tools.
fn saying(text: &str, more: Value) -> Value {
    let mut body = user(&format!("say:{text}"), more);
    body["tools"] = tools();
    body
}

/// Content, calls as (id, name, arguments) and the reason for the end, of a stream put together as OpenAI's clients do.
fn assembled(chunks: &[Value]) -> (String, Vec<(String, String, String)>, String) {
    let (mut content, mut calls, mut finish) = (String::new(), Vec::<(String, String, String)>::new(), None);
    for chunk in chunks {
        let choice = &chunk["choices"][0];
        content.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().unwrap() as usize;
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            if index == calls.len() {
                assert_eq!(call["type"], "function");
                assert_eq!(call["function"]["arguments"], "");
                calls.push((text(&call["id"]), text(&call["function"]["name"]), String::new()));
            } else {
                assert_eq!(call["function"].as_object().unwrap().len(), 1, "{call}");
                calls[index].2.push_str(call["function"]["arguments"].as_str().unwrap());
            }
        }
        finish = choice["finish_reason"].as_str().map(str::to_owned).or(finish);
    }
    (content, calls, finish.unwrap())
}

#[tokio::test]
async fn a_call_is_found_in_the_answer() {
    let server = Server::start().await;
    let answer = server.chat(saying(CALL, json!({}))).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let id = choice["message"]["tool_calls"][0]["id"].as_str().unwrap();
    assert!(id.starts_with("call_") && id.len() > 12, "{id}");
    let function = json!({"name": "weather", "arguments": "{\"city\": \"Köln\"}"});
    let call = json!({"id": id, "type": "function", "function": function});
    let message = json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [call]});
    assert_eq!(choice["message"], message);
}

#[tokio::test]
async fn a_streamed_call_comes_in_openais_pieces() {
    let server = Server::start().await;
    let chunks = server.chat(saying(CALL, json!({"stream": true}))).await.chunks();
    let deltas: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    let calls: Vec<&Value> = deltas
        .iter()
        .filter(|delta| delta.get("tool_calls").is_some())
        .map(|delta| &delta["tool_calls"][0])
        .collect();
    let id = calls[0]["id"].clone();
    let begins =
        json!({"index": 0, "id": id, "type": "function", "function": {"name": "weather", "arguments": ""}});
    assert_eq!(*calls[0], begins);
    assert_eq!(*calls[1], json!({"index": 0, "function": {"arguments": "{"}}));
    assert!(calls.len() > 10, "the arguments come as they are generated: {calls:?}");
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");

    let (content, calls, _) = assembled(&chunks);
    assert_eq!((content.as_str(), calls.len()), ("", 1));
    assert_eq!(calls[0].2, "{\"city\": \"Köln\"}");
}

#[tokio::test]
async fn text_and_parallel_calls_are_the_same_whole_and_streamed() {
    let server = Server::start().await;
    let text = format!("I look.\n{CALL}\n{OTHER}");
    let expected = [("weather", "{\"city\": \"Köln\"}"), ("sum", "{\"a\": [1, 2]}")];

    let answer = server.chat(saying(&text, json!({}))).await.json();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], "I look.");
    let calls = message["tool_calls"].as_array().unwrap();
    let whole: Vec<(&str, &str)> = calls
        .iter()
        .map(|call| {
            (call["function"]["name"].as_str().unwrap(), call["function"]["arguments"].as_str().unwrap())
        })
        .collect();
    assert_eq!(whole, expected);
    assert_ne!(calls[0]["id"], calls[1]["id"]);

    let (content, calls, finish) =
        assembled(&server.chat(saying(&text, json!({"stream": true}))).await.chunks());
    assert_eq!((content.as_str(), finish.as_str()), ("I look.", "tool_calls"));
    let streamed: Vec<(&str, &str)> =
        calls.iter().map(|(_, name, arguments)| (name.as_str(), arguments.as_str())).collect();
    assert_eq!(streamed, expected);

    let one = saying(&text, json!({"parallel_tool_calls": false}));
    let answer = server.chat(one).await.json();
    assert_eq!(answer["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_call_of_an_unknown_function_is_still_a_call() {
    let server = Server::start().await;
    let text = "<tool_call>{\"name\": \"fly\", \"arguments\": {}}</tool_call>";
    let answer = server.chat(saying(text, json!({}))).await.json();
    assert_eq!(answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "fly");
}

#[tokio::test]
async fn what_is_no_call_is_content() {
    let server = Server::start().await;
    for text in
        ["<tool_call>\n{\"name\": weather}\n</tool_call>", "a <tool_call> b", "x\n<tool_call>{\"name\": \"f"]
    {
        let answer = server.chat(saying(text, json!({}))).await.json();
        let choice = &answer["choices"][0];
        assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(text), &json!("stop")));
        assert!(choice["message"].get("tool_calls").is_none());
        let (content, calls, finish) =
            assembled(&server.chat(saying(text, json!({"stream": true}))).await.chunks());
        assert_eq!((content.as_str(), calls.len(), finish.as_str()), (text, 0, "stop"));
    }
}

#[tokio::test]
async fn without_tools_or_with_none_to_call_nothing_is_looked_for() {
    let server = Server::start().await;
    let without = user(&format!("say:{CALL}"), json!({"tool_choice": "auto"}));
    let none = saying(CALL, json!({"tool_choice": "none"}));
    for body in [without, none] {
        let answer = server.chat(body).await.json();
        assert_eq!(answer["choices"][0]["message"]["content"], CALL);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        assert!(server.last_prompt().starts_with("user\nsay:"), "{}", server.last_prompt());
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_in_a_call_says_so() {
    let server = Server::start().await;
    let answer = server.chat(saying(CALL, json!({"max_tokens": CALL.find("ln").unwrap()}))).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], "{\"city\": \"Kö");
}

/// Wherever it is cut: what has begun of a call is in the call or nowhere.
#[tokio::test]
async fn an_answer_that_is_cut_has_no_marks_in_its_content() {
    let server = Server::start().await;
    let call = CALL.replace("Köln", "Rome");
    let named = json!({"type": "function", "function": {"name": "weather"}});
    let cases = [
        (json!("required"), call.clone(), format!("{call}\n{call}"), ""),
        (named, String::new(), call.clone(), ""),
        (json!("auto"), String::new(), format!("Look: {call}"), "Look:"),
    ];
    for (choice, whole, text, content) in cases {
        // A call that is whole goes before what is cut.
        for most in whole.len() + 1..text.len() {
            let more = json!({"tool_choice": choice, "max_tokens": most});
            let answer = server.chat(saying(&text, more)).await.json();
            let message = &answer["choices"][0]["message"];
            let said = message["content"].as_str().unwrap_or_default();
            assert_eq!(said.trim_end(), &content[..most.min(content.len())], "{choice} {most} {answer}");
            assert_eq!(answer["choices"][0]["finish_reason"], "length", "{answer}");
            if !whole.is_empty() {
                let arguments = &message["tool_calls"][0]["function"]["arguments"];
                assert_eq!(arguments, "{\"city\": \"Rome\"}", "{most}");
            }

            let more = json!({"tool_choice": choice, "max_tokens": most, "stream": true});
            let streamed = assembled(&server.chat(saying(&text, more)).await.chunks());
            assert_eq!((streamed.0.as_str(), streamed.2.as_str()), (said, "length"), "{choice} {most}");
        }
    }
}

#[tokio::test]
async fn stop_strings_end_text_and_not_calls() {
    let server = Server::start().await;
    let call = CALL.replace("Köln", "Rome");
    let stop = json!(["\n", "city", "END", "}"]);
    let cases = [
        ("required", call.clone(), Value::Null, 1, "tool_calls"),
        ("auto", call.clone(), Value::Null, 1, "tool_calls"),
        ("auto", format!("Hm.\n{call}\n{call}"), json!("Hm."), 2, "tool_calls"),
        ("auto", format!("{call} so END of it"), json!(" so "), 1, "tool_calls"),
        ("auto", format!("Hm. END {call}"), json!("Hm. "), 0, "stop"),
    ];
    for (choice, text, content, calls, finish) in cases {
        let more = json!({"tool_choice": choice, "stop": stop, "max_tokens": 400});
        let answer = server.chat(saying(&text, more.clone())).await.json();
        let choice = &answer["choices"][0];
        let none = Vec::new();
        let whole: Vec<&str> = choice["message"]["tool_calls"]
            .as_array()
            .unwrap_or(&none)
            .iter()
            .map(|call| call["function"]["arguments"].as_str().unwrap())
            .collect();
        assert_eq!(whole, vec!["{\"city\": \"Rome\"}"; calls], "{text} {answer}");
        assert_eq!(
            (&choice["message"]["content"], &choice["finish_reason"]),
            (&content, &json!(finish)),
            "{text}"
        );

        let mut body = saying(&text, more);
        body["stream"] = true.into();
        let (said, streamed, end) = assembled(&server.chat(body).await.chunks());
        let streamed: Vec<&str> = streamed.iter().map(|(_, _, arguments)| arguments.as_str()).collect();
        assert_eq!((said.as_str(), streamed, end.as_str()), (content.as_str().unwrap_or(""), whole, finish));
    }
}

/// A stop token is not a stop string: it ends the answer wherever it comes, and a call that it ends was not made.
#[tokio::test]
async fn a_call_that_a_stop_token_ends_was_not_made() {
    let server = Server::start().await;
    for (stop, calls) in [("R", 1), ("m", 0)] {
        let token = json!([stop.as_bytes()[0]]);
        let more = json!({"tool_choice": "required", "stop_token_ids": token, "max_tokens": 400});
        let answer = server
            .chat(saying(
                "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>",
                more,
            ))
            .await
            .json();
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], "stop", "{answer}");
        assert_eq!(choice["message"]["content"].as_str().unwrap_or_default(), "", "{answer}");
        let found = choice["message"]["tool_calls"].as_array().map_or(0, Vec::len);
        assert_eq!(found, calls, "{answer}");
    }
}

#[tokio::test]
async fn logprobs_of_a_call_go_out_once_and_in_order() {
    let server = Server::start().await;
    let text = CALL.replace('ö', "oe");
    let chunks = server.chat(saying(&text, json!({"stream": true, "logprobs": true}))).await.chunks();
    let spelled: String = chunks
        .iter()
        .flat_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array().cloned().unwrap_or_default())
        .map(|token| token["token"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(spelled, text);
}

#[tokio::test]
async fn every_choice_is_read_by_itself() {
    let server = Server::start().await;
    let answer = server.chat(saying(CALL, json!({"n": 2}))).await.json();
    for index in 0..2 {
        let choice = &answer["choices"][index];
        assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], "{\"city\": \"Köln\"}");
        assert_eq!(choice["finish_reason"], "tool_calls");
    }
}

#[tokio::test]
async fn a_whole_exchange_reaches_the_template() {
    let server = Server::start().await;
    // As OpenAI's client gives it back after a stream.
    let function = json!({"name": "weather", "arguments": "{\"city\":\"Köln\"}", "parsed_arguments": null});
    let call = json!({"id": "call_1", "type": "function", "index": 0, "function": function});
    let body = json!({"tools": tools(), "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "How warm"}, {"type": "text", "text": "is it?"}]},
        {"role": "assistant", "content": null, "tool_calls": [call], "refusal": null, "function_call": null,
         "parsed": null},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "9"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "say:ok", "name": "Ann"},
    ]});
    let reply = server.chat(body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let prompt = server.last_prompt();
    assert!(prompt.starts_with("system\nBe brief.\n\n# Tools\n"), "{prompt}");
    assert!(
        prompt.contains("{\"type\": \"function\", \"function\": {\"name\": \"sum\"}}\n</tools>"),
        "{prompt}"
    );
    let rest = "user\nHow warm\nis it?\
        assistant\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>\
        user\n<tool_response>\n9\n</tool_response>assistant\nNo.user\nsay:okassistant\n";
    assert!(prompt.ends_with(rest), "{prompt}");
}

#[tokio::test]
async fn a_wrong_request_about_tools_is_refused_by_name() {
    let server = Server::start().await;
    let tool = |function: Value| json!([{"type": "function", "function": function}]);
    let deep = json!({"name": "f", "parameters": {"description": "x".repeat(70_000)}});
    let wide: Vec<Value> = (0..10)
        .map(|at| json!({"type": "function", "function": {"name": format!("f{at}"), "description": "x".repeat(60_000)}}))
        .collect();
    let many: Vec<Value> =
        (0..129).map(|at| json!({"type": "function", "function": {"name": format!("f{at}")}})).collect();
    let assistant = |call: Value| json!({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]});
    let cases = [
        (json!({"tools": "f"}), "tools"),
        (json!({"tools": many}), "tools"),
        (json!({"tools": wide}), "tools"),
        (json!({"tools": [5]}), "tools[0]"),
        (json!({"tools": tool(deep)}), "tools[0]"),
        (json!({"tools": [{"type": "custom"}]}), "tools[0].type"),
        (json!({"tools": [{"function": {"name": "f"}}]}), "tools[0].type"),
        (json!({"tools": tool(json!({}))}), "tools[0].function.name"),
        (json!({"tools": tool(json!({"name": "no spaces"}))}), "tools[0].function.name"),
        (json!({"tools": tool(json!({"name": "x".repeat(65)}))}), "tools[0].function.name"),
        (json!({"tools": [tools()[0], tools()[0]]}), "tools[1].function.name"),
        (json!({"tools": tool(json!({"name": "f", "parameters": []}))}), "tools[0].function.parameters"),
        (json!({"tools": tool(json!({"name": "f", "strict": 1}))}), "tools[0].function.strict"),
        (json!({"tools": tool(json!({"name": "f", "mood": 1}))}), "tools[0].function.mood"),
        (json!({"tools": tools(), "tool_choice": "any"}), "tool_choice"),
        (json!({"tools": tools(), "tool_choice": 5}), "tool_choice"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (
            json!({"tools": tools(), "tool_choice": {"type": "function", "function": {"name": "fly"}}}),
            "tool_choice",
        ),
        (json!({"tools": tools(), "tool_choice": {"type": "function"}}), "tool_choice.function"),
        (json!({"parallel_tool_calls": "yes"}), "parallel_tool_calls"),
        (json!({"functions": [{"name": "f"}]}), "functions"),
        (json!({"functions": {}}), "functions"),
        (json!({"function_call": {"name": "f"}}), "function_call"),
        (json!({"function_call": {}}), "function_call"),
        (json!({"chat_template_kwargs": []}), "chat_template_kwargs"),
        (json!({"chat_template_kwargs": {"tools": []}}), "chat_template_kwargs.tools"),
        (json!({"chat_template_kwargs": {"eos_token": ""}}), "chat_template_kwargs.eos_token"),
        (json!({"reasoning_effort": "enormous"}), "reasoning_effort"),
        (
            json!({"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "low"}}),
            "reasoning_effort",
        ),
        (json!({"messages": [{"role": "tool", "content": "9"}]}), "messages[0].tool_call_id"),
        (
            json!({"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}),
            "messages[0].tool_calls",
        ),
        (json!({"messages": [{"role": "assistant", "tool_calls": []}]}), "messages[0].content"),
        (assistant(json!({"type": "function"})), "messages[1].tool_calls[0].id"),
        (assistant(json!({"id": "a", "type": "custom"})), "messages[1].tool_calls[0].type"),
        (assistant(json!({"id": "a", "type": "function"})), "messages[1].tool_calls[0].function"),
        (
            assistant(json!({"id": "a", "type": "function", "function": {"name": "f"}})),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}]}),
            "messages[0].content[0].type",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}),
            "messages[0].content[0].type",
        ),
    ];
    for (fields, param) in cases {
        let mut body = user("say:x", json!({}));
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let reply = server.chat(body).await;
        assert_eq!(reply.status, 400, "{param}: {reply:?}");
        let error = &reply.json()["error"];
        assert_eq!(
            (&error["param"], &error["type"]),
            (&json!(param), &json!("invalid_request_error")),
            "{error}"
        );
        let last = param.rsplit(['.', ']']).find(|part| !part.is_empty()).unwrap();
        assert!(error["message"].as_str().unwrap().contains(last), "{error}");
    }
}

#[tokio::test]
async fn a_template_is_told_more_than_the_conversation() {
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}|{{ reasoning_effort }}|{{ mode.a }}";
    let server = Server::start_with_template(template).await;
    let more = json!({"reasoning_effort": "low", "chat_template_kwargs": {"mode": {"a": [1]}}});
    assert_eq!(server.chat(user("say:x", more)).await.status, 200);
    assert_eq!(server.last_prompt(), "say:x|low|[1]");
}

/// Mistral's own form, and an id that its templates take back.
#[tokio::test]
async fn the_templates_form_of_calls_is_looked_for() {
    let template = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}\
        {# [TOOL_CALLS] #}";
    let server = Server::start_with_template(template).await;
    let text = "[TOOL_CALLS] [{\"name\": \"sum\", \"arguments\": {}}]";
    let answer = server.chat(saying(text, json!({}))).await.json();
    let call = &answer["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(call["function"], json!({"name": "sum", "arguments": "{}"}));
    assert_eq!(call["id"].as_str().unwrap().len(), 9);
    assert!(
        server.last_prompt().starts_with("[{\"type\": \"function\", \"function\": {\"name\": \"weather\"")
    );
}

#[tokio::test]
async fn a_required_call_comes_whatever_the_model_would_say() {
    let server = Server::start().await;
    let named = json!({"tool_choice": {"type": "function", "function": {"name": "sum"}}, "max_tokens": 400});
    let answer = server.chat(saying("Hello!", named)).await.json();
    let choice = &answer["choices"][0];
    // OpenAI's word for a function that the client chose.
    assert_eq!(choice["finish_reason"], "stop");
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!((calls.len(), &calls[0]["function"]["name"]), (1, &json!("sum")));
    let arguments: Value = serde_json::from_str(calls[0]["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!((arguments, &choice["message"]["content"]), (json!({}), &Value::Null));

    let two = "<tool_call>\n{\"name\": \"sum\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n\
        {\"name\": \"weather\", \"arguments\": {\"city\": \"Rom\"}}\n</tool_call>";
    for (parallel, calls) in [(true, 2), (false, 1)] {
        let more = json!({"tool_choice": "required", "parallel_tool_calls": parallel, "max_tokens": 400});
        let answer = server.chat(saying(two, more)).await.json();
        let choice = &answer["choices"][0];
        assert_eq!(choice["message"]["tool_calls"].as_array().unwrap().len(), calls, "{answer}");
        assert_eq!(choice["finish_reason"], "tool_calls");
    }
}

#[tokio::test]
async fn a_model_may_reason_before_a_required_call() {
    let server = Server::start_with_template(crate::model::REASONING_TEMPLATE).await;
    let text = format!("<think>\nOr a <tool_call>?\n</think>\n\n{CALL}");
    let answer =
        server.chat(saying(&text, json!({"tool_choice": "required", "max_tokens": 600}))).await.json();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["reasoning"], "Or a <tool_call>?");
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{\"city\": \"Köln\"}");
}

#[tokio::test]
async fn a_strict_tools_arguments_follow_its_schema() {
    let server = Server::start().await;
    let parameters = json!({"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"],
                            "additionalProperties": false});
    let function = json!({"name": "weather", "parameters": parameters, "strict": true});
    let text =
        "I look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";
    let mut body = user(&format!("say:{text}"), json!({"max_tokens": 400}));
    body["tools"] = json!([{"type": "function", "function": function}]);
    let answer = server.chat(body.clone()).await.json();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], "I look.");
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{\"city\": \"Rome\"}");

    body["response_format"] = json!({"type": "json_object"});
    let refused = server.chat(body.clone()).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("response_format")));
    body["response_format"] = Value::Null;
    body["tools"][0]["function"]["parameters"] =
        json!({"type": "object", "properties": {"a": {"$ref": "http://x"}}});
    let refused = server.chat(body).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("tools")));
}
