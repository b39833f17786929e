//! Several choices in one answer: `n`, several prompts, and both.

use crate::client::Exchange;
use crate::script::{RUNNING, WAITING};
use crate::server::{Server, eventually, named, user};
use serde_json::{Value, json};

fn contents(answer: &Value) -> Vec<&str> {
    let choices = answer["choices"].as_array().unwrap().iter();
    choices.map(|choice| choice["message"]["content"].as_str().unwrap()).collect()
}

fn texts(answer: &Value) -> Vec<&str> {
    answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect()
}

/// What the chunks say, put together as a whole answer's choices; they must come in an order that makes sense.
fn assembled(chunks: &[Value], choices: usize) -> Value {
    let mut texts = vec![String::new(); choices];
    let mut finishes = vec![Value::Null; choices];
    let mut columns = vec![json!({}); choices];
    for chunk in chunks {
        let Some(choice) = chunk["choices"].get(0) else { continue };
        let index = choice["index"].as_u64().unwrap() as usize;
        assert!(finishes[index].is_null(), "nothing follows the end of a choice: {choice}");
        let text = choice["text"].as_str().or(choice["delta"]["content"].as_str());
        texts[index].push_str(text.unwrap_or_default());
        finishes[index] = choice["finish_reason"].clone();
        for (name, column) in choice["logprobs"].as_object().into_iter().flatten() {
            let mut whole = columns[index][name].as_array().cloned().unwrap_or_default();
            whole.extend(column.as_array().cloned().unwrap_or_default());
            columns[index][name] = whole.into();
        }
    }
    let choice = |index: usize| json!([index, texts[index], finishes[index], columns[index]]);
    (0..choices).map(choice).collect()
}

#[tokio::test]
async fn each_choice_has_a_seed_of_its_own() {
    let server = Server::start().await;
    let answer = server.chat(user("say:I am #", json!({"n": 3, "seed": 1}))).await.json();
    assert_eq!(contents(&answer), ["I am 1", "I am 22", "I am 333"]);
    let indices: Vec<&Value> =
        answer["choices"].as_array().unwrap().iter().map(|choice| &choice["index"]).collect();
    assert_eq!(indices, [0, 1, 2]);
    let prompt = server.seen.lock().unwrap().requests.last().unwrap().prompt.len();
    let usage = &answer["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(prompt), &json!(7 + 8 + 9)));
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0, "the first choice computed them");
    server.counts("coterie_requests_total{outcome=\"stop\"}", 3.0).await;

    server.chat(user("say:x", json!({"n": 2, "seed": -1}))).await;
    server.chat(user("say:x", json!({"n": 2}))).await;
    let seen = server.seen.lock().unwrap();
    let seeds: Vec<u64> = seen.requests.iter().rev().take(4).map(|request| request.sampling.seed).collect();
    assert_eq!(seeds[2..], [0, u64::MAX], "it begins again after the last");
    assert_ne!(seeds[0], seeds[1]);
}

#[tokio::test]
async fn choices_are_streamed_as_they_come() {
    let server = Server::start().await;
    let body = json!({"n": 3, "seed": 1, "stream": true, "stream_options": {"include_usage": true}});
    let chunks = server.chat(user("say:a#", body)).await.chunks();
    for (index, chunk) in chunks[..3].iter().enumerate() {
        assert_eq!(chunk["choices"][0]["index"], index);
        assert_eq!(chunk["choices"][0]["delta"]["role"], "assistant");
    }
    let came: Vec<u64> =
        chunks[3..].iter().filter_map(|chunk| chunk["choices"][0]["index"].as_u64()).collect();
    // a, a, a; 1, 2, 3; end, 2, 3; end, 3; end.
    let mut by_index = [0; 3];
    came.iter().for_each(|index| by_index[*index as usize] += 1);
    assert_eq!(by_index, [3, 4, 5]);
    let first_end = came.iter().rposition(|index| *index == 0).unwrap();
    assert!(came[..first_end].contains(&1) && came[..first_end].contains(&2), "{came:?}");
    let usage = chunks.last().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(3 + 4 + 5)));
    assert!(chunks[..chunks.len() - 1].iter().all(|chunk| chunk["usage"].is_null()));
}

