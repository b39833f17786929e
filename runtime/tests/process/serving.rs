//! `serve` with the real engine.

use crate::client::exchange;
use crate::rank::Process;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::sleep;

#[tokio::test]
async fn the_real_engine_answers_alike_alone_and_in_company() {
    let process = Process::start(&["--context", "300"]).await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 40, "seed": 5});
    let alone = process.post("/v1/chat/completions", body.clone()).await;
    assert_eq!(alone.status, 200, "{alone:?}");
    let alone = alone.json();
    // <s> <|turn|> user\nhi <|end|> <|turn|> assistant\n, a byte a token
    assert_eq!(alone["usage"]["prompt_tokens"], 2 + "user\nhi".len() + 2 + "assistant\n".len());

    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    let (a, b, c, stream) = tokio::join!(
        process.post("/v1/chat/completions", body.clone()),
        process.post("/v1/completions", json!({"prompt": "other", "max_tokens": 60, "seed": 1})),
        process.post("/v1/chat/completions", body),
        process.post("/v1/chat/completions", streamed),
    );
    assert_eq!(b.status, 200);
    let expected = &alone["choices"][0];
    assert_eq!(&a.json()["choices"][0], expected);
    assert_eq!(&c.json()["choices"][0], expected);
    let chunks = stream.chunks();
    let text: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, expected["message"]["content"].as_str().unwrap());

    let long = process.post("/v1/completions", json!({"prompt": "x", "max_tokens": 300})).await;
    assert_eq!(long.json()["error"]["code"], "context_length_exceeded");
}

#[tokio::test]
async fn what_was_generated_is_scored_alike_as_a_prompt() {
    let process = Process::start(&[]).await;
    let prompt: Vec<u32> = vec![258, 104, 101, 108, 108, 111];
    let body = json!({"prompt": prompt, "max_tokens": 12, "logprobs": 3, "seed": 3, "echo": true});
    let generated = process.post("/v1/completions", body).await.json();
    let choice = &generated["choices"][0];
    let columns = &choice["logprobs"];
    let tokens = columns["tokens"].as_array().unwrap();
    assert!(tokens.len() > prompt.len(), "{generated}");
    // Every token of this vocabulary is one byte, so that its spelling gives it back.
    let id = |token: &Value| {
        let text = token.as_str().unwrap();
        let escaped = text.strip_prefix("bytes:\\x").map(|hex| u32::from_str_radix(hex, 16).unwrap());
        escaped.unwrap_or_else(|| {
            if text == "<s>" {
                258
            } else if text == "<|turn|>" {
                256
            } else {
                u32::from(text.as_bytes()[0])
            }
        })
    };
    let all: Vec<u32> = tokens.iter().map(id).collect();
    let scored =
        process.post("/v1/completions", json!({"prompt": all, "max_tokens": 0, "logprobs": 3, "echo": true}));
    let scored = scored.await.json();
    let scores = |columns: &Value| -> Vec<f64> {
        columns["token_logprobs"]
            .as_array()
            .unwrap()
            .iter()
            .skip(1)
            .map(|score| score.as_f64().unwrap())
            .collect()
    };
    let pairs = scores(columns).into_iter().zip(scores(&scored["choices"][0]["logprobs"]));
    for (generated, scored) in pairs {
        assert!((generated - scored).abs() < 1e-3, "{generated} {scored}");
    }
}

#[tokio::test]
async fn sigterm_drains_and_ends_well() {
    let mut process = Process::start(&["--drain-seconds", "30"]).await;
    let started = Instant::now();
    process.signal("TERM");
    sleep(Duration::from_millis(300)).await;
    process.signal("TERM");
    assert_eq!(exchange(process.address, "GET", "/ready", "").await.status, 503);
    let late = process.post("/v1/completions", json!({"prompt": "late"})).await;
    assert_eq!(late.status, 200);
    assert_eq!(process.ended().await.code(), Some(0));
    assert!(started.elapsed() >= Duration::from_secs(3));
    assert_eq!(process.termination.read(), "");
}

#[tokio::test]
async fn two_interrupts_end_it_at_once() {
    let mut process = Process::start(&[]).await;
    process.signal("INT");
    sleep(Duration::from_millis(200)).await;
    assert!(process.child.try_wait().unwrap().is_none());
    process.signal("INT");
    assert_eq!(process.ended().await.code(), Some(130));
}
