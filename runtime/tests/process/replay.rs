//! A rank is killed, and its streams go on on another, with the real engine.

use crate::client::{Exchange, exchange, exchange_with};
use crate::folder::whole;
use crate::journalled::Journalled;
use crate::rank::Process;
use serde_json::{Value, json};

pub const PATH: &str = "/v1/completions";

/// What the events say of each choice, and the usage.
pub fn said(events: &[String], choices: usize) -> (Vec<Vec<Value>>, Value) {
    let (mut said, mut usage) = (vec![Vec::new(); choices], Value::Null);
    for event in events {
        let Ok(chunk) = serde_json::from_str::<Value>(event.trim_start_matches("data: ").trim_end()) else {
            continue;
        };
        match chunk["choices"][0]["index"].as_u64() {
            Some(index) => said[index as usize].push(chunk["choices"][0].clone()),
            None => usage = chunk["usage"].clone(),
        }
    }
    (said, usage)
}

/// Without the sizes of the chunks in which a body comes; a last one that is not whole is left out.
fn dechunked_so_far(body: &str) -> String {
    let (mut out, mut rest) = (String::new(), body);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        let Some(chunk) = after.get(..size) else { break };
        out.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    out
}

pub fn bodies() -> Vec<Value> {
    let body = |more: Value| {
        let mut body = json!({
            "model": "tiny", "prompt": "Once upon a time", "max_tokens": 120, "seed": 7, "ignore_eos": true,
            "stream": true, "stream_options": {"include_usage": true},
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    // None finds another's prompt in the prefix cache, so that the order in which they come does not show.
    vec![
        body(json!({"cache_salt": "a", "temperature": 0})),
        body(json!({"cache_salt": "b", "temperature": 1.2, "top_p": 0.9, "logprobs": 3})),
        body(
            json!({"cache_salt": "c", "presence_penalty": 1.0, "frequency_penalty": 0.5, "repetition_penalty": 1.2, "n": 2}),
        ),
        body(
            json!({"cache_salt": "d", "guided_regex": "([a-f][0-9]){60,70}", "ignore_eos": false, "top_k": 40, "n": 2}),
        ),
    ]
}

#[tokio::test]
async fn the_streams_of_a_killed_rank_go_on_elsewhere() {
    let model = whole();
    let threads = |count| ["--threads", count, "--step-tokens", "64"];
    let mut first = Process::of(model.path(), &threads("1")).await;
    let mut streams = Vec::new();
    for body in bodies() {
        let header = "coterie-journal: 1";
        let stream = Exchange::with_header(first.address, "POST", PATH, header, &body.to_string()).await;
        streams.push(stream);
    }
    let mut seen = Vec::new();
    for (at, stream) in streams.iter_mut().enumerate() {
        stream.read_until("\r\n\r\n").await;
        let mut came = stream.read_until("{\"begun\"").await;
        for _ in 0..1 + at * 17 {
            came += &stream.read_until("{\"tokens\"").await;
        }
        came += &stream.read_until("\n\n").await;
        seen.push(came);
    }
    first.signal("KILL");
    first.ended().await;

    let second = Process::of(model.path(), &threads("2")).await;
    for (at, (body, came)) in bodies().into_iter().zip(seen).enumerate() {
        let choices = body["n"].as_u64().unwrap_or(1) as usize;
        let told = Journalled::read(&dechunked_so_far(&came));
        let journal = Journalled::journal(&told.steps);
        assert!(!journal.choices.is_empty() && journal.choices[0].tokens.len() < 120, "{body}");
        let mut going_on = body.clone();
        going_on["coterie_replay"] = json!(journal);
        let rest =
            exchange_with(second.address, "POST", PATH, "coterie-journal: 1", &going_on.to_string()).await;
        assert_eq!(rest.status, 200, "{rest:?}");
        let rest = Journalled::read(&rest.body);
        let got = [Journalled::events(&told.steps), Journalled::events(&rest.steps)].concat();

        let mut salted = body.clone();
        salted["cache_salt"] = format!("alone {at}").into();
        let undisturbed = exchange(second.address, "POST", PATH, &salted.to_string()).await;
        let expected = Journalled::read(&undisturbed.body).tail;
        assert_eq!(said(&got, choices), said(&expected, choices), "{body}");
        assert_eq!(got.last(), expected.last());
    }
}
