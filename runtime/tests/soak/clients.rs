//! What clients do: some read to the end, some leave, some never read, some send nonsense.

use crate::client::exchange;
use crate::random::Random;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// How often each thing happened.
#[derive(Default)]
pub struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    fn count(&self, what: &str) {
        *self.0.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    pub fn assert_everything_was_done(&self) {
        let seen = self.0.lock().unwrap();
        let all = [
            "answered",
            "refused with 429",
            "left",
            "reset",
            "read slowly",
            "read nothing",
            "half a request",
        ];
        let missing: Vec<&str> = all.into_iter().filter(|what| !seen.contains_key(*what)).collect();
        assert!(missing.is_empty(), "{missing:?} never happened: {seen:?}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.0.lock().unwrap();
        let words: Vec<String> = seen.iter().map(|(what, times)| format!("{what}: {times}")).collect();
        f.write_str(&words.join("\n"))
    }
}

/// Does one thing after another until `end`.
pub async fn client(address: SocketAddr, seed: u64, end: Instant, tally: Arc<Tally>) {
    let mut random = Random::new(seed);
    while Instant::now() < end {
        let act = random.below(16);
        let outcome = match act {
            0..7 => answered(address, &mut random).await,
            7..10 => nonsense(address, &mut random).await,
            // The server may end these first, so what the connection says about it is no surprise.
            10..13 => leaves(address, &mut random).await.unwrap_or("left"),
            13 => reads_slowly(address, &mut random).await.unwrap_or("read slowly"),
            14 => reads_nothing(address, &mut random).await.unwrap_or("read nothing"),
            _ => half_a_request(address, &mut random).await.unwrap_or("half a request"),
        };
        tally.count(outcome);
    }
}

/// An answer in one piece or streamed, read to its end.
async fn answered(address: SocketAddr, random: &mut Random) -> &'static str {
    let (path, body) = request(random);
    let reply = exchange(address, "POST", path, &body.to_string()).await;
    match reply.status {
        200 if body["stream"] == true => {
            let chunks = reply.chunks();
            assert!(
                chunks.iter().any(|chunk| chunk["choices"][0]["finish_reason"].is_string()),
                "{chunks:?}"
            );
            "answered"
        }
        200 => {
            assert!(reply.json()["choices"][0]["finish_reason"].is_string(), "{reply:?}");
            "answered"
        }
        429 => {
            sleep(Duration::from_millis(random.below(200) as u64)).await;
            "refused with 429"
        }
        _ => panic!("{body} was answered by {reply:?}"),
    }
}

/// A request that is wrong: refused, and by nothing worse than a refusal.
async fn nonsense(address: SocketAddr, random: &mut Random) -> &'static str {
    const BODIES: &[&str] = &[
        "",
        "{",
        "[]",
        "\"tiny\"",
        "{\"model\": \"tiny\"}",
        "{\"model\": \"large\", \"prompt\": \"x\"}",
        "{\"model\": \"tiny\", \"prompt\": 7}",
        "{\"model\": \"tiny\", \"prompt\": [999999]}",
        "{\"model\": \"tiny\", \"prompt\": \"x\", \"max_tokens\": -1}",
        "{\"model\": \"tiny\", \"prompt\": \"x\", \"max_tokens\": 100000}",
        "{\"model\": \"tiny\", \"prompt\": \"x\", \"temperature\": \"hot\"}",
        "{\"model\": \"tiny\", \"prompt\": \"x\", \"no_such_parameter\": 1}",
        "{\"model\": \"tiny\", \"messages\": [{\"role\": \"user\"}]}",
        "{\"model\": \"tiny\", \"messages\": []}",
    ];
    let mut body = (*random.one_of(BODIES)).to_owned();
    if random.one_in(5) {
        body = "[".repeat(1 + random.below(50_000));
    }
    let path = random.one_of(&["/v1/completions", "/v1/chat/completions", "/v1/nothing"]);
    let method = random.one_of(&["POST", "POST", "POST", "PUT"]);
    let reply = exchange(address, method, path, &body).await;
    assert!((400..500).contains(&reply.status), "{method} {path} {body:.80} was answered by {reply:?}");
    assert!(reply.json()["error"]["message"].is_string(), "{reply:?}");
    "refused as nonsense"
}

