//! What an attack costs the process in memory.

use crate::rank::Process;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Connections that each send most of the largest head and never end it.
const ATTACKERS: usize = 256;
/// Bytes of such a head.
const HEAD: usize = 60 << 10;
/// What each may cost: its head, and as much again for buffers that grow by doubling.
const ALLOWED_KIB: usize = ATTACKERS * 2 * 64;

fn resident_kib(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn heads_that_never_end_cost_what_they_hold() {
    let process = Process::start(&[]).await;
    let answer = process.post("/v1/completions", json!({"prompt": "x", "max_tokens": 2})).await;
    assert_eq!(answer.status, 200);
    let before = resident_kib(&process);
    let head = format!("GET /ready HTTP/1.1\r\nx: {}", "y".repeat(HEAD));
    let mut held = Vec::new();
    for _ in 0..ATTACKERS {
        let mut stream = TcpStream::connect(process.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    // An answer after them means that what they sent was read.
    let answer = process.post("/v1/completions", json!({"prompt": "x", "max_tokens": 20})).await;
    assert_eq!(answer.status, 200);
    let grown = resident_kib(&process).saturating_sub(before);
    assert!(grown < ALLOWED_KIB, "{ATTACKERS} heads cost {grown} KiB");
}
