//! A stream survives its rank: cut behind any entry of its journal, it goes on on another server, and the client cannot
//! tell that it did.

mod attacks;
mod cases;
mod journalled;

use crate::client::{Reply, exchange_with};
use crate::server::{Server, named, user};
use cases::{Case, cases};
use coterie_api::replay::{Entry, Journal};
use journalled::Journalled;
use serde_json::{Value, json};

const HEADER: &str = "coterie-journal: 1";

async fn ask(server: &Server, case: &Case, header: &str, more: Value) -> Reply {
    let mut body = named(case.body.clone());
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let reply = exchange_with(server.address, "POST", case.path, header, &body.to_string()).await;
    assert_eq!(reply.status, 200, "{}: {reply:?}", case.name);
    reply
}

async fn server(case: &Case) -> Server {
    match case.template {
        Some(template) => Server::start_with_template(template).await,
        None => Server::start().await,
    }
}

/// Behind every entry, the rest comes from another server.
#[tokio::test]
async fn cut_anywhere_a_stream_goes_on() {
    for case in cases() {
        let (first, second) = (server(&case).await, server(&case).await);
        let whole = Journalled::read(&ask(&first, &case, HEADER, json!({})).await.body);
        assert!(whole.tail.is_empty(), "{}: nothing follows the last entry", case.name);
        assert!(matches!(whole.steps[0].1, Entry::Begun(_)), "{}", case.name);
        assert_eq!(whole.steps.last().unwrap().1, Entry::Ended, "{}", case.name);
        for kept in 1..whole.steps.len() {
            let told = &whole.steps[..kept];
            let mut journal = Journalled::journal(told);
            let more = unseen(&journal, kept);
            let rest = Journalled::read(&ask(&second, &case, HEADER, more).await.body);
            let at = format!("{} behind entry {kept}", case.name);
            assert!(rest.tail.is_empty(), "{at}");
            let got = [Journalled::events(told), Journalled::events(&rest.steps)].concat();
            let expected = Journalled::events(&whole.steps);
            if case.choices == 1 {
                assert_eq!(got.concat(), expected.concat(), "{at}");
            } else {
                // In which order the choices come is the engine's affair.
                for choice in 0..case.choices {
                    assert_eq!(of_choice(&got, choice), of_choice(&expected, choice), "{at}");
                }
                assert_eq!(got.len(), expected.len(), "{at}");
                assert_eq!(got[got.len() - 2..], expected[expected.len() - 2..], "{at}");
            }
            // What the second rank writes goes on from what the first one wrote.
            rest.steps.iter().for_each(|(_, entry)| take(&mut journal, entry));
            let tokens = |journal: &Journal| -> Vec<Vec<u32>> {
                journal.choices.iter().map(|choice| choice.tokens.clone()).collect()
            };
            assert_eq!(tokens(&journal), tokens(&Journalled::journal(&whole.steps)), "{at}");
        }
    }
}

/// What a request to go on has more than the first; nothing of its prompt is in the cache.
fn unseen(journal: &Journal, cut: usize) -> Value {
    json!({"coterie_replay": journal, "cache_salt": cut.to_string()})
}

fn take(journal: &mut Journal, entry: &Entry) {
    match entry {
        Entry::Begun(_) => panic!("an answer begins once"),
        Entry::Tokens { choice, tokens, cached, .. } => journal.take(*choice, tokens, *cached),
        Entry::Ended => {}
    }
}

fn of_choice(events: &[String], index: usize) -> Vec<&String> {
    let of = |event: &&String| {
        let json = event.trim_start_matches("data: ").trim_end();
        let chunk: Value = serde_json::from_str(json).unwrap_or_default();
        chunk["choices"][0]["index"] == index
    };
    events.iter().filter(of).collect()
}

/// The journal is all that the header changes.
#[tokio::test]
async fn without_the_comments_it_is_the_stream_that_everybody_gets() {
    for case in cases().into_iter().filter(|case| case.choices == 1) {
        let server = server(&case).await;
        let plain = ask(&server, &case, "accept: */*", json!({"cache_salt": "a", "seed": 3})).await.body;
        assert!(!plain.contains(": coterie"), "{}", case.name);
        let other =
            ask(&server, &case, "coterie-journal: 2", json!({"cache_salt": "b", "seed": 3})).await.body;
        assert!(!other.contains(": coterie"), "a journal of another version was not asked for");
        let journalled =
            Journalled::read(&ask(&server, &case, HEADER, json!({"cache_salt": "c", "seed": 3})).await.body);
        let journalled = Journalled::events(&journalled.steps).concat();
        assert_eq!(anonymous(&journalled), anonymous(&plain), "{}", case.name);
    }
}

/// Without what differs between two answers of the same words.
fn anonymous(events: &str) -> Vec<String> {
    let event = |event: &str| {
        let Ok(mut chunk) = serde_json::from_str::<Value>(event.trim_start_matches("data: ")) else {
            return event.to_owned();
        };
        (chunk["id"], chunk["created"]) = (Value::Null, Value::Null);
        if let Some(call) = chunk.pointer_mut("/choices/0/delta/tool_calls/0/id") {
            *call = Value::Null;
        }
        chunk.to_string()
    };
    events.split("\n\n").map(event).collect()
}

