//! Every parameter reaches the engine, and what is wrong with one is said.

use crate::script::VOCABULARY;
use crate::server::{Server, user};
use coterie_engine::Request;
use serde_json::{Value, json};

/// What the engine was last asked for.
fn last(server: &Server) -> Request {
    server.seen.lock().unwrap().requests.last().unwrap().clone()
}

/// Sends `fields` to both endpoints; what each asks the engine for.
async fn asked(server: &Server, fields: Value) -> [Request; 2] {
    let reply = server.chat(user("say:x", fields.clone())).await;
    assert_eq!(reply.status, 200, "{fields} {reply:?}");
    let chat = last(server);
    let mut body = fields;
    body["prompt"] = json!("say:x");
    let reply = server.complete(body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    [chat, last(server)]
}

/// The error that both endpoints answer `fields` with.
async fn refused(server: &Server, fields: Value) -> Value {
    let chat = server.chat(user("say:x", fields.clone())).await;
    assert_eq!(chat.status, 400, "{fields} {chat:?}");
    let mut body = fields;
    body["prompt"] = json!("say:x");
    let completion = server.complete(body).await;
    assert_eq!(completion.json()["error"], chat.json()["error"], "both say the same");
    chat.json()["error"].clone()
}

#[tokio::test]
async fn sampling_parameters_reach_the_engine() {
    let server = Server::start().await;
    let fields = json!({
        "temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125, "repetition_penalty": 1.5,
        "presence_penalty": -2, "frequency_penalty": 0.75, "logit_bias": {"5": -100, "258": 1.5}, "seed": 9,
    });
    for request in asked(&server, fields).await {
        let sampling = request.sampling;
        assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.5, 0.25, 7));
        assert_eq!((sampling.min_p, sampling.repetition_penalty), (0.125, 1.5));
        assert_eq!((sampling.presence_penalty, sampling.frequency_penalty), (-2.0, 0.75));
        assert_eq!(sampling.logit_bias, [(5, -100.0), (258, 1.5)]);
        assert_eq!(sampling.seed, 9);
    }
    for request in asked(&server, json!({})).await {
        let neutral = coterie_engine::Sampling {
            temperature: 1.0,
            seed: request.sampling.seed,
            ..coterie_engine::Sampling::greedy()
        };
        assert_eq!(request.sampling, neutral);
    }
    for all in [-1, 0] {
        assert_eq!(asked(&server, json!({"top_k": all})).await.map(|r| r.sampling.top_k), [0, 0]);
    }
}

#[tokio::test]
async fn stop_tokens_reach_the_engine() {
    let server = Server::start().await;
    let stops = async |fields| asked(&server, fields).await.map(|request| request.stop_tokens);
    assert_eq!(stops(json!({})).await, [vec![257], vec![257]]);
    assert_eq!(stops(json!({"stop_token_ids": [10, 11.0]})).await[0], [257, 10, 11]);
    assert!(stops(json!({"ignore_eos": true, "max_tokens": 4})).await[1].is_empty());
    assert_eq!(stops(json!({"ignore_eos": true, "stop_token_ids": [10], "max_tokens": 4})).await[0], [10]);

    let say = json!({"prompt": "say:ab\ncd", "stop_token_ids": [10]});
    let choice = server.complete(say).await.json()["choices"][0].clone();
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("ab"), &json!("stop")));
}

#[tokio::test]
async fn priority_reaches_the_engine_and_only_steps_back() {
    let server = Server::start().await;
    assert_eq!(asked(&server, json!({})).await.map(|request| request.priority), [0, 0]);
    assert_eq!(asked(&server, json!({"priority": 100})).await.map(|request| request.priority), [100, 100]);
    for wrong in [json!(-1), json!(101)] {
        let error = refused(&server, json!({"priority": wrong})).await;
        assert_eq!(error["param"], "priority");
        assert!(error["message"].as_str().unwrap().contains("step back, but not ahead"), "{error}");
    }
}

