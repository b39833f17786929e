//! The processes of one replica, and the files by which they share its experts.

use crate::client::{Reply, exchange};
use crate::folder::whole;
use crate::rank::Process;
use coterie_api::expert_map::ExpertMap;
use coterie_api::expert_report::{ExpertReport, PeerState};
use coterie_api::peers::{Peer, Peers};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::sleep;

/// Longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
pub const LAYERS: usize = 2;
pub const EXPERTS: usize = 4;

/// A model folder, the files of its replica, and the ranks that run.
pub struct Replica {
    folder: TempDir,
    files: TempDir,
    ports: Vec<u16>,
    more: Vec<String>,
    ranks: Vec<Option<Process>>,
}

impl Replica {
    /// The ranks of `map`, of which none runs yet; `more` are further flags of each.
    pub fn new(map: &ExpertMap, more: &[&str]) -> Replica {
        let mut replica = Replica {
            folder: whole(),
            files: tempfile::tempdir().unwrap(),
            ports: Vec::new(),
            more: more.iter().map(|flag| (*flag).to_owned()).collect(),
            ranks: Vec::new(),
        };
        replica.write(map);
        replica
    }

    /// Runs all ranks of `map` until each is ready.
    pub async fn start(map: &ExpertMap, more: &[&str]) -> Replica {
        let mut replica = Replica::new(map, more);
        for rank in 0..map.ranks() {
            replica.run(rank);
        }
        replica.all_ready().await;
        replica
    }

    /// Writes the map, and peers for all its ranks, as Kubernetes would replace them.
    pub fn write(&mut self, map: &ExpertMap) {
        while self.ports.len() < map.ranks() {
            self.ports.push(free_port());
            self.ranks.push(None);
        }
        let peer =
            |rank: usize| Peer { rank: rank as u16, address: format!("127.0.0.1:{}", self.ports[rank]) };
        let peers = Peers::new((0..map.ranks()).map(peer).collect()).unwrap();
        self.put("peers.json", &serde_json::to_string(&peers).unwrap());
        self.put("map.json", &serde_json::to_string(map).unwrap());
    }