/// In whatever order the choices' tokens come, the stream says what the whole answer says.
#[tokio::test]
async fn any_interleaving_is_the_same_answer() {
    let server = Server::start().await;
    let prompts = json!(["shuffle:say:é#c", "shuffle:say:ab#STOP"]);
    let whole_body =
        json!({"prompt": prompts, "n": 2, "seed": 3, "echo": true, "logprobs": 1, "stop": "STOP"});
    let whole = server.complete(whole_body.clone()).await.json();
    let choices = whole["choices"].as_array().unwrap().iter();
    let expected: Value = choices
        .map(|choice| json!([choice["index"], choice["text"], choice["finish_reason"], choice["logprobs"]]))
        .collect();
    assert_eq!(
        texts(&whole),
        [
            "shuffle:say:é#cé333c",
            "shuffle:say:é#cé4444c",
            "shuffle:say:ab#STOPab333",
            "shuffle:say:ab#STOPab4444"
        ]
    );
    let mut orders = std::collections::HashSet::new();
    for _ in 0..20 {
        let mut body = whole_body.clone();
        body["stream"] = json!(true);
        let chunks = server.complete(body).await.chunks();
        assert_eq!(assembled(&chunks, 4), expected);
        orders.insert(
            chunks.iter().filter_map(|chunk| chunk["choices"][0]["index"].as_u64()).collect::<Vec<_>>(),
        );
        let again = server.complete(whole_body.clone()).await.json();
        assert_eq!(again["choices"], whole["choices"]);
    }
    assert!(orders.len() > 1, "all came in the same order, so that nothing was shown");
}

#[tokio::test]
async fn a_client_that_goes_away_frees_all_choices() {
    let server = Server::start().await;
    for stream in [true, false] {
        let (before, steps) = {
            let seen = server.seen.lock().unwrap();
            (seen.cancelled.len(), seen.steps)
        };
        let body = named(user("wait:again:x", json!({"stream": stream, "n": 4})));
        let mut exchange =
            Exchange::start(server.address, "POST", "/v1/chat/completions", &body.to_string()).await;
        if stream {
            exchange.read_until("\"content\":\"x\"").await;
        } else {
            eventually("they are running", || server.seen.lock().unwrap().steps > steps + 2).await;
        }
        drop(exchange);
        eventually("all are cancelled", || server.seen.lock().unwrap().cancelled.len() == before + 4).await;
    }
    server.counts("coterie_requests_running", 0.0).await;
    server.counts("coterie_requests_total{outcome=\"cancelled\"}", 8.0).await;
}

#[tokio::test]
async fn a_choice_that_is_done_is_freed_while_others_go_on() {
    let server = Server::start().await;
    let body =
        json!({"prompt": ["wait:again:xSTOP", "wait:say:yyyyyyyyyyyy"], "max_tokens": 500, "stop": "STOP"});
    let answer = server.complete(body).await.json();
    assert_eq!(texts(&answer), ["x", "yyyyyyyyyyyy"]);
    assert_eq!(answer["usage"]["completion_tokens"], 5 + 13);
    assert_eq!(server.seen.lock().unwrap().cancelled.len(), 1);
    server.counts("coterie_requests_total{outcome=\"stop\"}", 2.0).await;
}

#[tokio::test]
async fn one_choice_that_fails_fails_the_answer_and_frees_the_others() {
    let server = Server::start().await;
    for stream in [true, false] {
        let before = server.seen.lock().unwrap().cancelled.len();
        let body = json!({"prompt": ["wait:again:x", "fail:"], "stream": stream, "max_tokens": 1900});
        let reply = server.complete(body).await;
        assert!(reply.body.contains("is not a number"), "{reply:?}");
        eventually("the other is cancelled", || server.seen.lock().unwrap().cancelled.len() == before + 1)
            .await;
    }
    server.counts("coterie_requests_total{outcome=\"failed\"}", 2.0).await;
}

#[tokio::test]
async fn several_prompts_each_get_their_choices() {
    let server = Server::start().await;
    let tokens: Vec<u32> = "say:b#".bytes().map(u32::from).collect();
    let body = json!({"prompt": ["say:a#", tokens], "n": 2, "seed": 1, "best_of": 2});
    let answer = server.complete(body.clone()).await.json();
    assert_eq!(texts(&answer), ["a1", "a22", "b1", "b22"]);
    assert_eq!(answer["usage"]["prompt_tokens"], 7 + 6);
    assert_eq!(answer["usage"]["completion_tokens"], 3 + 4 + 3 + 4);
    let cached = |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].clone();
    assert_eq!(cached(&answer), 0);
    assert_eq!(cached(&server.complete(body).await.json()), 6 + 5);
}

