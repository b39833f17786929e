//! Clients that mean harm: to connections, heads, bodies and memory. Each gets its error or loses its connection, in
//! bounded time, and everybody else is served.

use crate::client::{Exchange, Reply, exchange};
use crate::server::{MODEL, Server, eventually, named, user};
use coterie_runtime::server::Limits;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// No connection may outlive its limit by more.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);
const CHAT: &str = "/v1/chat/completions";

fn error_code(reply: &Reply) -> Value {
    reply.json()["error"]["code"].clone()
}

/// Everything that comes until the server ends the connection, or breaks it.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut got)).await.expect("the connection stays open");
    drop(ended); // a reset is an end, too
    String::from_utf8_lossy(&got).into_owned()
}

async fn works(server: &Server) {
    let reply = server.chat(user("say:fine", json!({}))).await;
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "fine");
}

#[tokio::test]
async fn a_head_without_measure_ends_the_connection() {
    let server = Server::start().await;
    let many: String = (0..10_000).map(|at| format!("x-{at}: y\r\n")).collect();
    let giant = format!("x: {}\r\n", "y".repeat(50 << 20));
    let few: String = (0..101).map(|at| format!("x-{at}: y\r\n")).collect();
    for head in [many, giant, few] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The server ends the connection while the head is still being sent.
        let sent = stream.write_all(format!("GET /ready HTTP/1.1\r\n{head}\r\n").as_bytes()).await;
        let got = until_closed(&mut stream).await;
        assert!(
            got.starts_with("HTTP/1.1 431 ") || (got.is_empty() && head.len() > 64 << 10),
            "{got:?} {sent:?}"
        );
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let _ = stream.write_all(format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(65_535)).as_bytes()).await;
    let got = until_closed(&mut stream).await;
    assert!(got.is_empty() || got.starts_with("HTTP/1.1 4"), "{got:?}");
    works(&server).await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for() {
    let server = Server::start_within(Limits { head: SHORT, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let drip = async {
        while writer.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut got = Vec::new();
    tokio::select! {
        () = drip => {}
        _ = timeout(PATIENCE, reader.read_to_end(&mut got)) => {}
    }
    assert!(got.is_empty() || got.starts_with(b"HTTP/1.1 4"), "{got:?}");
    // A connection that says nothing, before or after a request, is closed as well.
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut idle).await.starts_with("HTTP/1.1 200 "));
    works(&server).await;
}

#[tokio::test]
async fn when_all_connections_are_taken_probes_still_get_through() {
    let server = Server::start_within(Limits { connections: 8, ..Limits::default() }).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        // Each has a request under way: its body does not come.
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head =
            format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *b"HTTP/1.1 100");
        held.push(stream);
    }
    for path in ["/health", "/ready", "/metrics", "/load"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    for reply in [server.chat(user("say:x", json!({}))).await, server.get("/v1/models").await] {
        assert_eq!((reply.status, error_code(&reply)), (503, json!("server_busy")));
        assert!(reply.header("retry-after").is_some());
        assert_eq!(reply.header("connection"), Some("close"));
    }
    // The reserve has an end, too, and empties itself.
    let mut more = Vec::new();
    for _ in 0..64 {
        more.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut dropped = 0;
    for stream in &mut more[32..] {
        dropped += usize::from(until_closed(stream).await.is_empty());
    }
    assert_eq!(dropped, 32);
    for stream in &mut more {
        until_closed(stream).await;
    }
    assert_eq!(server.get("/ready").await.status, 200);

    drop(held);
    for _ in 0..500 {
        if server.chat(user("say:x", json!({}))).await.status == 200 {
            return works(&server).await;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the places were not given back");
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let server = Server::start_within(Limits { connections: 8, ..Limits::default() }).await;
    let mut idle = Vec::new();
    for number in 0..8 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            stream.read_exact(&mut [0; 12]).await.unwrap();
        }
        idle.push(stream);
    }
    // The first has waited longest when its second is over, and gives way; the client of a stream does not.
    sleep(Duration::from_millis(1100)).await;
    let body = named(user("again:x", json!({"stream": true, "max_tokens": 1900}))).to_string();
    let length = body.len();
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    let mut streaming = TcpStream::connect(server.address).await.unwrap();
    streaming.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    streaming.read_exact(&mut [0; 12]).await.unwrap();
    for _ in 0..20 {
        works(&server).await;
    }
    let first = until_closed(&mut idle[0]).await;
    assert!(!first.contains("server_busy"), "{first}");
    assert!(until_closed(&mut streaming).await.contains("data: [DONE]"));
}

#[tokio::test]
async fn bodies_that_never_end_leave_room_for_small_ones() {
    let server = Server::start().await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 10 << 20);
    let part = vec![b' '; (10 << 20) - 1];
    let mut held = Vec::new();
    // Six fill the room of 64 MiB but for what a seventh wants.
    for _ in 0..6 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&part).await.unwrap();
        held.push(stream);
    }
    let large = named(user(&"x".repeat(9 << 20), json!({}))).to_string();
    let mut refused = exchange(server.address, "POST", CHAT, &large).await;
    for _ in 0..200 {
        // What the six sent last may still be on its way.
        if refused.status == 503 {
            break;
        }
        sleep(Duration::from_millis(20)).await;
        refused = exchange(server.address, "POST", CHAT, &large).await;
    }
    assert_eq!((refused.status, error_code(&refused)), (503, json!("server_busy")));
    assert!(refused.header("retry-after").is_some());
    works(&server).await;
    drop(held);
    for _ in 0..500 {
        let reply = exchange(server.address, "POST", CHAT, &large).await;
        if reply.status == 400 {
            assert_eq!(error_code(&reply), "context_length_exceeded");
            return works(&server).await;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the room was not given back");
}

#[tokio::test]
async fn a_thousand_connections_that_come_and_go_leave_nothing() {
    let server = Server::start_within(Limits { connections: 16, ..Limits::default() }).await;
    for _ in 0..1000 {
        drop(TcpStream::connect(server.address).await.unwrap());
    }
    for _ in 0..500 {
        if server.get("/v1/models").await.status == 200 {
            return works(&server).await;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the places were not given back");
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_answer() {
    let server = Server::start_within(Limits { write: SHORT, ..Limits::default() }).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    // Some 2 KB for each of its tokens: more than all buffers on the way hold.
    let body = named(user(
        "again:x",
        json!({"stream": true, "max_tokens": 1900, "logprobs": true, "top_logprobs": 20}),
    ));
    let body = body.to_string();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    // What it gets when it begins to read is not the whole: the server gave up meanwhile.
    let requests = || server.seen.lock().unwrap().requests.len() == 2;
    eventually("its request runs", requests).await;
    for _ in 0..400 {
        if server.metric("coterie_requests_total{outcome=\"cancelled\"}").await == 1.0 {
            let got = until_closed(&mut stream).await;
            assert!(got.starts_with("HTTP/1.1 200 ") && !got.contains("[DONE]"));
            return works(&server).await;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("the answer was kept for a client that does not read it");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Server::start_within(Limits { body: SHORT, ..Limits::default() }).await;
    // Slowly, or less than was said.
    for drip in [true, false] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{{");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let dripping = async {
            while drip && writer.write_all(b" ").await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut got = Vec::new();
        tokio::select! {
            () = dripping => {}
            ended = timeout(PATIENCE, reader.read_to_end(&mut got)) => drop(ended.expect("it waits")),
        }
        let got = String::from_utf8_lossy(&got);
        assert!(got.starts_with("HTTP/1.1 408 ") && got.contains("\"request_timeout\""), "{got:?}");
    }
    works(&server).await;
}

#[tokio::test]
async fn a_length_beyond_the_limit_is_refused_before_the_body() {
    let server = Server::start().await;
    for more in ["", "expect: 100-continue\r\n"] {
        for length in [(10 << 20) + 1, 1u64 << 60] {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\n{more}content-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            // Not a byte of the body follows.
            let got = until_closed(&mut stream).await;
            assert!(got.starts_with("HTTP/1.1 413 ") && got.contains("connection: close"), "{more} {got:?}");
            assert!(got.contains("\"request_too_large\""), "{more} {got:?}");
        }
    }
    // Who asks first and may send is told so.
    let body = named(user("say:fine", json!({}))).to_string();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 25];
    timeout(PATIENCE, stream.read_exact(&mut first)).await.expect("it waits").unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).await.unwrap();
    assert!(until_closed(&mut stream).await.starts_with("HTTP/1.1 200 "));
    works(&server).await;
}

#[tokio::test]
async fn chunks_without_end_are_refused_at_the_limit() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    let (mut reader, mut writer) = stream.split();
    let flood = async {
        while writer.write_all(chunk.as_bytes()).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let mut got = Vec::new();
    tokio::select! {
        () = flood => {}
        ended = timeout(PATIENCE, reader.read_to_end(&mut got)) => drop(ended.expect("it waits")),
    }
    let got = String::from_utf8_lossy(&got);
    assert!(got.is_empty() || got.starts_with("HTTP/1.1 413 "), "{got:?}");

    // A chunk that says that it is larger than anything.
    for size in ["ffffffffffffffff", "fffffffffffffffff", "-1", "x"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(format!("{head}{size}\r\nabc\r\n").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let got = until_closed(&mut stream).await;
        assert!(got.is_empty() || got.starts_with("HTTP/1.1 400 "), "{size} {got:?}");
    }
    works(&server).await;
}

#[tokio::test]
async fn json_that_means_harm_gets_openais_error() {
    let server = Server::start().await;
    let message = |content: &str| {
        format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":{content}}}]}}"#)
    };
    let many = |unit: &str| {
        format!(r#"{{"model":"{MODEL}","messages":[{}0]}}"#, unit.repeat((9 << 20) / unit.len()))
    };
    for (what, body) in [
        ("nested", format!(r#"{{"messages":{}"#, "[".repeat(1000))),
        ("nested for 10 MiB", "[".repeat(10 << 20)),
        ("nested objects", r#"{"a":"#.repeat(1 << 20)),
        ("a million numbers", many("0,")),
        ("a million lists", many("[0],")),
        ("a million objects", many(r#"{"a":0},"#)),
        ("a raw NUL", message("\"a\u{0}b\"")),
        ("a lone surrogate", message(r#""\ud800""#)),
        ("a surrogate and no other", message(r#""\ud800x""#)),
        ("a number beyond all numbers", r#"{"seed": 1e999999}"#.to_owned()),
        ("a string without end", format!("\"{}", "x".repeat(1 << 20))),
    ] {
        let reply = exchange(server.address, "POST", CHAT, &body).await;
        assert_eq!(reply.status, 400, "{what} {reply:?}");
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error", "{what}");
    }
    // These are strange, and allowed.
    for body in [message(r#""say:a\u0000""#), message(r#""say:\ud83e\udd80""#)] {
        assert_eq!(exchange(server.address, "POST", CHAT, &body).await.status, 200, "{body}");
    }
    // Of a name that is given twice, the last counts, as in Python.
    let twice = format!(
        r#"{{"model":"{MODEL}","max_tokens":3,"max_tokens":2,"messages":[{{"role":"user","content":"say:abc"}}]}}"#
    );
    let reply = exchange(server.address, "POST", CHAT, &twice).await;
    assert_eq!(reply.json()["usage"]["completion_tokens"], 2);
    works(&server).await;
}

#[tokio::test]
async fn a_compressed_body_is_refused_and_any_content_type_is_taken() {
    let server = Server::start().await;
    let body = named(user("say:x", json!({}))).to_string();
    for (header, status) in [
        ("content-encoding: gzip", 415),
        ("content-encoding: identity, br", 415),
        ("content-encoding: identity", 200),
        ("content-type: text/plain", 200),
        ("content-type: \u{7f}", 400),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let got = until_closed(&mut stream).await;
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{header} {got}");
        assert!(status != 415 || got.contains("\"unsupported_content_encoding\""), "{got}");
    }
}

#[tokio::test]
async fn a_prompt_beyond_all_measure_is_refused_unsplit() {
    let server = Server::start().await;
    // 2000 tokens of 8 bytes at most.
    for (path, param, body) in [
        (CHAT, "messages", user(&"x".repeat(16_001), json!({}))),
        (CHAT, "messages", user(&" ".repeat(9 << 20), json!({}))),
        ("/v1/completions", "prompt", json!({"prompt": "🦀".repeat(2 << 20)})),
    ] {
        let reply = server.post(path, &named(body)).await;
        let error = &reply.json()["error"];
        assert_eq!(
            (reply.status, &error["code"], &error["param"]),
            (400, &json!("context_length_exceeded"), &json!(param))
        );
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("16000 fit into the context of 2000 tokens"), "{message}");
    }
}

/// The time of the others is measured in steps: a token of theirs in each, whatever else happens.
#[tokio::test]
async fn attackers_do_not_take_a_step_from_a_stream() {
    let limits = Limits { connections: 64, body: SHORT, write: SHORT, head: SHORT };
    let server = Server::start_within(limits).await;
    let tokens = 150;
    let body = named(user("wait:again:x", json!({"stream": true, "max_tokens": tokens})));
    let mut stream = Exchange::start(server.address, "POST", CHAT, &body.to_string()).await;
    stream.read_until("\"content\":\"x\"").await;
    let stream_id = *server.seen.lock().unwrap().spans.keys().last().unwrap();

    let address = server.address;
    let attacks = tokio::spawn(async move {
        let send = |text: String| async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(text.as_bytes()).await;
            stream
        };
        let post = |body: &str| {
            format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        };
        let mut held = Vec::new();
        held.push(send(format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(1 << 20))).await);
        held.push(send(format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 999\r\n\r\n{{")).await);
        held.push(send(post(&"[".repeat(1 << 20))).await);
        for _ in 0..3 {
            held.push(send(post(&named(user(&"x".repeat(2 << 20), json!({}))).to_string())).await);
            held.push(send(post(&named(user(&"x".repeat(15_000), json!({}))).to_string())).await);
        }
        let unread = named(user(
            "again:y",
            json!({"stream": true, "max_tokens": 1900, "logprobs": true, "top_logprobs": 20}),
        ));
        held.push(send(post(&unread.to_string())).await);
        for _ in 0..1000 {
            drop(TcpStream::connect(address).await);
        }
        held
    });
    let rest = stream.rest().await;
    assert!(rest.contains("[DONE]"), "{rest}");
    let (first, last) = server.seen.lock().unwrap().spans[&stream_id];
    assert_eq!(last - first + 1, tokens, "one step a token");
    drop(attacks.await.unwrap());
    works(&server).await;
}