    /// Replaces one of the files at once.
    pub fn put(&self, name: &str, text: &str) {
        let next = self.files.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.files.path().join(name)).unwrap();
    }

    /// Rank `from`, which does not run yet, reaches rank `to` at another address.
    pub fn detour(&self, from: usize, to: usize, address: SocketAddr) {
        let peer = |rank: usize| {
            let own = format!("127.0.0.1:{}", self.ports[rank]);
            Peer { rank: rank as u16, address: if rank == to { address.to_string() } else { own } }
        };
        let peers = Peers::new((0..self.ports.len()).map(peer).collect()).unwrap();
        self.put(&format!("peers-{from}.json"), &serde_json::to_string(&peers).unwrap());
    }

    /// Knows the ranks of another replica for its own, and listens elsewhere.
    pub fn take_peers_of(&self, other: &Replica) {
        let peers = std::fs::read_to_string(other.files.path().join("peers.json")).unwrap();
        self.put("peers.json", &peers);
    }

    /// Starts a rank; does not wait until it is ready.
    pub fn run(&mut self, rank: usize) {
        self.ranks[rank] = Some(self.spawn(rank));
    }

    fn spawn(&self, rank: usize) -> Process {
        let file = |name: &str| self.files.path().join(name);
        let own = Some(file(&format!("peers-{rank}.json"))).filter(|file| file.exists());
        let files = [file("map.json"), own.unwrap_or_else(|| file("peers.json"))];
        let [map, peers] = files.each_ref().map(|file| file.to_str().unwrap());
        let (rank, port) = (rank.to_string(), self.ports[rank].to_string());
        let mut flags = vec!["--threads", "1", "--context", "300", "--drain-seconds", "20", "--rank", &rank];
        flags.extend(["--expert-map", map, "--peers", peers, "--exchange-port", &port]);
        flags.extend(self.more.iter().map(String::as_str));
        Process::spawn(self.folder.path(), &flags)
    }

    pub async fn all_ready(&self) {
        for rank in self.running() {
            self.until(rank, "is ready", |_| true).await;
        }
    }

    /// The numbers of the ranks that were started and not killed.
    pub fn running(&self) -> Vec<usize> {
        (0..self.ranks.len()).filter(|rank| self.ranks[*rank].is_some()).collect()
    }

    pub fn address(&self, rank: usize) -> SocketAddr {
        self.ranks[rank].as_ref().expect("the rank runs").address
    }

    pub fn exchange_port(&self, rank: usize) -> u16 {
        self.ports[rank]
    }

    /// kill -9
    pub fn kill(&mut self, rank: usize) {
        drop(self.ranks[rank].take());
    }

    pub fn signal(&self, rank: usize, name: &str) {
        self.ranks[rank].as_ref().expect("the rank runs").signal(name);
    }

    pub async fn report(&self, rank: usize) -> ExpertReport {
        let reply = exchange(self.address(rank), "GET", "/experts", "").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        serde_json::from_value(reply.json()).unwrap()
    }

    /// Waits until a rank is ready and its report is as wanted.
    pub async fn until(
        &self,
        rank: usize,
        what: &str,
        is_so: impl Fn(&ExpertReport) -> bool,
    ) -> ExpertReport {
        let start = Instant::now();
        loop {
            if exchange(self.address(rank), "GET", "/ready", "").await.status == 200 {
                let report = self.report(rank).await;
                if is_so(&report) {
                    return report;
                }
                assert!(start.elapsed() < PATIENCE, "rank {rank} never {what}: {report:?}");
            }
            assert!(start.elapsed() < PATIENCE, "rank {rank} never became ready");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until `rank` sees `peer` so.
    pub async fn until_seen(&self, rank: usize, peer: usize, state: PeerState) {
        let seen = |report: &ExpertReport| {
            report.peers.iter().any(|seen| usize::from(seen.rank) == peer && seen.state == state)
        };
        self.until(rank, &format!("saw rank {peer} {state:?}"), seen).await;
    }

    /// Waits until every running rank sends by the map of this version.
    pub async fn until_routed_by(&self, version: u64) {
        for rank in self.running() {
            self.until(rank, &format!("routed by version {version}"), |r| r.routing_version == version).await;
        }
    }

    /// The answer of a rank to request number `number`.
    pub async fn ask(&self, rank: usize, number: u64) -> Reply {
        exchange(self.address(rank), "POST", "/v1/completions", &body(number).to_string()).await
    }

    /// Asks every running rank, all at once, for the first `numbers` answers, and compares them with `oracle`.
    pub async fn agrees_with(&self, oracle: &[Value]) {
        for rank in self.running() {
            let asked = (0..oracle.len() as u64).map(|number| self.ask(rank, number));
            for (reply, expected) in futures::future::join_all(asked).await.iter().zip(oracle) {
                assert_eq!(&choice(reply), expected, "rank {rank}");
            }
        }
    }
}

/// A request of its own length, with log probabilities.
fn body(number: u64) -> Value {
    let prompt: Vec<u64> = (0..5 + number % 7 * 9).map(|at| (at * at + 3 * number) % 250).collect();
    json!({"model": "tiny", "prompt": prompt, "max_tokens": 24, "seed": number, "logprobs": 2,
           "temperature": number % 3 / 2, "ignore_eos": true})
}

/// What must not depend on where experts are.
pub fn choice(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["choices"][0].clone()
}

/// The first `count` answers of a single process that rounds as ranks do.
pub async fn oracle(count: u64, more: &[&str]) -> Vec<Value> {
    let alone = Replica::start(&ExpertMap::even(1, LAYERS, EXPERTS, 1).unwrap(), more).await;
    let mut choices = Vec::new();
    for number in 0..count {
        choices.push(choice(&alone.ask(0, number).await));
    }
    choices
}

/// A map of both layers alike.
pub fn map(version: u64, layer: &[&[u16]]) -> ExpertMap {
    let layer: Vec<Vec<u16>> = layer.iter().map(|held| held.to_vec()).collect();
    ExpertMap::new(version, EXPERTS, vec![layer; LAYERS]).unwrap()
}

/// One below those that the kernel gives to whoever asks for any (`net.ipv4.ip_local_port_range`): no connection of
/// another test takes it before it is used, or between two lives of a rank.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id().wrapping_mul(97);
    let turns = std::iter::repeat_with(|| first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).into()));
    let mut ports = turns.map(|turn| 20_000 + (turn % 10_000) as u16).take(10_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}
