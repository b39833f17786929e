use crate::model::BEGIN;
use crate::server::{Server, usage};
use serde_json::{Value, json};

fn ids(text: &str) -> Value {
    text.bytes().map(u32::from).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn a_completion_continues_text_or_tokens() {
    let server = Server::start().await;
    for (prompt, tokens) in
        [(json!("say:é!"), 8), (json!(["say:é!"]), 8), (ids("say:é!"), 7), (json!([ids("say:é!")]), 7)]
    {
        let reply = server.complete(json!({"prompt": prompt})).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let answer = reply.json();
        assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
        assert_eq!(answer["object"], "text_completion");
        let choice = json!({"index": 0, "text": "é!", "logprobs": null, "finish_reason": "stop"});
        assert_eq!(answer["choices"], json!([choice]));
        let mut usage = usage(tokens, 4);
        if !(prompt.is_string() || prompt[0].is_number()) {
            // The same prompt came before.
            usage["prompt_tokens_details"]["cached_tokens"] = json!(tokens - 1);
        }
        assert_eq!(answer["usage"], usage);
    }
    // A text gets the tokenizer's beginning token, tokens are taken as they are.
    let seen = server.seen.lock().unwrap();
    let first: Vec<u32> = seen.requests.iter().rev().take(4).map(|request| request.prompt[0]).collect();
    assert_eq!(first, [u32::from(b's'), u32::from(b's'), BEGIN, BEGIN]);
}

#[tokio::test]
async fn sixteen_tokens_are_the_default() {
    let server = Server::start().await;
    let answer = server.complete(json!({"prompt": "again:x"})).await.json();
    assert_eq!(answer["choices"][0]["text"], "x".repeat(16));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn echo_and_logprobs_score_the_prompt() {
    let server = Server::start().await;
    let body = json!({"prompt": "say:é", "max_tokens": 1, "echo": true, "logprobs": 1});
    let answer = server.complete(body).await.json();
    let choice = &answer["choices"][0];
    // Only half of the é was generated.
    assert_eq!(choice["text"], "say:é\u{fffd}");
    let logprobs = &choice["logprobs"];
    let tokens = json!(["<s>", "s", "a", "y", ":", "bytes:\\xc3", "bytes:\\xa9", "bytes:\\xc3"]);
    assert_eq!(logprobs["tokens"], tokens);
    assert_eq!(logprobs["text_offset"], json!([0, 0, 1, 2, 3, 4, 4, 5]));
    let scores = logprobs["token_logprobs"].as_array().unwrap();
    assert!(scores[0].is_null() && scores[1..].iter().all(|score| *score == json!(-0.25)));
    assert!(logprobs["top_logprobs"][0].is_null());
    assert_eq!(logprobs["top_logprobs"][1], json!({"s": -0.25}));
}

#[tokio::test]
async fn a_prompt_is_scored_without_generating() {
    let server = Server::start().await;
    let body = json!({"prompt": ids("abc"), "max_tokens": 0, "echo": true, "logprobs": 0});
    let answer = server.complete(body).await.json();
    assert_eq!(answer["choices"][0]["text"], "abc");
    assert_eq!(answer["choices"][0]["logprobs"]["token_logprobs"], json!([null, -0.25, -0.25]));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"], usage(3, 0));

    let plain = server.complete(json!({"prompt": ids("abc"), "max_tokens": 0, "echo": true})).await.json();
    assert_eq!(
        (&plain["choices"][0]["text"], &plain["choices"][0]["logprobs"]),
        (&json!("abc"), &Value::Null)
    );
}

#[tokio::test]
async fn a_streamed_completion_is_the_same_answer_in_pieces() {
    let server = Server::start().await;
    for body in [
        json!({"prompt": "say:Hello", "echo": true}),
        json!({"prompt": "say:Hello", "echo": true, "logprobs": 2}),
        json!({"prompt": "say:Hello", "stop": "lo"}),
        json!({"prompt": "say:Hello", "logprobs": 0, "max_tokens": 2}),
    ] {
        let whole = server.complete(body.clone()).await.json();
        let mut streamed = body;
        streamed["stream"] = json!(true);
        streamed["stream_options"] = json!({"include_usage": true});
        let mut chunks = server.complete(streamed).await.chunks();
        let usage = chunks.pop().unwrap()["usage"].clone();
        assert_eq!(usage["total_tokens"], whole["usage"]["total_tokens"]);
        assert_eq!(
            usage["prompt_tokens_details"]["cached_tokens"],
            whole["usage"]["prompt_tokens"].as_u64().unwrap() - 1
        );
        let choice = &whole["choices"][0];
        let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
        assert_eq!(text, choice["text"].as_str().unwrap());
        assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], choice["finish_reason"]);
        for column in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            let pieces = chunks.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"][column].as_array());
            let joined: Vec<Value> = pieces.flatten().cloned().collect();
            assert_eq!(joined, choice["logprobs"][column].as_array().cloned().unwrap_or_default());
        }
    }
}
