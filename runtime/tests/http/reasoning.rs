//! Reasoning is told apart from the answer, whole and streamed.

use crate::model::REASONING_TEMPLATE;
use crate::server::{Server, user};
use serde_json::{Value, json};

/// The texts under `name` in the deltas, joined.
fn joined(chunks: &[Value], name: &str) -> String {
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"][name].as_str()).collect()
}

#[tokio::test]
async fn reasoning_has_a_field_of_its_own() {
    let server = Server::start_with_template(REASONING_TEMPLATE).await;
    let say = "say:<think>\nWhy, ü?\n</think>\n\nBecause.";
    let answer = server.chat(user(say, json!({}))).await.json();
    let message = json!({"role": "assistant", "content": "Because.", "refusal": null,
                         "reasoning": "Why, ü?", "reasoning_content": "Why, ü?"});
    assert_eq!(answer["choices"][0]["message"], message);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let tokens = "\nWhy, ü?\n</think>".len();
    assert_eq!(answer["usage"]["completion_tokens_details"], json!({"reasoning_tokens": tokens}));

    let body = json!({"stream": true, "stream_options": {"include_usage": true}});
    let chunks = server.chat(user(say, body)).await.chunks();
    assert_eq!(joined(&chunks, "reasoning_content"), "Why, ü?");
    assert_eq!(joined(&chunks, "reasoning"), "Why, ü?");
    assert_eq!(joined(&chunks, "content"), "Because.");
    let usage = &chunks.last().unwrap()["usage"];
    assert_eq!(usage["completion_tokens_details"], json!({"reasoning_tokens": tokens}));
}

#[tokio::test]
async fn an_answer_without_reasoning_says_so() {
    let server = Server::start_with_template(REASONING_TEMPLATE).await;
    let answer = server.chat(user("say:plain", json!({}))).await.json();
    let message = json!({"role": "assistant", "content": "plain", "refusal": null,
                         "reasoning": null, "reasoning_content": null});
    assert_eq!(answer["choices"][0]["message"], message);
    assert_eq!(answer["usage"]["completion_tokens_details"], json!({"reasoning_tokens": 0}));
}

#[tokio::test]
async fn a_prompt_that_opens_the_reasoning_has_it_closed_by_the_answer() {
    let server = Server::start_with_template(REASONING_TEMPLATE).await;
    let deep = json!({"chat_template_kwargs": {"deep": true}});
    let answer = server.chat(user("say:Hm.</think>Yes.", deep.clone())).await.json();
    let message = &answer["choices"][0]["message"];
    assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("Hm."), &json!("Yes.")));
    assert!(server.last_prompt().ends_with("assistant\n<think>\n"));

    // Cut in the middle, everything is reasoning; calls are not looked for in it.
    let mut cut = user("say:<tool_call>{\"name\": \"f\"}</tool_call> and so on", deep);
    cut["max_tokens"] = json!(40);
    cut["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    let answer = server.chat(cut).await.json();
    let choice = &answer["choices"][0];
    let reasoning = "<tool_call>{\"name\": \"f\"}</tool_call> and so on";
    assert_eq!(choice["message"]["reasoning_content"], reasoning[..40]);
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(""), &json!("length")));
}

#[tokio::test]
async fn logprobs_stay_with_the_text_that_their_token_begins() {
    let server = Server::start_with_template(REASONING_TEMPLATE).await;
    let body = json!({"stream": true, "logprobs": true});
    let chunks = server.chat(user("say:<think>ab</think>cd", body)).await.chunks();
    let with_tokens = |name: &str, text: &str| {
        let chunk = chunks.iter().find(|chunk| chunk["choices"][0]["delta"][name] == text).unwrap();
        let tokens = chunk["choices"][0]["logprobs"]["content"].as_array().unwrap();
        tokens.iter().map(|token| token["token"].as_str().unwrap()).collect::<String>()
    };
    assert_eq!(with_tokens("reasoning_content", "a"), "<think>a");
    assert_eq!(with_tokens("reasoning_content", "b"), "b");
    assert_eq!(with_tokens("content", "c"), "</think>c");
    assert_eq!(with_tokens("content", "d"), "d");
}

#[tokio::test]
async fn reasoning_is_taken_back_and_given_to_the_template() {
    let server = Server::start_with_template(REASONING_TEMPLATE).await;
    let body = json!({"messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello", "reasoning": "greet", "reasoning_content": "greet"},
        {"role": "user", "content": "say:ok"},
    ]});
    assert_eq!(server.chat(body).await.status, 200);
    assert!(server.last_prompt().contains("assistant\n<think>greet</think>hello"));
}

#[tokio::test]
async fn a_family_that_does_not_reason_keeps_the_tags_as_text() {
    let server = Server::start().await;
    let answer = server.chat(user("say:<think>a</think>b", json!({}))).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "<think>a</think>b");
    assert_eq!(answer["usage"].get("completion_tokens_details"), None);
}