#[tokio::test]
async fn echo_and_logprobs_are_each_choices_own() {
    let server = Server::start().await;
    let body = json!({"prompt": ["say:é", "say:xyz"], "n": 2, "max_tokens": 1, "echo": true, "logprobs": 0});
    let answer = server.complete(body).await.json();
    let offsets: Vec<&Value> = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| &choice["logprobs"]["text_offset"])
        .collect();
    let (first, second) = (json!([0, 0, 1, 2, 3, 4, 4, 5]), json!([0, 0, 1, 2, 3, 4, 5, 6, 7]));
    assert_eq!(offsets, [&first, &first, &second, &second]);
    let tokens = &answer["choices"][2]["logprobs"]["tokens"];
    assert_eq!(*tokens, json!(["<s>", "s", "a", "y", ":", "x", "y", "z", "x"]));

    let body = json!({"prompt": ["say:é", "say:xyz"], "max_tokens": 0, "echo": true, "stream": true});
    let chunks = server.complete(body).await.chunks();
    let whole = assembled(&chunks, 2);
    assert_eq!((&whole[0][1], &whole[1][1]), (&json!("say:é"), &json!("say:xyz")));
}

#[tokio::test]
async fn chat_logprobs_are_each_choices_own() {
    let server = Server::start().await;
    let body = json!({"n": 2, "seed": 1, "logprobs": true, "top_logprobs": 1});
    let answer = server.chat(user("say:#", body)).await.json();
    let tokens = |index: usize| {
        let content = answer["choices"][index]["logprobs"]["content"].as_array().unwrap().iter();
        content.map(|token| token["token"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((tokens(0), tokens(1)), (vec!["1".to_owned()], vec!["2".to_owned(); 2]));
}

#[tokio::test]
async fn a_queue_takes_all_choices_or_none() {
    let server = Server::start().await;
    let mut streams = Vec::new();
    for _ in 0..RUNNING + WAITING - 2 {
        let body = named(user("wait:again:x", json!({"stream": true, "max_tokens": 1500})));
        let mut stream =
            Exchange::start(server.address, "POST", "/v1/chat/completions", &body.to_string()).await;
        stream.read_until("assistant").await;
        streams.push(stream);
        // Until the engine has taken the first ones, they count as waiting.
        server.counts("coterie_requests_running", streams.len().min(RUNNING) as f64).await;
    }
    let cancelled = || server.seen.lock().unwrap().cancelled.len();
    let reply = server.chat(user("say:x", json!({"n": 3}))).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (429, &json!("queue_full")));
    let message = reply.json()["error"]["message"].clone();
    assert!(message.as_str().unwrap().starts_with("2 requests are waiting already, and 4 may"), "{message}");
    assert_eq!(cancelled(), 2, "the two that had a place gave it back");
    server.counts("coterie_requests_waiting", 2.0).await;
    server.counts("coterie_requests_total{outcome=\"rejected\"}", 1.0).await;

    let body = named(user("say:x", json!({"n": 2, "stream": true})));
    let mut two = Exchange::start(server.address, "POST", "/v1/chat/completions", &body.to_string()).await;
    two.read_until("assistant").await;
    drop(streams);
    assert!(two.rest().await.contains("[DONE]"));
}

#[tokio::test]
async fn more_choices_than_may_ever_wait_need_not_come_again() {
    let server = Server::start().await;
    let reply = server.chat(user("say:x", json!({"n": WAITING + 1}))).await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("n")));
    let reply = server.complete(json!({"prompt": vec!["say:x"; WAITING + 1]})).await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("prompt")));
    let reply = server.complete(json!({"prompt": vec!["x".repeat(1600); 2]})).await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("prompt")));
    assert_eq!(server.complete(json!({"prompt": "x".repeat(1600), "max_tokens": 1})).await.status, 200);
    server.counts("coterie_requests_waiting", 0.0).await;
}