/// A rank may die within a step: then what came of it behind the last entry has not happened.
#[tokio::test]
async fn what_no_entry_followed_is_generated_again() {
    let case = cases().into_iter().find(|case| case.name == "log probabilities that wait").unwrap();
    let (first, second) = (server(&case).await, server(&case).await);
    let body = ask(&first, &case, HEADER, json!({})).await.body;
    let whole = Journalled::events(&Journalled::read(&body).steps).concat();
    let begun = body.find("{\"begun\"").unwrap();
    for cut in (begun + 200..body.len()).step_by(97).filter(|cut| body.is_char_boundary(*cut)) {
        let got = Journalled::read(&body[..cut]);
        let journal = Journalled::journal(&got.steps);
        let rest = Journalled::read(&ask(&second, &case, HEADER, unseen(&journal, cut)).await.body);
        let seen = [Journalled::events(&got.steps), Journalled::events(&rest.steps)].concat().concat();
        assert_eq!(seen, whole, "cut at byte {cut}");
    }
}

/// The first rank knows how much of the prompt was cached when the answer began, also where the second has it cached.
#[tokio::test]
async fn usage_is_what_it_was_on_the_first_rank() {
    let (first, second) = (Server::start().await, Server::start().await);
    let body = json!({"stream": true, "stream_options": {"include_usage": true}, "seed": 1});
    let case = Case::chat("cached", user("say:abc", body));
    ask(&first, &case, HEADER, json!({})).await;
    let whole = Journalled::read(&ask(&first, &case, HEADER, json!({})).await.body);
    let usage = |steps: &[(Vec<String>, Entry)]| {
        let events = Journalled::events(steps);
        let last = events[events.len() - 2].trim_start_matches("data: ").to_owned();
        serde_json::from_str::<Value>(&last).unwrap()["usage"].clone()
    };
    let expected = usage(&whole.steps);
    assert!(expected["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0);
    for kept in 2..whole.steps.len() {
        let journal = Journalled::journal(&whole.steps[..kept]);
        let rest = ask(&second, &case, HEADER, json!({"coterie_replay": journal})).await.body;
        assert_eq!(usage(&Journalled::read(&rest).steps), expected);
    }
}

/// The engine is given what was generated, the seeds that were used, and nothing of a choice that has ended.
#[tokio::test]
async fn only_what_is_left_is_generated() {
    let (first, second) = (Server::start().await, Server::start().await);
    let case = Case { choices: 2, ..Case::chat("left", user("say:a#", json!({"stream": true, "n": 2}))) };
    let whole = Journalled::read(&ask(&first, &case, HEADER, json!({})).await.body);
    let journal = Journalled::journal(&whole.steps);
    let before = second.seen.lock().unwrap().requests.len();
    let rest = ask(&second, &case, "accept: */*", json!({"coterie_replay": journal})).await;
    assert_eq!(rest.body, "data: [DONE]\n\n");
    assert_eq!(second.seen.lock().unwrap().requests.len(), before);
    assert_eq!(second.metric("coterie_requests_total{outcome=\"stop\"}").await, 0.0, "it ended elsewhere");

    let mut journal = journal;
    let last = journal.choices[1].tokens.pop().unwrap();
    ask(&second, &case, HEADER, json!({"coterie_replay": journal})).await;
    let seen = second.seen.lock().unwrap();
    let request = seen.requests.last().unwrap();
    assert_eq!(seen.requests.len(), before + 1);
    assert_eq!(request.generated, journal.choices[1].tokens);
    assert_eq!(request.sampling.seed, journal.begun.seed.wrapping_add(1));
    assert!(request.stop_tokens.contains(&last));
}

/// A form that was too complex stays so. At which token that shows may differ: the second rank has looked at fewer.
#[tokio::test]
async fn a_form_that_gives_up_does_so_on_every_rank() {
    let (first, second) = (Server::start().await, Server::start().await);
    let form = json!({"guided_regex": "(a{1,1000}){1,1000}", "max_tokens": 300, "stream": true});
    let case = Case::chat("gives up", user("again:a", form));
    let whole = Journalled::read(&ask(&first, &case, HEADER, json!({})).await.body);
    let journal = Journalled::journal(&whole.steps[..10]);
    let rest = Journalled::read(&ask(&second, &case, HEADER, unseen(&journal, 10)).await.body);
    for (events, last) in [whole.steps.last(), rest.steps.last()].into_iter().flatten() {
        assert!(events.last().unwrap().contains("form_not_followed"), "{events:?}");
        assert_eq!(*last, Entry::Ended);
    }
}

/// An error that another rank would have as well ends the journal; one that is this rank's does not.
#[tokio::test]
async fn only_an_error_that_would_come_again_is_an_end() {
    let server = Server::start().await;
    let fails = Case::chat("fails", user("fail:", json!({"stream": true})));
    let failed = Journalled::read(&ask(&server, &fails, HEADER, json!({})).await.body);
    assert_eq!(failed.steps.len(), 1);
    assert!(failed.tail[0].contains("request_failed"), "{:?}", failed.tail);

    let dies = Case::chat("dies", user("panic:", json!({"stream": true})));
    let died = Journalled::read(&ask(&server, &dies, HEADER, json!({})).await.body);
    assert!(died.steps.len() == 1 && died.tail[0].contains("engine_died"), "{:?}", died.tail);
}
