//! What is wrong gets OpenAI's error shape, and names what is wrong.

use crate::client::{Reply, exchange};
use crate::server::{Server, user};
use serde_json::{Value, json};

fn error_of(reply: &Reply) -> Value {
    assert_eq!(reply.header("content-type"), Some("application/json"), "{reply:?}");
    let error = reply.json()["error"].clone();
    let mut fields: Vec<&String> = error.as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["code", "message", "param", "type"]);
    assert!(!error["message"].as_str().unwrap().is_empty());
    error
}

#[tokio::test]
async fn a_chat_parameter_that_is_wrong_is_named() {
    let server = Server::start().await;
    let cases = [
        (json!({"temperature": -0.1}), "temperature", Value::Null),
        (json!({"temperature": 2.5}), "temperature", Value::Null),
        (json!({"temperature": "hot"}), "temperature", Value::Null),
        (json!({"top_p": 1.5}), "top_p", Value::Null),
        (json!({"max_tokens": 0}), "max_tokens", Value::Null),
        (json!({"max_tokens": -5}), "max_tokens", Value::Null),
        (json!({"max_tokens": 2.5}), "max_tokens", Value::Null),
        (json!({"max_tokens": 18446744073709551615u64}), "max_tokens", Value::Null),
        (json!({"max_tokens": 5, "max_completion_tokens": 6}), "max_tokens", Value::Null),
        (json!({"seed": "x"}), "seed", Value::Null),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop", Value::Null),
        (json!({"stop": ""}), "stop", Value::Null),
        (json!({"stop": [1]}), "stop", Value::Null),
        (json!({"stream": "yes"}), "stream", Value::Null),
        (json!({"stream_options": {"include_usage": true}}), "stream_options", Value::Null),
        (json!({"stream": true, "stream_options": {"x": 1}}), "stream_options.x", json!("unknown_parameter")),
        (json!({"top_logprobs": 3}), "top_logprobs", Value::Null),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs", Value::Null),
        (json!({"logprobs": 3}), "logprobs", Value::Null),
        (json!({"n": 0}), "n", Value::Null),
        (json!({"n": 129}), "n", Value::Null),
        (json!({"tools": [{"type": "function"}]}), "tools[0].function", json!("missing_required_parameter")),
        (json!({"no_such_thing": null}), "no_such_thing", json!("unknown_parameter")),
        (json!({"messages": []}), "messages", Value::Null),
        (json!({"messages": "hi"}), "messages", Value::Null),
        (json!({"messages": null}), "messages", json!("missing_required_parameter")),
        (json!({"messages": [5]}), "messages[0]", Value::Null),
        (json!({"messages": [{"content": "x"}]}), "messages[0].role", json!("missing_required_parameter")),
        (
            json!({"messages": [{"role": "function", "content": "x"}]}),
            "messages[0].role",
            json!("unsupported_parameter"),
        ),
        (json!({"messages": [{"role": "boss", "content": "x"}]}), "messages[0].role", Value::Null),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content", json!("missing_required_parameter")),
        (json!({"messages": [{"role": "user", "content": 5}]}), "messages[0].content", Value::Null),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages[0].content[0].type",
            json!("unsupported_parameter"),
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}),
            "messages[0].content[0].text",
            Value::Null,
        ),
        (
            json!({"messages": [{"role": "user", "content": "x", "mood": "good"}]}),
            "messages[0].mood",
            json!("unknown_parameter"),
        ),
        (json!({"messages": [{"role": "assistant", "content": "x"}]}), "messages", Value::Null),
        (json!({"model": 5}), "model", Value::Null),
    ];
    let many = cases.len();
    for (fields, param, code) in cases {
        let mut body = user("say:x", json!({}));
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let reply = server.chat(body).await;
        assert_eq!(reply.status, 400, "{fields} {reply:?}");
        let error = error_of(&reply);
        assert_eq!((&error["param"], &error["code"]), (&json!(param), &code), "{fields} {error}");
        assert_eq!(error["type"], "invalid_request_error");
        let last = param.rsplit(['.', ']']).find(|part| !part.is_empty()).unwrap();
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(last) || message.contains("user speaks first"), "{message}");
    }
    server.counts("coterie_requests_total{outcome=\"rejected\"}", many as f64).await;
}

