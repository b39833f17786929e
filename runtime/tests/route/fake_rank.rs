//! A rank that follows a script. What it generates depends on the seed and the place alone, so any of them can go on
//! from any other's journal; what the prompt says befalls it.

use coterie_api::rank_load::RankLoad;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What a rank does, beside what prompts make it do.
#[derive(Clone, Debug)]
pub struct Script {
    pub load: RankLoad,
    /// The next so many requests are refused with this status.
    pub refuses: (usize, u16),
    /// It reads, and says nothing.
    pub hangs: bool,
    /// Its answers have a journal.
    pub journal: bool,
    /// Between two events.
    pub pause: Duration,
}

#[derive(Debug, Default)]
pub struct Seen {
    /// Heads and bodies of the requests for tokens.
    pub requests: Vec<(String, Value)>,
    /// Requests for tokens that are being answered now.
    pub open: usize,
}

pub struct FakeRank {
    pub address: SocketAddr,
    pub script: Arc<Mutex<Script>>,
    pub seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// Prompts whose fault has happened, on whichever rank: each happens once.
pub type Happened = Arc<Mutex<HashMap<String, usize>>>;

impl Drop for FakeRank {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeRank {
    pub async fn start(happened: &Happened) -> FakeRank {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        FakeRank::on(listener, happened)
    }

    pub fn on(listener: TcpListener, happened: &Happened) -> FakeRank {
        let address = listener.local_addr().unwrap();
        let load = RankLoad { since: 1, ready: true, max_running: 100_000, ..RankLoad::default() };
        let script = Script { load, refuses: (0, 0), hangs: false, journal: true, pause: Duration::ZERO };
        let script = Arc::new(Mutex::new(script));
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (rank, happened) = ((script.clone(), seen.clone()), happened.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, seen) = rank.clone();
                connections.spawn(converse(stream, script, seen, happened.clone()));
            }
        });
        FakeRank { address, script, seen, task }
    }

    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    pub fn requests(&self) -> usize {
        self.seen.lock().unwrap().requests.len()
    }

    pub fn open(&self) -> usize {
        self.seen.lock().unwrap().open
    }
}

struct Open(Arc<Mutex<Seen>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().unwrap().open -= 1;
    }
}

async fn converse(stream: TcpStream, script: Arc<Mutex<Script>>, seen: Arc<Mutex<Seen>>, happened: Happened) {
    let mut stream = BufReader::new(stream);
    while let Some((head, body)) = request(&mut stream).await {
        let now = script.lock().unwrap().clone();
        if now.hangs {
            sleep(Duration::from_secs(3600)).await;
        }
        if head.starts_with("GET /load ") {
            let load = serde_json::to_string(&now.load).unwrap();
            if stream.write_all(whole(200, &load).as_bytes()).await.is_err() {
                return;
            }
            continue;
        }
        let body: Value = serde_json::from_slice(&body).unwrap();
        {
            let mut seen = seen.lock().unwrap();
            seen.requests.push((head.clone(), body.clone()));
            seen.open += 1;
        }
        let _open = Open(seen.clone());
        let refused = {
            let mut script = script.lock().unwrap();
            let refuses = script.refuses.0 > 0;
            script.refuses.0 = script.refuses.0.saturating_sub(1);
            refuses.then_some(script.refuses.1)
        };
        if let Some(status) = refused {
            let error = json!({"error": {"message": "refused", "type": "t", "param": null, "code": "c"}});
            if stream.write_all(whole(status, &error.to_string()).as_bytes()).await.is_err() {
                return;
            }
            continue;
        }
        let fault = Fault::of(&body, &happened);
        let answer = answer(&head, &body, &now, &fault);
        // A client that goes away is seen while we write, or wait. What it sends early stays unread.
        let (mut reading, mut writing) = stream.get_mut().split();
        let gone = async {
            if reading.peek(&mut [0]).await.is_ok_and(|bytes| bytes > 0) {
                std::future::pending::<()>().await;
            }
        };
        let sent = async {
            for piece in answer {
                writing.write_all(&piece).await.ok()?;
                sleep(now.pause).await;
            }
            match fault.end {
                End::Hang => {
                    script.lock().unwrap().hangs = true;
                    sleep(Duration::from_secs(3600)).await
                }
                End::Pend => sleep(Duration::from_secs(3600)).await,
                End::Close | End::Whole => {}
            }
            Some(())
        };
        let ended = tokio::select! {
            sent = sent => sent.is_some() && matches!(fault.end, End::Whole),
            () = gone => false,
        };
        if !ended {
            return;
        }
    }
}

/// Reads one request: its head and its body.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

