//! The ranks of a test, and what an engine would do with them.

use super::super::fake::{FakeHost, SHAPE, answer_to, parcel};
use super::super::frame::{HEADER, HELLO, Header, Kind};
use super::super::hello::{Hello, Role, Terms, Versions};
use super::super::parcel_frame;
use super::super::{ExchangeOptions, Prepared, TcpExchange, Window};
use super::certificates::Authority;
use super::proxy::Proxy;
use coterie_api::expert_map::ExpertMap;
use coterie_api::expert_report::{ExpertReport, PeerState};
use coterie_api::launch::{Activations, Quantization};
use coterie_api::peers::{Peer, Peers};
use coterie_engine::moe::exchange::{Exchange, ExpertHost, Parcel, Route};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Nothing in a test may take longer.
pub const LIMIT: Duration = Duration::from_secs(30);
pub const STEP_ROWS: usize = 16;
/// A rank that no list of peers has, so that a test's connection ends nobody else's.
pub const STRANGER: u16 = 9;

/// How the ranks of a test are made.
pub struct Made {
    pub tls: bool,
    pub models: Option<Vec<[u8; 32]>>,
    /// Rank 0 reaches the others through proxies.
    pub proxied: bool,
    pub peer_wait: Duration,
    pub adopt_limit: usize,
    /// Ranks that are started; the others of the map come later.
    pub started: Option<usize>,
}

impl Default for Made {
    fn default() -> Self {
        let (peer_wait, adopt_limit) = (Duration::from_secs(60), usize::MAX);
        Made { tls: false, models: None, proxied: false, peer_wait, adopt_limit, started: None }
    }
}

pub struct World {
    pub dir: TempDir,
    pub proxies: Vec<Option<Proxy>>,
    made: Made,
    ranks: Vec<Option<Rank>>,
    addresses: Vec<SocketAddr>,
}

pub struct Rank {
    pub exchange: TcpExchange,
    pub host: FakeHost,
    pub window: Window,
}

impl World {
    /// The ranks of `map`, each with its experts.
    pub fn new(map: &ExpertMap, made: Made) -> World {
        let dir = tempfile::tempdir().unwrap();
        Authority::new().write(dir.path());
        let listeners: Vec<TcpListener> =
            (0..map.ranks()).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<SocketAddr> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
        let proxied = |rank| (made.proxied && rank > 0).then(|| Proxy::to(addresses[rank]));
        let proxies = (0..map.ranks()).map(proxied).collect();
        let ranks = (0..map.ranks()).map(|_| None).collect();
        let mut world = World { dir, proxies, made, ranks, addresses };
        world.write_map(map);
        let started = world.made.started.unwrap_or(map.ranks());
        world.write_peers(&(0..started as u16).collect::<Vec<_>>());
        for (rank, listener) in listeners.into_iter().enumerate().take(started) {
            world.start(rank, map, listener);
        }
        world
    }

    pub fn write_map(&self, map: &ExpertMap) {
        replace(&self.dir.path().join("map.json"), &serde_json::to_string(map).unwrap());
    }

    /// Rank 0 has a list of its own, for it may be behind proxies.
    pub fn write_peers(&self, ranks: &[u16]) {
        for (file, proxied) in [("peers-0.json", true), ("peers.json", false)] {
            let address = |rank: u16| match &self.proxies[usize::from(rank)] {
                Some(proxy) if proxied => proxy.address,
                _ => self.addresses[usize::from(rank)],
            };
            let peers = ranks.iter().map(|&rank| Peer { rank, address: address(rank).to_string() }).collect();
            let peers = Peers::new(peers).unwrap();
            replace(&self.dir.path().join(file), &serde_json::to_string(&peers).unwrap());
        }
    }

    fn start(&mut self, rank: usize, map: &ExpertMap, listener: TcpListener) {
        let held = (0..SHAPE.layers)
            .flat_map(|layer| map.held(layer, rank).iter().map(move |e| (layer, *e as usize)));
        let host = FakeHost::holding(&held.collect::<Vec<_>>());
        let window = Window::default();
        let dir = self.dir.path();
        let options = ExchangeOptions {
            rank: rank as u16,
            map: dir.join("map.json"),
            peers: dir.join(if rank == 0 { "peers-0.json" } else { "peers.json" }),
            tls: self.made.tls.then(|| dir.to_owned()),
            activations: Activations::Bf16,
            model: self.made.models.as_ref().map_or([1; 32], |models| models[rank]),
            quantization: Quantization::None,
            step_rows: STEP_ROWS,
            threads: 1,
            peer_wait: self.made.peer_wait,
            adopt_limit: self.made.adopt_limit,
        };
        let as_trait: Arc<dyn ExpertHost> = Arc::new(host.clone());
        let prepared = Prepared::with(options, map.clone(), listener).unwrap();
        let exchange = prepared.open(as_trait, &window).unwrap();
        self.ranks[rank] = Some(Rank { exchange, host, window });
    }