/// Goes away after some bytes of the answer, or none, politely or not.
async fn leaves(address: SocketAddr, random: &mut Random) -> io::Result<&'static str> {
    let (path, body) = request(random);
    let mut stream = send(address, path, &body.to_string(), None).await?;
    let enough = if random.one_in(4) { 0 } else { random.below(60_000) };
    let (mut seen, mut buffer) = (0, [0; 1000]);
    while seen < enough {
        match timeout(Duration::from_secs(5), stream.read(&mut buffer)).await {
            Ok(Ok(more)) if more > 0 => seen += more,
            _ => break,
        }
    }
    if random.one_in(2) {
        stream.set_zero_linger()?;
        return Ok("reset");
    }
    Ok("left")
}

/// Reads some bytes at a time through a small window, for a while.
async fn reads_slowly(address: SocketAddr, random: &mut Random) -> io::Result<&'static str> {
    let (path, body) = long_request(random);
    let mut stream = send(address, path, &body.to_string(), Some(4096)).await?;
    let (mut buffer, end) = ([0; 500], Instant::now() + Duration::from_millis(random.below(6000) as u64));
    while Instant::now() < end && stream.read(&mut buffer).await? > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    Ok("read slowly")
}

/// Takes nothing from a small window, and goes.
async fn reads_nothing(address: SocketAddr, random: &mut Random) -> io::Result<&'static str> {
    let (path, body) = long_request(random);
    let stream = send(address, path, &body.to_string(), Some(4096)).await?;
    sleep(Duration::from_millis(random.below(6000) as u64)).await;
    if random.one_in(2) {
        stream.set_zero_linger()?;
    }
    Ok("read nothing")
}

/// Goes in the middle of its own request.
async fn half_a_request(address: SocketAddr, random: &mut Random) -> io::Result<&'static str> {
    let (path, body) = request(random);
    let whole = head(path, body.to_string().len()) + &body.to_string();
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&whole.as_bytes()[..random.below(whole.len())]).await?;
    sleep(Duration::from_millis(random.below(500) as u64)).await;
    if random.one_in(2) {
        stream.set_zero_linger()?;
    }
    Ok("half a request")
}

/// A request that can be answered. Some prompts begin alike.
fn request(random: &mut Random) -> (&'static str, Value) {
    let alike = if random.one_in(2) {
        "Once upon a time there was a small group of experts. ".repeat(6)
    } else {
        String::new()
    };
    let letters = 1 + random.below(300);
    let own: String = (0..letters).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
    let text = alike + &own;
    let mut body = json!({
        "model": "tiny",
        "max_tokens": 1 + random.below(500),
        "temperature": *random.one_of(&[0.0, 1.0]),
        "seed": random.below(1000),
        "stream": random.one_in(2),
    });
    if random.one_in(4) {
        body["n"] = (2 + random.below(2)).into();
    }
    if random.one_in(4) {
        body["stop"] = json!(["a", "\n"]);
    }
    if random.one_in(2) {
        body["prompt"] = text.into();
        return ("/v1/completions", body);
    }
    body["messages"] = json!([{"role": "user", "content": text}]);
    ("/v1/chat/completions", body)
}

/// A request whose answer is more than connections hold on their way.
fn long_request(random: &mut Random) -> (&'static str, Value) {
    let body = json!({
        "model": "tiny", "max_tokens": 900, "stream": true, "top_logprobs": 20, "logprobs": true,
        "seed": random.below(1000), "messages": [{"role": "user", "content": "go on"}],
    });
    ("/v1/chat/completions", body)
}

async fn send(address: SocketAddr, path: &str, body: &str, window: Option<u32>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = window {
        socket.set_recv_buffer_size(bytes)?;
    }
    let mut stream = socket.connect(address).await?;
    stream.write_all((head(path, body.len()) + body).as_bytes()).await?;
    Ok(stream)
}

fn head(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n")
}