#[tokio::test]
async fn a_cache_salt_is_a_scope_of_its_own() {
    let server = Server::start().await;
    let scope = async |fields| asked(&server, fields).await.map(|request| request.cache_scope);
    assert_eq!(scope(json!({})).await, [0, 0]);
    let [chat, completion] = scope(json!({"cache_salt": "a"})).await;
    assert!(chat == completion && chat != 0);
    assert_ne!(scope(json!({"cache_salt": "b"})).await[0], chat);
    for wrong in [json!(""), json!("x".repeat(257)), json!(5)] {
        assert_eq!(refused(&server, json!({"cache_salt": wrong})).await["param"], "cache_salt");
    }
}

#[tokio::test]
async fn what_ended_an_answer_and_structure_can_be_shown() {
    let server = Server::start().await;
    let text = async |fields: Value| {
        let mut body = fields;
        body["prompt"] = json!("say:ab\ncd");
        server.complete(body).await.json()["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    let shown = json!({"stop": ["b\nc"], "include_stop_str_in_output": true});
    assert_eq!(text(shown).await, "ab\nc");
    assert_eq!(text(json!({"stop_token_ids": [10], "include_stop_str_in_output": true})).await, "ab\n");
    assert_eq!(text(json!({"include_stop_str_in_output": true})).await, "ab\ncd");
    let all = json!({"include_stop_str_in_output": true, "skip_special_tokens": false});
    assert_eq!(text(all).await, "ab\ncd<|end|>");
    let eos = json!({"ignore_eos": true, "skip_special_tokens": false, "max_tokens": 7});
    assert_eq!(text(eos).await, "ab\ncd<|end|><|end|>");
}

#[tokio::test]
async fn a_stream_can_count_in_each_chunk() {
    let server = Server::start().await;
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let body = json!({"stream": true, "stream_options": options, "n": 2});
    let chunks = server.chat(user("say:abc", body)).await.chunks();
    let counts: Vec<u64> =
        chunks.iter().map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert_eq!((counts[0], counts[1], *counts.last().unwrap()), (0, 0, 8));
    assert!(counts.is_sorted() && counts.len() == 2 + 8 + 1, "{counts:?}");
    assert_eq!(chunks.last().unwrap()["choices"], json!([]));

    let alone = json!({"stream": true, "stream_options": {"continuous_usage_stats": true}});
    assert_eq!(refused(&server, alone).await["param"], "stream_options.continuous_usage_stats");
}

#[tokio::test]
async fn an_integer_may_be_written_with_a_point() {
    let server = Server::start().await;
    for request in asked(&server, json!({"max_tokens": 5.0, "seed": 3.0, "n": 1.0, "top_k": 2e1})).await {
        assert_eq!((request.max_tokens, request.sampling.seed, request.sampling.top_k), (5, 3, 20));
    }
    let reply = server.complete(json!({"prompt": [115.0, 97], "max_tokens": 1})).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test]
async fn a_parameter_that_is_wrong_is_named_on_both_endpoints() {
    let server = Server::start().await;
    let many_biases: serde_json::Map<String, Value> = (0..301).map(|id| (id.to_string(), json!(1))).collect();
    for (fields, param, says) in [
        (json!({"n": 0}), "n", "between 1 and 128, not 0"),
        (json!({"n": 129.0}), "n", "between 1 and 128, not 129.0"),
        (json!({"n": 1.5}), "n", "must be an integer, not a decimal number"),
        (json!({"n": 1180591620717411303424u128 as f64}), "n", "between 1 and 128, not 1.18"),
        (json!({"max_tokens": 5000000000u64}), "max_tokens", "must be between"),
        (json!({"seed": 9223372036854775808u64}), "seed", "between -9223372036854775808 and"),
        (json!({"seed": 1e30}), "seed", "not 1e"),
        (json!({"seed": i64::MIN as f64}), "seed", "between -9223372036854775808 and"),
        (json!({"presence_penalty": 2.1}), "presence_penalty", "between -2 and 2, not 2.1"),
        (json!({"presence_penalty": "much"}), "presence_penalty", "must be a number, not a string"),
        (json!({"frequency_penalty": -3}), "frequency_penalty", "between -2 and 2, not -3"),
        (json!({"top_k": -2}), "top_k", "between -1 and"),
        (json!({"top_k": true}), "top_k", "must be an integer, not a boolean"),
        (json!({"min_p": 1.1}), "min_p", "between 0 and 1, not 1.1"),
        (json!({"repetition_penalty": 0}), "repetition_penalty", "between 0.01 and 10, not 0"),
        (json!({"logit_bias": [5]}), "logit_bias", "must be an object, not an array"),
        (json!({"logit_bias": {"abc": 1}}), "logit_bias", "'logit_bias' names abc, which is no token id"),
        (json!({"logit_bias": {"05": 1}}), "logit_bias", "names 05"),
        (json!({"logit_bias": {"-1": 1}}), "logit_bias", "the integers from 0 to 259"),
        (json!({"logit_bias": {VOCABULARY.to_string(): 1}}), "logit_bias", "names 260"),
        (json!({"logit_bias": {"5": 101}}), "logit_bias.5", "between -100 and 100, not 101"),
        (json!({"logit_bias": {"5": "1"}}), "logit_bias.5", "must be a number, not a string"),
        (json!({"logit_bias": many_biases}), "logit_bias", "300 tokens at most, not 301"),
        (json!({"stop_token_ids": 5}), "stop_token_ids", "must be an array"),
        (json!({"stop_token_ids": ["a"]}), "stop_token_ids[0]", "must be a token id, not a string"),
        (json!({"stop_token_ids": [1, 260]}), "stop_token_ids[1]", "names 260"),
        (json!({"stop_token_ids": vec![1; 65]}), "stop_token_ids", "64 tokens at most, not 65"),
        (json!({"ignore_eos": "no"}), "ignore_eos", "must be true or false"),
        (json!({"skip_special_tokens": 1}), "skip_special_tokens", "must be true or false"),
        (json!({"include_stop_str_in_output": 1}), "include_stop_str_in_output", "must be true or false"),
        (json!({"user": 5}), "user", "must be a string"),
        (json!({"metadata": {"a": 5}}), "metadata.a", "must be a string"),
        (
            json!({"metadata": (0..17).map(|at| (at.to_string(), json!(""))).collect::<serde_json::Map<_, _>>()}),
            "metadata",
            "16 entries at most",
        ),
        (json!({"store": true}), "store", "is not supported yet"),
        (json!({"service_tier": "flex"}), "service_tier", "is not supported yet"),
    ] {
        let error = refused(&server, fields.clone()).await;
        assert_eq!(error["param"], param, "{fields} {error}");
        assert!(error["message"].as_str().unwrap().contains(says), "{fields} {error}");
    }
}

#[tokio::test]
async fn a_token_id_that_is_none_is_told_what_one_is() {
    let server = Server::start().await;
    for (ids, found) in [(json!([1, -1]), "-1"), (json!([1, 1099511627776u64]), "1099511627776")] {
        let error = server.complete(json!({"prompt": ids})).await.json()["error"].clone();
        assert_eq!(error["param"], "prompt[1]");
        let says =
            format!("names {found}, which is no token id: this model's are the integers from 0 to 259");
        assert!(error["message"].as_str().unwrap().contains(&says), "{error}");
    }
}

#[tokio::test]
async fn a_number_that_is_beyond_all_limits_is_told_so() {
    let server = Server::start().await;
    let body =
        r#"{"model": "scripted", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1e400}"#;
    let reply = crate::client::exchange(server.address, "POST", "/v1/chat/completions", body).await;
    assert_eq!(reply.status, 400);
    let message = reply.json()["error"]["message"].clone();
    assert!(message.as_str().unwrap().contains("a number beyond all limits at line 1 column"), "{message}");
}

#[tokio::test]
async fn a_prompt_too_long_for_the_model_is_refused_before_it_is_copied() {
    let server = Server::start().await;
    let before = server.seen.lock().unwrap().requests.len();
    let error = server.chat(user(&"x".repeat(3000), json!({"n": 128}))).await.json()["error"].clone();
    assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!("messages")));
    assert_eq!(server.seen.lock().unwrap().requests.len(), before);
}