    /// Starts a rank, at first or again, where it was before.
    pub fn restart(&mut self, rank: usize, map: &ExpertMap) {
        let deadline = Instant::now() + LIMIT;
        let listener = loop {
            match TcpListener::bind(self.addresses[rank]) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        self.start(rank, map, listener);
    }

    /// As if the process were gone.
    pub fn kill(&mut self, rank: usize) {
        self.ranks[rank] = None;
    }

    pub fn rank(&self, rank: usize) -> &Rank {
        self.ranks[rank].as_ref().unwrap()
    }

    pub fn until_all_alive(&self) {
        let started = self.ranks.iter().flatten().count();
        for (rank, _) in self.ranks.iter().enumerate().filter(|(_, rank)| rank.is_some()) {
            self.until(rank, |report| {
                report.peers.len() + 1 == started && report.peers.iter().all(|p| p.state == PeerState::Alive)
            });
        }
    }

    pub fn until_state(&self, rank: usize, of: u16, state: PeerState) {
        self.until(rank, |report| report.peers.iter().any(|peer| peer.rank == of && peer.state == state));
    }

    #[track_caller]
    pub fn until(&self, rank: usize, holds: impl Fn(&ExpertReport) -> bool) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let report = self.rank(rank).window.report().unwrap();
            if holds(&report) {
                return;
            }
            assert!(Instant::now() < deadline, "{report:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What an engine does in one layer: every expert's rows are computed somewhere, and rightly. How often there was
    /// no answer.
    #[track_caller]
    pub fn forward(&mut self, rank: usize, layer: u16, experts: &[u16], rows: u32) -> usize {
        forward(self.ranks[rank].as_mut().unwrap(), layer, experts, rows)
    }

    /// The same on a thread of its own, while `meanwhile` happens to the world.
    pub fn forward_while(
        &mut self,
        rank: usize,
        experts: &[u16],
        meanwhile: impl FnOnce(&mut World),
    ) -> usize {
        let mut own = self.ranks[rank].take().unwrap();
        let experts = experts.to_vec();
        let thread = std::thread::spawn(move || {
            let missed = forward(&mut own, 1, &experts, 3);
            (own, missed)
        });
        meanwhile(self);
        let (own, missed) = thread.join().unwrap();
        self.ranks[rank] = Some(own);
        missed
    }

    /// A connection as rank `from` would make it, without TLS.
    pub fn call(&self, to: usize, from: u16, role: Role) -> Option<TcpStream> {
        let mut socket = TcpStream::connect(self.addresses[to]).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let (quantization, activations) = (Quantization::None, Activations::Bf16);
        let terms =
            Terms { model: [1; 32], quantization, shape: SHAPE, activations, step_rows: STEP_ROWS as u32 };
        let hello = Hello { role, from, to: to as u16, terms, versions: Versions::default() };
        let header = Header { kind: Kind::Hello, payload: HELLO as u32, ..Header::default() };
        socket.write_all(&[&header.encode()[..], &hello.encode()].concat()).unwrap();
        let mut welcome = [0; HEADER + HELLO];
        socket.read_exact(&mut welcome).ok()?;
        Some(socket)
    }

    pub fn address(&self, rank: usize) -> SocketAddr {
        self.addresses[rank]
    }
}

fn forward(rank: &mut Rank, layer: u16, experts: &[u16], rows: u32) -> usize {
    let deadline = Instant::now() + LIMIT;
    let mut left = experts.to_vec();
    let mut missed = 0;
    while !left.is_empty() {
        assert!(Instant::now() < deadline, "no answer: {:?}", rank.window.report());
        let mut parcels: Vec<(u16, bool, Vec<u16>)> = Vec::new();
        left.retain(|&expert| {
            if rank.host.holds(layer.into(), expert.into()) {
                return false;
            }
            let (to, adopt) = match rank.exchange.route(layer.into(), expert.into()) {
                Route::To(to) => (to, false),
                Route::Adopt(to) => (to, true),
                // Looked at again: it must be held.
                Route::Here | Route::Nowhere => return true,
            };
            match parcels.iter_mut().find(|(rank, ..)| *rank == to) {
                Some((_, adopts, experts)) if *adopts == adopt => experts.push(expert),
                // The next time round.
                Some(_) => {}
                None => parcels.push((to, adopt, vec![expert])),
            }
            true
        });
        let sent: Vec<(u16, Parcel)> = parcels
            .into_iter()
            .map(|(to, adopt, mut experts)| {
                experts.sort_unstable();
                (to, Parcel { adopt, ..parcel(layer, &experts, rows) })
            })
            .collect();
        for (to, parcel) in &sent {
            rank.exchange.send(*to, parcel);
        }
        for (to, parcel) in sent {
            let mut answer = vec![9; 3];
            match rank.exchange.receive(to, &mut answer) {
                Ok(()) => {
                    assert_eq!(answer, answer_to(&parcel), "a wrong answer of rank {to}");
                    left.retain(|expert| !parcel.experts.iter().any(|(computed, _)| computed == expert));
                }
                Err(_) => missed += 1,
            }
        }
    }
    missed
}

/// Sends a parcel over a bare connection. The answer, if one comes.
pub fn ask(socket: &mut TcpStream, parcel: &Parcel) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    parcel_frame::encode(parcel, 5, &mut head);
    socket.write_all(&[&head[..], &parcel.rows].concat()).ok()?;
    let mut header = [0; HEADER];
    socket.read_exact(&mut header).ok()?;
    let header = Header::decode(&header).unwrap();
    assert_eq!((header.kind, header.sequence), (Kind::Answer, 5));
    let mut answer = vec![0; header.payload as usize];
    socket.read_exact(&mut answer).ok()?;
    assert_eq!(answer, answer_to(parcel));
    Some(answer)
}

/// As Kubernetes replaces a file: whole.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}