#[tokio::test]
async fn a_completion_parameter_that_is_wrong_is_named() {
    let server = Server::start().await;
    for (body, param) in [
        (json!({}), "prompt"),
        (json!({"prompt": ""}), "nothing"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": {"a": 1}}), "prompt"),
        (json!({"prompt": ["a", 5]}), "prompt[1]"),
        (json!({"prompt": ["a", [1, 300]]}), "prompt[1][1]"),
        (json!({"prompt": [[]]}), "prompt"),
        (json!({"prompt": vec!["a"; 129]}), "prompt"),
        (json!({"prompt": ["a", "b"], "n": 65}), "prompt"),
        (json!({"prompt": [1, "a"]}), "prompt[1]"),
        (json!({"prompt": [1, -1]}), "prompt[1]"),
        (json!({"prompt": [260]}), "prompt[0]"),
        (json!({"prompt": [1.5]}), "prompt[0]"),
        (json!({"prompt": [1099511627776u64]}), "prompt[0]"),
        (json!({"prompt": "x", "suffix": "y"}), "suffix"),
        (json!({"prompt": "x", "best_of": 2}), "best_of"),
        (json!({"prompt": "x", "best_of": 1, "n": 2}), "best_of"),
        (json!({"prompt": "x", "logprobs": 6}), "logprobs"),
        (json!({"prompt": "x", "logprobs": true}), "logprobs"),
        (json!({"prompt": "x", "max_tokens": 0}), "max_tokens"),
        (json!({"prompt": "x", "echo": 1}), "echo"),
        (json!({"prompt": "x", "messages": []}), "messages"),
    ] {
        let reply = server.complete(body.clone()).await;
        if param == "nothing" {
            // The tokenizer's beginning token is a prompt, too.
            assert_eq!(reply.status, 200, "{reply:?}");
            continue;
        }
        assert_eq!(reply.status, 400, "{body} {reply:?}");
        assert_eq!(error_of(&reply)["param"], param, "{body}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused() {
    let server = Server::start().await;
    let deep = "[".repeat(100_000);
    for body in
        ["", "{", "nonsense", "[]", "5", "{\"model\": \"scripted\", \"temperature\": NaN}", "\u{0}", &deep]
    {
        let reply = exchange(server.address, "POST", "/v1/chat/completions", body).await;
        assert_eq!(reply.status, 400, "{body:.20} {reply:?}");
        error_of(&reply);
    }
}

#[tokio::test]
async fn a_wrong_place_is_told_in_the_same_shape() {
    let server = Server::start().await;
    let reply = server.chat(user("x", json!({"model": "gpt-4"}))).await;
    assert_eq!((reply.status, &error_of(&reply)["code"]), (404, &json!("model_not_found")));
    let mut unnamed = user("x", json!({}));
    unnamed["model"] = Value::Null;
    let reply = server.post("/v1/chat/completions", &unnamed).await;
    assert_eq!((reply.status, &error_of(&reply)["param"]), (400, &json!("model")));

    for (method, path, status, code) in [
        ("GET", "/v1/models/other", 404, "model_not_found"),
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("POST", "/", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ] {
        let reply = exchange(server.address, method, path, "").await;
        assert_eq!((reply.status, &error_of(&reply)["code"]), (status, &json!(code)), "{method} {path}");
    }
    let found = server.get("/v1/models/scripted").await.json();
    assert_eq!(found, server.get("/v1/models").await.json()["data"][0]);
}

#[tokio::test]
async fn what_is_too_much_is_refused_with_the_limit() {
    let server = Server::start().await;
    let reply = server.chat(user(&"x".repeat(3000), json!({}))).await;
    let error = error_of(&reply);
    assert_eq!(
        (reply.status, &error["code"], &error["param"]),
        (400, &json!("context_length_exceeded"), &json!("messages"))
    );
    assert!(error["message"].as_str().unwrap().contains("2000 tokens"), "{error}");
    let reply = server.complete(json!({"prompt": "x", "max_tokens": 2000})).await;
    assert_eq!(error_of(&reply)["code"], "context_length_exceeded");

    let reply = server.chat(user(&"x".repeat(11 << 20), json!({}))).await;
    assert_eq!((reply.status, &error_of(&reply)["code"]), (413, &json!("request_too_large")));
}

#[tokio::test]
async fn a_full_queue_asks_to_come_back() {
    let server = Server::start().await;
    let places = crate::script::RUNNING + crate::script::WAITING;
    let mut streams = Vec::new();
    for _ in 0..places {
        let body = crate::server::named(user("wait:again:x", json!({"stream": true, "max_tokens": 1500})));
        let mut stream =
            crate::client::Exchange::start(server.address, "POST", "/v1/chat/completions", &body.to_string())
                .await;
        stream.read_until("assistant").await;
        streams.push(stream);
        // Until the engine has taken the first ones, they count as waiting.
        server.counts("coterie_requests_running", streams.len().min(crate::script::RUNNING) as f64).await;
    }
    let reply = server.chat(user("say:x", json!({}))).await;
    assert_eq!((reply.status, &error_of(&reply)["code"]), (429, &json!("queue_full")));
    assert!(reply.header("retry-after").is_some());
    server.counts("coterie_requests_running", 4.0).await;
    server.counts("coterie_requests_waiting", 4.0).await;
    drop(streams);
    let idle = || server.seen.lock().unwrap().cancelled.len() == places;
    crate::server::eventually("all are cancelled", idle).await;
    assert_eq!(server.chat(user("say:x", json!({}))).await.status, 200);
}