fn whole(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// What befalls an answer, from its prompt: `die at 7` lets the connection break after 7 bytes, `end at 7` ends the
/// answer there as if it were whole, `hang at 7` lets the whole rank hang, `pend at 7` only this answer.
/// `die 3 times at 7` does so to the first three answers. Others: `garbage`, `huge head`, `wrong journal`, `no replay`.
struct Fault {
    at: usize,
    end: End,
    words: String,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Whole,
    Close,
    Hang,
    Pend,
}

impl Fault {
    fn of(body: &Value, happened: &Happened) -> Fault {
        let words = body["prompt"].as_str().unwrap_or_default().to_owned();
        let none = Fault { at: usize::MAX, end: End::Whole, words: words.clone() };
        let Some((what, at)) = words.split_once(" at ") else { return none };
        let (what, times) = what
            .split_once(' ')
            .map_or((what, 1), |(what, times)| (what, times.trim_end_matches(" times").parse().unwrap()));
        let mut happened = happened.lock().unwrap();
        let so_far = happened.entry(words.clone()).or_default();
        if *so_far >= times {
            return none;
        }
        *so_far += 1;
        let end = match what {
            "die" => End::Close,
            "end" => End::Whole,
            "hang" => End::Hang,
            "pend" => End::Pend,
            other => panic!("{other}"),
        };
        Fault { at: at.split(' ').next().unwrap().parse().unwrap(), end, words }
    }
}

/// What every prompt has, whatever its length.
pub const PROMPT_TOKENS: u64 = 3;

fn token(seed: u64, place: usize) -> u32 {
    ((seed % 1000) as u32 * 31 + place as u32 * 7) % 997
}

/// The events of an answer, after each of which something may befall it.
pub fn events(body: &Value, journal: bool, words: &str) -> Vec<String> {
    let replay = &body["coterie_replay"];
    let seed = replay["begun"]["seed"].as_u64().or(body["seed"].as_u64()).unwrap_or(77);
    let tokens = body["max_tokens"].as_u64().unwrap_or(4) as usize;
    let done = replay["choices"][0]["tokens"].as_array().map_or(0, Vec::len);
    for place in 0..done {
        assert_eq!(
            replay["choices"][0]["tokens"][place],
            token(seed, place),
            "a journal that nobody wrote: {replay}"
        );
    }
    let mut events = Vec::new();
    let entry = |entry: Value| journal.then(|| format!(": coterie {entry}\n\n"));
    let event = |value: Value| format!("data: {value}\n\n");
    if replay.is_null() {
        events.push(event(json!({"id": "c-1", "role": "assistant"})));
        events.extend(entry(json!({"begun": {"id": "c-1", "created": 5, "seed": seed}})));
    }
    for place in done..tokens {
        let token = token(seed, place);
        events.push(event(json!({"id": "c-1", "text": format!("t{token} ")})));
        let number = if words == "wrong journal" { json!("seven") } else { json!(token) };
        let prompt = (place == 0).then_some(PROMPT_TOKENS);
        events.extend(entry(json!({"tokens": {"choice": 0, "tokens": [number], "prompt": prompt}})));
    }
    events.push(event(json!({"id": "c-1", "finish_reason": "length"})));
    events.push(event(json!({"id": "c-1", "usage": {"completion_tokens": tokens}})));
    events.push("data: [DONE]\n\n".to_owned());
    events.extend(entry(json!("ended")));
    events
}

/// The pieces of an answer on the wire.
fn answer(head: &str, body: &Value, script: &Script, fault: &Fault) -> Vec<Vec<u8>> {
    let replayed = !body["coterie_replay"].is_null();
    match &*fault.words {
        "garbage" => return vec![b"NO HTTP AT ALL\r\n\r\n".to_vec()],
        "huge head" => {
            return vec![format!("HTTP/1.1 200 x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)).into_bytes()];
        }
        "refuse me" => {
            let error = json!({"error": {"message": "no such", "type": "t", "param": null, "code": "c"}});
            return vec![whole(400, &error.to_string()).into_bytes()];
        }
        words if replayed && (words.starts_with("no replay") || words.ends_with("no replay")) => {
            let error = json!({"error": {"message": "cannot be replayed", "type": "t"}});
            return vec![whole(400, &error.to_string()).into_bytes()];
        }
        _ => {}
    }
    if body["stream"] != true {
        let tokens: u64 = body["max_tokens"].as_u64().unwrap_or(4);
        let text: String = (0..tokens).map(|place| format!("t{} ", token(77, place as usize))).collect();
        let answer = json!({"id": "c-1", "text": text, "usage": {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens}});
        let mut bytes = whole(200, &answer.to_string()).into_bytes();
        bytes.truncate(fault.at);
        return vec![bytes];
    }
    let journal = script.journal && head.contains("coterie-journal: 1");
    let events = events(body, journal, &fault.words);
    let mut pieces = vec![
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
    ];
    let mut left = fault.at;
    for event in events {
        let part = &event.as_bytes()[..event.len().min(left)];
        left -= part.len();
        if !part.is_empty() {
            pieces.push([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
        }
        if left == 0 {
            break;
        }
    }
    if fault.end == End::Whole {
        pieces.push(b"0\r\n\r\n".to_vec());
    }
    pieces
}

/// How many bytes the events of an answer of this request have.
pub fn length(body: &Value) -> usize {
    events(body, true, "").iter().map(String::len).sum()
}

/// What a client gets of an undisturbed stream.
pub fn undisturbed(body: &Value) -> String {
    events(body, false, "").concat()
}

/// Heads of requests, lower case, as a set of lines.
pub fn lines(head: &str) -> HashSet<String> {
    head.lines().map(str::to_lowercase).collect()
}
