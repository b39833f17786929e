use crate::model::{BEGIN, END, TURN};
use crate::server::{MODEL, Server, usage, user};
use serde_json::{Value, json};

#[tokio::test]
async fn a_chat_is_answered_in_openais_shape() {
    let server = Server::start().await;
    let reply =
        server.chat(user("say:Grüße 🦀!", json!({"seed": 7, "temperature": 0.5, "top_p": 0.9}))).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let answer = reply.json();
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!(MODEL)));
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    let choice = json!({"index": 0, "message": {"role": "assistant", "content": "Grüße 🦀!", "refusal": null},
                        "logprobs": null, "finish_reason": "stop"});
    assert_eq!(answer["choices"], json!([choice]));

    let request = server.seen.lock().unwrap().requests.last().unwrap().clone();
    assert_eq!(request.prompt[..2], [BEGIN, TURN]);
    assert_eq!(request.stop_tokens, [END]);
    let sampling = (request.sampling.temperature, request.sampling.top_p, request.sampling.seed);
    assert_eq!(sampling, (0.5, 0.9, 7));
    let (prompt, completion) = (request.prompt.len(), "Grüße 🦀!".len() + 1);
    assert_eq!(answer["usage"], usage(prompt, completion));
    assert_eq!(request.max_tokens + prompt, crate::script::CONTEXT);
}

#[tokio::test]
async fn a_streamed_chat_is_the_same_answer_in_pieces() {
    let server = Server::start().await;
    let body = json!({"stream": true, "stream_options": {"include_usage": true}});
    let reply = server.chat(user("say:Hé🦀", body)).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let chunks = reply.chunks();
    let id = chunks[0]["id"].clone();
    assert!(chunks.iter().all(|chunk| chunk["id"] == id && chunk["object"] == "chat.completion.chunk"));

    let deltas: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    assert_eq!(*deltas[0], json!({"role": "assistant", "content": "", "refusal": null}));
    // é is two tokens and the crab four; neither is ever shown in halves.
    assert_eq!(deltas[1..4], [&json!({"content": "H"}), &json!({"content": "é"}), &json!({"content": "🦀"})]);
    assert_eq!(*deltas[4], json!({}));
    let reasons: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).collect();
    assert_eq!(*reasons[4], json!("stop"));
    assert!(reasons[..4].iter().all(|reason| reason.is_null()));

    assert_eq!(chunks.len(), 6);
    assert_eq!(chunks[5]["choices"], json!([]));
    assert_eq!(chunks[5]["usage"]["completion_tokens"], 8);
    assert!(chunks[..5].iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
}

#[tokio::test]
async fn a_stream_without_usage_does_not_mention_it() {
    let server = Server::start().await;
    let chunks = server.chat(user("say:a", json!({"stream": true}))).await.chunks();
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()), "{chunks:?}");
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn max_tokens_ends_an_answer_by_length() {
    let server = Server::start().await;
    for name in ["max_tokens", "max_completion_tokens"] {
        let answer = server.chat(user("again:ab", json!({name: 5}))).await.json();
        assert_eq!(answer["choices"][0]["message"]["content"], "ababa");
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(answer["usage"]["completion_tokens"], 5);
    }
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_before_it_and_the_work() {
    let server = Server::start().await;
    let stops = json!(["never", "\n\nUser:"]);
    let body = user("wait:again:Hello\n\nUser: x", json!({"stop": stops}));
    let answer = server.chat(body.clone()).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], "Hello\n\nUser:".len());

    let mut streamed = body;
    streamed["stream"] = json!(true);
    let chunks = server.chat(streamed).await.chunks();
    let text: String = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "Hello");
    let cancelled = || server.seen.lock().unwrap().cancelled.len() == 2;
    crate::server::eventually("both are cancelled in the engine", cancelled).await;
    server.counts("coterie_requests_total{outcome=\"stop\"}", 2.0).await;
    server.counts("coterie_requests_total{outcome=\"cancelled\"}", 0.0).await;
}

#[tokio::test]
async fn logprobs_name_each_token_with_its_bytes() {
    let server = Server::start().await;
    let answer = server.chat(user("say:aé", json!({"logprobs": true, "top_logprobs": 2}))).await.json();
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    assert_eq!(content.len(), 3, "the end token is no part of the answer: {content:?}");
    assert_eq!((&content[0]["token"], &content[0]["bytes"]), (&json!("a"), &json!([97])));
    assert_eq!(content[1]["bytes"], json!([0xc3]));
    assert_eq!(content[2]["bytes"], json!([0xa9]));
    assert_eq!(content[0]["logprob"], json!(-0.25));
    let top = json!([{"token": "a", "logprob": -0.25, "bytes": [97]}, {"token": "b", "logprob": -1.25, "bytes": [98]}]);
    assert_eq!(content[0]["top_logprobs"], top);

    let plain = server.chat(user("say:a", json!({"logprobs": true}))).await.json();
    assert_eq!(plain["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[tokio::test]
async fn what_clients_send_without_meaning_it_is_accepted() {
    let server = Server::start().await;
    let body = json!({
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "be"}, {"type": "text", "text": "brief"}]},
            {"role": "user", "content": "hi", "name": "Ann"},
            {"role": "assistant", "content": "hello", "refusal": null, "tool_calls": null, "annotations": []},
            {"role": "user", "content": "say:ok"},
        ],
        "n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "user": "ann", "tools": null,
        "stop": null, "temperature": null, "top_p": null, "seed": null, "max_tokens": null, "stream": false,
        "stream_options": null, "response_format": {"type": "text"}, "logprobs": false, "top_logprobs": null,
        "parallel_tool_calls": true, "tool_choice": "auto", "store": false, "metadata": {"run": "7"}, "service_tier": "auto",
        "top_k": -1, "min_p": 0, "repetition_penalty": 1, "ignore_eos": false, "stop_token_ids": [], "priority": 0,
        "cache_salt": null, "skip_special_tokens": true, "include_stop_str_in_output": false,
    });
    let reply = server.chat(body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "ok");
    let prompt = server.seen.lock().unwrap().requests.last().unwrap().prompt.clone();
    let prompt: Vec<u8> = prompt.iter().filter(|token| **token < 256).map(|token| *token as u8).collect();
    assert_eq!(
        String::from_utf8(prompt).unwrap(),
        "system\nbe\nbriefuser\nhiassistant\nhellouser\nsay:okassistant\n"
    );
}

#[tokio::test]
async fn two_requests_without_a_seed_get_two() {
    let server = Server::start().await;
    for _ in 0..2 {
        server.chat(user("say:a", json!({}))).await;
    }
    let seen = server.seen.lock().unwrap();
    let seeds: Vec<u64> = seen.requests.iter().rev().take(2).map(|request| request.sampling.seed).collect();
    assert_ne!(seeds[0], seeds[1]);
}
