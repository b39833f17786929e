//! Clients that write journals themselves: what does not fit is refused before the engine sees it, and what fits is an
//! answer that they could have had anyway.

use super::cases::Case;
use super::{HEADER, ask};
use crate::model::END;
use crate::script::{CONTEXT, VOCABULARY};
use crate::server::{Server, named, user};
use serde_json::{Value, json};

fn begun() -> Value {
    json!({"id": "chatcmpl-1", "created": 5, "seed": 7})
}

fn choices(choices: Value) -> Value {
    json!({"begun": begun(), "choices": choices})
}

async fn refused(server: &Server, request: Value, replay: Value, says: &str) {
    let engine = || server.seen.lock().unwrap().requests.len();
    let before = engine();
    let mut body = named(user("say:abc", request));
    body["coterie_replay"] = replay;
    let reply = server.post("/v1/chat/completions", &body).await;
    let shown: String = body.to_string().chars().take(300).collect();
    assert_eq!(reply.status, 400, "{shown} {}", reply.body);
    let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(says), "{message}");
    assert!(message.len() < 500, "{message}");
    assert_eq!(engine(), before, "the engine was given something");
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let server = Server::start().await;
    let stream = || json!({"stream": true});
    for (replay, says) in [
        (json!([]), "must be an object"),
        (json!("x"), "must be an object"),
        (json!({}), "'coterie_replay.begun'"),
        (json!({"begun": begun()}), "'coterie_replay.choices'"),
        (json!({"begun": 1, "choices": []}), "'coterie_replay.begun' must be an object"),
        (json!({"begun": {}, "choices": []}), "'coterie_replay.begun.id'"),
        (json!({"begun": {"id": "a", "created": 1}, "choices": []}), "'coterie_replay.begun.seed'"),
        (json!({"begun": {"id": "", "created": 1, "seed": 1}, "choices": []}), "begun.id"),
        (json!({"begun": {"id": "a\nb", "created": 1, "seed": 1}, "choices": []}), "begun.id"),
        (json!({"begun": {"id": "a".repeat(65), "created": 1, "seed": 1}, "choices": []}), "begun.id"),
        (json!({"begun": {"id": "a", "created": -1, "seed": 1}, "choices": []}), "begun.created"),
        (json!({"begun": {"id": "a", "created": 1, "seed": 1e30}, "choices": []}), "begun.seed"),
        (json!({"begun": {"id": "a", "created": 1, "seed": 1, "x": 1}, "choices": []}), "begun.x"),
        (json!({"begun": begun(), "choices": [], "more": 1}), "coterie_replay.more"),
        (choices(json!({})), "must be an array"),
        (choices(json!([1])), "'coterie_replay.choices[0]' must be an object"),
        (choices(json!([{}, {}])), "has 2 entries, but the answer has 1 choices"),
        (choices(json!(vec![json!({}); 129])), "128 entries at most"),
        (choices(json!([{"tokens": "abc"}])), "must be an array"),
        (choices(json!([{"tokens": [[1]]}])), "must be a token id"),
        (choices(json!([{"tokens": [null]}])), "must be a token id"),
        (choices(json!([{"tokens": [1.5]}])), "must be a token id"),
        (choices(json!([{"tokens": [-1]}])), "no token id"),
        (choices(json!([{"tokens": [1e30]}])), "no token id"),
        (choices(json!([{"tokens": [VOCABULARY]}])), "no token id"),
        (choices(json!([{"tokens": [u64::MAX]}])), "no token id"),
        (choices(json!([{"cached": -1}])), "between 0"),
        (choices(json!([{"cached": i64::MAX}])), "but the prompt has"),
        (choices(json!([{"cached": 1, "text": "x"}])), "choices[0].text"),
        (choices(json!([{"tokens": [END, 65]}])), "the answer had ended before it"),
        (choices(json!([{"tokens": vec![65; CONTEXT]}])), "the answer had ended before it"),
    ] {
        refused(&server, stream(), replay, says).await;
    }
    let one = || choices(json!([{"tokens": [65]}]));
    refused(&server, json!({}), one(), "only allowed when 'stream' is true").await;
    refused(&server, json!({"stream": true, "seed": 8}), one(), "the request's 'seed' is 8").await;
    let many = choices(json!([{"tokens": [65, 66, 67]}]));
    refused(&server, json!({"stream": true, "max_tokens": 2}), many, "choices[0].tokens[2]").await;
    let stopped = choices(json!([{"tokens": [88, 89, 90]}]));
    refused(&server, json!({"stream": true, "stop": "XY"}), stopped, "the answer had ended before it").await;
    for tokens in [json!([122]), json!([END])] {
        let form = json!({"stream": true, "guided_regex": "[ab]+"});
        refused(&server, form, choices(json!([{"tokens": tokens}])), "the answer's form does not allow it")
            .await;
    }
    works(&server).await;
}

#[tokio::test]
async fn there_are_no_more_tokens_than_any_body_may_hold() {
    let server = Server::start().await;
    refused(
        &server,
        json!({"stream": true}),
        choices(json!([{"tokens": vec![65; 1_000_000]}])),
        "JSON values",
    )
    .await;
    // Just what a body may hold: refused at the first one that cannot be in the answer.
    let most = choices(json!([{"tokens": vec![65; 260_000]}]));
    refused(&server, json!({"stream": true}), most, "the answer had ended before it").await;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = named(user("x", json!({"stream": true}))).to_string();
    let body = body.replacen('{', &format!("{{\"coterie_replay\": {deep},"), 1);
    let reply = crate::client::exchange(server.address, "POST", "/v1/chat/completions", &body).await;
    assert_eq!(reply.status, 400);
    works(&server).await;
}

/// Tokens that the model would never have said are continued like any: who sends them could have sent them as prompt.
#[tokio::test]
async fn a_journal_that_was_made_up_gives_an_answer_of_its_own_kind() {
    let server = Server::start().await;
    let case = Case::chat("made up", user("say:abcdef", json!({"stream": true, "logprobs": true})));
    let replay = choices(json!([{"tokens": [88, 195, 88]}]));
    let reply = ask(&server, &case, HEADER, json!({"coterie_replay": replay})).await;
    let said: String = reply
        .body
        .split("\n\n")
        .filter_map(|event| serde_json::from_str::<Value>(event.strip_prefix("data: ")?).ok())
        .inspect(|chunk| assert_eq!((&chunk["id"], &chunk["created"]), (&json!("chatcmpl-1"), &json!(5))))
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(said, "def");
    works(&server).await;
}

async fn works(server: &Server) {
    let reply = server.chat(user("say:fine", json!({}))).await;
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "fine");
    server.counts("coterie_requests_running", 0.0).await;
}
