//! A replica of three processes: it answers like one of one process, also when one of the three is killed or stopped.

use crate::client::exchange;
use crate::folder::whole;
use crate::rank::Process;
use coterie_api::expert_map::ExpertMap;
use coterie_api::expert_report::{ExpertReport, PeerState};
use coterie_api::peers::{Peer, Peers};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::sleep;

const LAYERS: usize = 2;
const EXPERTS: usize = 4;
const LIMIT: Duration = Duration::from_secs(60);

struct Replica {
    ranks: Vec<Process>,
    _files: TempDir,
}

impl Replica {
    /// One rank for each of the map's.
    async fn start(model: &Path, map: &ExpertMap) -> Replica {
        let files = tempfile::tempdir().unwrap();
        let ports: Vec<TcpListener> =
            (0..map.ranks()).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = ports.into_iter().map(|port| port.local_addr().unwrap().port()).collect();
        let peer =
            |(rank, port): (usize, &u16)| Peer { rank: rank as u16, address: format!("127.0.0.1:{port}") };
        let peers = Peers::new(ports.iter().enumerate().map(peer).collect()).unwrap();
        let (map_file, peers_file) = (files.path().join("map.json"), files.path().join("peers.json"));
        std::fs::write(&map_file, serde_json::to_string(map).unwrap()).unwrap();
        std::fs::write(&peers_file, serde_json::to_string(&peers).unwrap()).unwrap();
        let start = ports.into_iter().enumerate().map(async |(rank, port)| {
            let (rank, port) = (rank.to_string(), port.to_string());
            let files = [&map_file, &peers_file].map(|file| file.to_str().unwrap());
            let experts =
                ["--rank", &rank, "--expert-map", files[0], "--peers", files[1], "--exchange-port", &port];
            Process::of(model, &[&["--threads", "1"], &experts[..]].concat()).await
        });
        Replica { ranks: futures::future::join_all(start).await, _files: files }
    }

    async fn answer(&self, rank: usize) -> Value {
        let body = json!({"prompt": "tell me more", "max_tokens": 30, "seed": 5, "logprobs": 2});
        let reply = self.ranks[rank].post("/v1/completions", body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["choices"][0].clone()
    }

    async fn report(&self, rank: usize) -> ExpertReport {
        serde_json::from_value(exchange(self.ranks[rank].address, "GET", "/experts", "").await.json())
            .unwrap()
    }

    async fn until(&self, rank: usize, holds: impl Fn(&ExpertReport) -> bool) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let report = self.report(rank).await;
            if holds(&report) {
                return;
            }
            assert!(Instant::now() < deadline, "{report:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn state_of(report: &ExpertReport, rank: u16) -> Option<PeerState> {
    report.peers.iter().find(|peer| peer.rank == rank).map(|peer| peer.state)
}

#[tokio::test]
async fn several_ranks_answer_like_one_whatever_happens_to_another() {
    let model = whole();
    let alone = Replica::start(model.path(), &ExpertMap::even(1, LAYERS, EXPERTS, 1).unwrap()).await;
    let expected = alone.answer(0).await;
    drop(alone);
    // Experts 0 and 3 are on one rank only.
    let layer = vec![vec![0, 1], vec![1, 2], vec![2, 3]];
    let map = ExpertMap::new(1, EXPERTS, vec![layer; LAYERS]).unwrap();
    let mut replica = Replica::start(model.path(), &map).await;
    for rank in 0..3 {
        assert_eq!(replica.answer(rank).await, expected);
        let report = replica.report(rank).await;
        assert_eq!((report.rank, report.held, report.adopted), (rank as u16, 4, 0));
        assert!(report.tokens.iter().flatten().sum::<u64>() > 0);
    }

    // Stopped, it is left out; going on, it is used again.
    replica.ranks[1].signal("STOP");
    assert_eq!(replica.answer(0).await, expected);
    replica.until(0, |report| state_of(report, 1) == Some(PeerState::Left)).await;
    assert_eq!(replica.answer(2).await, expected);
    replica.ranks[1].signal("CONT");
    replica.until(0, |report| state_of(report, 1) == Some(PeerState::Alive)).await;
    assert_eq!(replica.answer(1).await, expected);

    // Killed, its lost experts are taken over.
    let began = Instant::now();
    replica.ranks[2].signal("KILL");
    assert_eq!(replica.answer(0).await, expected);
    println!("an answer of 30 tokens after a kill took {:?}", began.elapsed());
    replica.until(0, |report| state_of(report, 2) == Some(PeerState::Left)).await;
    assert_eq!(replica.answer(1).await, expected);
    let adopted = replica.report(0).await.adopted + replica.report(1).await.adopted;
    assert!(
        (1..=2 * LAYERS as u32).contains(&adopted),
        "expert 3 of each layer that asked for it: {adopted}"
    );
    replica.ranks.clear();
}
