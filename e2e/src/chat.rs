//! A chat client as small as can be: one request, streamed or not, through the Service.

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use serde_json::{Value, json};

/// What came back for one chat request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The assistant's text.
    pub text: String,
    /// OpenAI's `finish_reason`.
    pub finish_reason: String,
    /// Tokens generated, from `usage`.
    pub completion_tokens: u64,
}

/// The body of a greedy one-turn chat request.
pub fn question(model: &str, content: &str, max_tokens: u32) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "temperature": 0,
    })
}

/// Sends a chat request and reads the whole answer.
pub async fn ask(http: &reqwest::Client, endpoint: &str, body: &Value) -> Result<Answer> {
    let response = http.post(format!("{endpoint}/v1/chat/completions")).json(body).send().await?;
    let status = response.status();
    let answer: Value = response.json().await.with_context(|| format!("{status} without JSON"))?;
    ensure!(status.is_success(), "{status}: {answer}");
    Ok(Answer {
        text: answer["choices"][0]["message"]["content"].as_str().context("no content")?.to_owned(),
        finish_reason: answer["choices"][0]["finish_reason"].as_str().context("no finish_reason")?.to_owned(),
        completion_tokens: answer["usage"]["completion_tokens"].as_u64().context("no usage")?,
    })
}

/// Sends the request with `stream` and usage asked for, calls `on_delta` for each piece of text, and fails unless the
/// stream ended as a whole one does: a finish reason, usage, `[DONE]`.
pub async fn stream(
    http: &reqwest::Client,
    endpoint: &str,
    body: &Value,
    mut on_delta: impl FnMut(&str),
) -> Result<Answer> {
    let mut body = body.clone();
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let response = http.post(format!("{endpoint}/v1/chat/completions")).json(&body).send().await?;
    if !response.status().is_success() {
        bail!("{}: {}", response.status(), response.text().await?);
    }
    let mut answer = Answer::default();
    let (mut bytes, mut pending, mut done) = (response.bytes_stream(), Vec::new(), false);
    while let Some(chunk) = bytes.next().await {
        pending
            .extend_from_slice(&chunk.with_context(|| format!("the stream broke after {:?}", answer.text))?);
        while let Some(end) = pending.iter().position(|&b| b == b'\n') {
            let line = String::from_utf8(pending.drain(..=end).collect())?;
            let Some(event) = line.trim_end().strip_prefix("data: ") else { continue };
            if event == "[DONE]" {
                done = true;
                continue;
            }
            let event: Value = serde_json::from_str(event).with_context(|| format!("not JSON: {event}"))?;
            ensure!(event.get("error").is_none(), "the stream ended with an error: {event}");
            if let Some(delta) = event["choices"][0]["delta"]["content"].as_str() {
                answer.text.push_str(delta);
                on_delta(delta);
            }
            if let Some(reason) = event["choices"][0]["finish_reason"].as_str() {
                answer.finish_reason = reason.to_owned();
            }
            if let Some(tokens) = event["usage"]["completion_tokens"].as_u64() {
                answer.completion_tokens = tokens;
            }
        }
    }
    ensure!(done, "the stream ended without [DONE] after {:?}", answer.text);
    ensure!(!answer.finish_reason.is_empty(), "the stream gave no finish_reason");
    Ok(answer)
}
