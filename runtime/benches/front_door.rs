//! What the front door costs: `cargo bench --bench front_door`.
//!
//! A rank of this process reads a request whole and answers after [`PREFILL`] with events and a journal; clients of this
//! process ask it directly, and through `coterie route` in a process of its own. Printed are the times to the first
//! event, and the CPU time that the router took for each request, from /proc. Everything shares this machine: with many
//! bytes at once the clients and the rank are a part of what is measured, in both columns alike.

use std::io::{BufRead, BufReader as Lines};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Until a rank's first event: no rank computes 200 KB faster, and without it the clients would measure each other.
const PREFILL: Duration = Duration::from_secs(1);
/// Between two events.
const STEP: Duration = Duration::from_millis(20);
const TOKENS: usize = 16;
/// Requests of one client, one after the other.
const ROUNDS: usize = 5;
const PROMPTS: [usize; 2] = [200, 200 << 10];
const CLIENTS: [usize; 4] = [20, 50, 100, 150];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let rank = listener.local_addr()?;
        tokio::spawn(serve(listener));
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("ranks.yaml");
        std::fs::write(&file, format!("models: [{{name: m, ranks: ['{rank}']}}]"))?;
        let mut router = Router::start(&file)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        println!("{:>9} {:>7}  {:>17}  {:>17}  {:>9}  {:>11}", "prompt", "clients", "direct p50, p99", "router p50, p99", "added p50", "CPU/request");
        for prompt in PROMPTS {
            for clients in CLIENTS {
                let mut direct = measure(rank, clients, prompt).await;
                let before = router.cpu()?;
                let mut routed = measure(router.address, clients, prompt).await;
                let cpu = (router.cpu()? - before).as_secs_f64() * 1e3 / routed.len() as f64;
                let (d50, d99) = percentiles(&mut direct);
                let (r50, r99) = percentiles(&mut routed);
                let ms = |time: Duration| (time.as_secs_f64() - PREFILL.as_secs_f64()) * 1e3;
                println!(
                    "{prompt:>9} {clients:>7}  {:>7.1} {:>7.1} ms  {:>7.1} {:>7.1} ms  {:>6.1} ms  {cpu:>8.2} ms",
                    ms(d50), ms(d99), ms(r50), ms(r99), ms(r50) - ms(d50)
                );
            }
        }
        router.child.kill()?;
        router.child.wait()?;
        Ok(())
    })
}

fn percentiles(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// `coterie route` before one rank.
struct Router {
    address: SocketAddr,
    child: Child,
}

impl Router {
    fn start(ranks: &std::path::Path) -> Result<Router, Box<dyn std::error::Error>> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_coterie"))
            .args([
                "--log-format",
                "json",
                "route",
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--metrics-port",
                "0",
                "--ranks-file",
            ])
            .arg(ranks)
            .env("RUST_LOG", "info") // as in a cluster
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let mut lines = Lines::new(stderr).lines().map_while(Result::ok);
        let address = |line: String| {
            let line: serde_json::Value = serde_json::from_str(&line).ok()?;
            if line["message"] == "the front door is open" {
                line["address"].as_str()?.parse().ok()
            } else {
                None
            }
        };
        let address = lines.find_map(address).ok_or("the router did not say where it listens")?;
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Router { address, child })
    }

    /// CPU time that it took so far; a tick is 10 ms on every Linux.
    fn cpu(&self) -> Result<Duration, Box<dyn std::error::Error>> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = stat.rsplit(')').next().ok_or("no fields")?.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(10 * ticks))
    }
}

/// Times to the first event, of `clients` at once that ask again and again.
async fn measure(address: SocketAddr, clients: usize, prompt: usize) -> Vec<Duration> {
    let tasks: Vec<_> = (0..clients).map(|client| tokio::spawn(ask(address, client, prompt))).collect();
    let mut times = Vec::new();
    for task in tasks {
        match task.await {
            Ok(Ok(some)) => times.extend(some),
            other => eprintln!("a client failed: {other:?}"),
        }
    }
    times
}

async fn ask(address: SocketAddr, client: usize, prompt: usize) -> std::io::Result<Vec<Duration>> {
    // Spread over the time that one request takes, as clients are.
    tokio::time::sleep(PREFILL.mul_f64(client as f64 * 0.618 % 1.0)).await;
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    stream.get_ref().set_nodelay(true)?;
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let text = format!("{client} {round} ").repeat(prompt / 4);
        let body = format!(r#"{{"model":"m","stream":true,"prompt":"{}"}}"#, &text[..prompt]);
        let head =
            format!("POST /v1/completions HTTP/1.1\r\nhost: m\r\ncontent-length: {}\r\n\r\n", body.len());
        let asked = Instant::now();
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let (mut line, mut first) = (String::new(), None);
        // The last chunk.
        while line != "0\r\n" {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line.starts_with("data: ") {
                first.get_or_insert_with(|| asked.elapsed());
            }
        }
        stream.read_line(&mut line).await?;
        times.extend(first);
    }
    Ok(times)
}

/// A rank that takes everything at once.
async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            if let Err(error) = converse(stream).await
                && error.kind() != std::io::ErrorKind::UnexpectedEof
            {
                eprintln!("a connection to the rank broke: {error}");
            }
        });
    }
}

async fn converse(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    loop {
        let (mut line, mut length, mut load) = (String::new(), 0, false);
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            load |= line.starts_with("GET /load");
            if let Some(bytes) = line.strip_prefix("content-length: ") {
                length = bytes.trim().parse().unwrap_or(0);
            }
        }
        if load {
            let load = r#"{"since":1,"ready":true,"maxRunning":1000}"#;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{load}", load.len());
            stream.write_all(answer.as_bytes()).await?;
            continue;
        }
        stream.read_exact(&mut vec![0; length]).await?;
        tokio::time::sleep(PREFILL).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        chunk(&mut stream, ": coterie {\"begun\":{\"id\":\"a\",\"created\":1,\"seed\":2}}\n\n").await?;
        for token in 0..TOKENS {
            let entry = format!("{{\"tokens\":{{\"choice\":0,\"tokens\":[{token}]}}}}");
            chunk(&mut stream, &format!("data: {{\"text\":\"token {token}\"}}\n\n: coterie {entry}\n\n"))
                .await?;
            tokio::time::sleep(STEP).await;
        }
        chunk(&mut stream, "data: [DONE]\n\n: coterie \"ended\"\n\n").await?;
        stream.write_all(b"0\r\n\r\n").await?;
    }
}

async fn chunk(stream: &mut BufReader<TcpStream>, text: &str) -> std::io::Result<()> {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await
}
