//! Answers that must have a form, from the request to the text.

use crate::client::Reply;
use crate::server::{Server, user};
use serde_json::{Value, json};

fn text_of(reply: &Reply, index: usize) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    let choice = reply.json()["choices"][index].clone();
    let text = choice["message"]["content"].as_str().or(choice["text"].as_str());
    text.unwrap_or_else(|| panic!("{choice}")).to_owned()
}

fn weather() -> Value {
    json!({"type": "object", "required": ["city", "degrees"], "additionalProperties": false, "properties": {
        "city": {"enum": ["Oslo", "Rome"]}, "degrees": {"type": "integer", "minimum": -50, "maximum": 60}}})
}

fn json_schema(schema: Value) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}})
}

#[tokio::test]
async fn an_answer_has_the_form_that_was_asked_for() {
    let server = Server::start().await;
    // What the model wants to say is let through as far as it fits; elsewhere the first token that fits comes.
    let said = r#"{"city": "Rome", "degrees": 21}"#;
    for (wants, more, expected) in [
        (said, json!({"response_format": json_schema(weather())}), said),
        ("hello", json!({"response_format": json_schema(weather())}), ""),
        (said, json!({"response_format": {"type": "json_object"}}), said),
        (said, json!({"response_format": {"type": "text"}}), said),
        (said, json!({"structured_outputs": {"json": weather()}}), said),
        (said, json!({"structured_outputs": {"json": weather().to_string()}}), said),
        (said, json!({"structured_outputs": {"json_object": true}}), said),
        ("yellow", json!({"structured_outputs": {"choice": ["yes", "no"]}}), "yes"),
        ("abcd", json!({"structured_outputs": {"regex": "a[x-z]c"}}), "axc"),
        ("b", json!({"structured_outputs": {"grammar": "start: \"a\" | \"b\""}}), "b"),
        (said, json!({"guided_json": weather()}), said),
        ("no!", json!({"guided_choice": ["yes", "no"]}), "no"),
        ("abc", json!({"guided_regex": "[ab]+"}), "aba"),
        ("b", json!({"guided_grammar": "start: \"a\" | \"b\""}), "b"),
    ] {
        let mut body = user(&format!("say:{wants}"), more.clone());
        body["max_tokens"] = json!(800);
        let text = text_of(&server.chat(body).await, 0);
        if expected.is_empty() {
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert!(
                value["city"].is_string()
                    && value["degrees"].as_f64().is_some_and(|degrees| degrees.fract() == 0.0),
                "{text}"
            );
        } else {
            assert_eq!(text, expected, "{more}");
        }
        let mut body = more;
        (body["prompt"], body["max_tokens"]) = (json!(format!("say:{wants}")), json!(800));
        assert_eq!(text_of(&server.complete(body).await, 0), text);
    }
}

#[tokio::test]
async fn each_choice_is_kept_to_the_form_by_itself() {
    let server = Server::start().await;
    let body = user("say:maybe", json!({"n": 3, "guided_choice": ["yes", "no", "maybe"]}));
    let reply = server.chat(body).await;
    for index in 0..3 {
        assert_eq!(text_of(&reply, index), "maybe");
    }
}

#[tokio::test]
async fn a_form_that_is_wrong_is_named() {
    let server = Server::start().await;
    for (more, param) in [
        (json!({"response_format": "json"}), "response_format"),
        (json!({"response_format": {}}), "response_format.type"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}),
            "response_format.json_schema.name",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
            "response_format.json_schema.schema",
        ),
        (json!({"response_format": json_schema(json!([]))}), "response_format.json_schema.schema"),
        (json!({"response_format": {"type": "json_object", "more": 1}}), "response_format.more"),
        (json!({"response_format": json_schema(json!({"type": "nothing"}))}), "response_format"),
        (json!({"response_format": json_schema(json!({"$ref": "http://x/y"}))}), "response_format"),
        (json!({"structured_outputs": {}}), "structured_outputs"),
        (json!({"structured_outputs": {"regex": "a", "choice": ["b"]}}), "structured_outputs"),
        (json!({"structured_outputs": {"regex": "("}}), "structured_outputs"),
        (json!({"structured_outputs": {"regex": 5}}), "structured_outputs.regex"),
        (json!({"structured_outputs": {"choice": []}}), "structured_outputs"),
        (json!({"structured_outputs": {"choice": ["a", 5]}}), "structured_outputs.choice[1]"),
        (json!({"structured_outputs": {"json": "{"}}), "structured_outputs.json"),
        (json!({"structured_outputs": {"json_object": false}}), "structured_outputs.json_object"),
        (json!({"structured_outputs": {"tags": 1}}), "structured_outputs.tags"),
        (json!({"guided_grammar": "start: foo"}), "guided_grammar"),
        (json!({"guided_regex": "a", "response_format": {"type": "json_object"}}), "guided_regex"),
    ] {
        let reply = server.chat(user("say:x", more.clone())).await;
        assert_eq!(reply.status, 400, "{more} {reply:?}");
        let error = &reply.json()["error"];
        assert_eq!(error["param"], param, "{more} {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
}

#[tokio::test]
async fn a_form_that_gives_up_half_way_is_the_clients_fault() {
    let server = Server::start().await;
    let body = |more: Value| {
        let mut body = user("again:a", json!({"guided_regex": "(a{1,1000}){1,1000}", "max_tokens": 300}));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let whole = server.chat(body(json!({}))).await;
    assert_eq!(whole.status, 400, "{whole:?}");
    let error = &whole.json()["error"];
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("invalid_request_error"), &json!("form_not_followed"))
    );
    let streamed = server.chat(body(json!({"stream": true}))).await;
    assert_eq!(streamed.status, 200);
    let last: Value = serde_json::from_str(streamed.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "form_not_followed");
    server.counts("coterie_requests_total{outcome=\"form_lost\"}", 2.0).await;
    server.counts("coterie_requests_total{outcome=\"failed\"}", 0.0).await;
}

#[tokio::test]
async fn hostile_forms_delay_nobody() {
    let server = Server::start().await;
    let terminals: String = (0..30).map(|i| format!("T{i}: (T{} | \"x\")* \"z\"\n", i + 1)).collect();
    let hostile = [
        json!({"guided_regex": "(a{1,1000}){1,1000}"}),
        json!({"guided_regex": "(.*[^a]){0,2000}"}),
        json!({"guided_grammar": format!("start: T0\n{terminals}T30: \"y\"")}),
        json!({"guided_grammar": "start: start start | \"a\""}),
        json!({"guided_json": {"type": "array", "minItems": 4_000_000_000u64}}),
    ];
    let attacks = hostile.map(|more| {
        let mut body = user("again:a", more);
        body["max_tokens"] = json!(300);
        server.chat(body)
    });
    let (replies, calm) =
        tokio::join!(futures::future::join_all(attacks), server.chat(user("say:calm", json!({}))));
    assert_eq!(text_of(&calm, 0), "calm");
    for reply in replies {
        // Answered, turned away by the full queue, or refused: at once, or at the token where the grammar gives up.
        assert!([200, 400, 429].contains(&reply.status), "{reply:?}");
    }
    let after = server.chat(user("say:{}", json!({"response_format": {"type": "json_object"}}))).await;
    assert_eq!(text_of(&after, 0), "{}");
}
