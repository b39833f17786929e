//! The binary as it is run: its files, its signals, its memory.

use crate::client::{Exchange, exchange, exchange_with};
use crate::door::named;
use crate::fake_rank::{FakeRank, Happened};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::sleep;

/// Streams that do nothing.
const IDLE: usize = 1000;
/// What a router may take with them, KiB.
const MEMORY: u64 = 64 << 10;

struct Router {
    address: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Router {
    async fn start(ranks: &str, more: &[&str]) -> Router {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), ranks);
        let mut child = Command::new(env!("CARGO_BIN_EXE_coterie"))
            .args([
                "route",
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--metrics-port",
                "0",
                "--log-format",
                "json",
            ])
            .arg("--ranks-file")
            .arg(folder.path().join("ranks.yaml"))
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address = lines
            .find_map(|line| {
                let line: serde_json::Value = serde_json::from_str(&line).unwrap();
                (line["message"] == "the front door is open")
                    .then(|| line["address"].as_str().unwrap().parse().unwrap())
            })
            .expect("it says where it listens");
        std::thread::spawn(move || lines.for_each(drop));
        let router = Router { address, child, folder };
        for _ in 0..1000 {
            if exchange(address, "GET", "/ready", "").await.status == 200 {
                return router;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("never ready");
    }

    /// KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

fn write(folder: &Path, ranks: &str) {
    let text = format!("models:\n- name: m\n  ranks: [{ranks}]\n");
    std::fs::write(folder.join("ranks.yaml"), text).unwrap();
}

fn quoted(rank: &FakeRank) -> String {
    format!("\"{}\"", rank.address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_streams_take_little_memory() {
    let rank = FakeRank::start(&Happened::default()).await;
    let router = Router::start(&quoted(&rank), &[]).await;
    let before = router.memory();
    let mut streams = Vec::new();
    for number in 0..IDLE {
        let body =
            named(&json!({"prompt": format!("pend at 150 {number}"), "stream": true, "max_tokens": 6}));
        let mut stream = Exchange::start(router.address, "POST", "/v1/completions", &body.to_string()).await;
        stream.read_until("assistant").await;
        streams.push(stream);
    }
    assert_eq!(rank.open(), IDLE);
    let with = router.memory();
    println!("{before} KiB at rest, {with} KiB with {IDLE} idle streams");
    assert!(with < MEMORY, "{with} KiB, {before} KiB without");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_names_the_ranks_and_is_read_again() {
    let (one, other) =
        (FakeRank::start(&Happened::default()).await, FakeRank::start(&Happened::default()).await);
    let keys = tempfile::tempdir().unwrap();
    let hash = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
    std::fs::write(keys.path().join("team"), format!("sha256: {hash}\n")).unwrap();
    let router = Router::start(&quoted(&one), &["--keys", keys.path().to_str().unwrap()]).await;
    let body = named(&json!({"prompt": "x"})).to_string();
    let ask = async || {
        exchange_with(router.address, "POST", "/v1/completions", "authorization: Bearer one", &body).await
    };
    assert_eq!(exchange(router.address, "POST", "/v1/completions", &body).await.status, 401);
    assert_eq!(ask().await.status, 200);
    assert_eq!(one.requests(), 1);
    write(router.folder.path(), &quoted(&other));
    for _ in 0..1000 {
        assert_eq!(ask().await.status, 200);
        if other.requests() > 0 {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert!(other.requests() > 0, "the file was not read again");
    std::fs::remove_file(keys.path().join("team")).unwrap();
    let mut status = 200;
    for _ in 0..1000 {
        status = ask().await.status;
        if status == 401 {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status, 401, "the key was not taken away");

    let terminated = Command::new("kill").arg(router.child.id().to_string()).status().unwrap();
    assert!(terminated.success());
    let mut router = router;
    let ended = router.child.wait().unwrap();
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn a_launch_that_cannot_work_is_refused() {
    let coterie = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_coterie")).arg("route").args(args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) =
        coterie(&["--port", "0", "--metrics-port", "0", "--ranks-file", "/nowhere/ranks.yaml"]);
    assert!(code == Some(2) && said.contains("/nowhere/ranks.yaml"), "{code:?} {said}");
    let (code, said) = coterie(&["--ranks-file", "x", "--namespace", "chat"]);
    assert!(code == Some(2) && said.contains("cannot be used with"), "{code:?} {said}");
}
