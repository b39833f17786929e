//! What a remote expert costs beside its computation: `cargo bench --bench exchange`.
//!
//! Two ranks of this process exchange parcels over loopback; the worker answers at once with rows of zeros, so that
//! what is timed is encoding, two threads' wake-ups on the other side, TCP, and TLS. Beside it, in the same run: a bare
//! TCP echo of as many bytes there and back. A figure of `iperf3`, if it is installed, says what the link can do.

use coterie_api::expert_map::ExpertMap;
use coterie_api::launch::{Activations, Quantization};
use coterie_api::name::EXCHANGE_TLS_NAME;
use coterie_api::peers::{Peer, Peers};
use coterie_engine::LoadError;
use coterie_engine::moe::exchange::{Exchange, ExpertHost, ExpertShape, ExpertWorker, Parcel, Route};
use coterie_runtime::exchange::{ExchangeOptions, Prepared, TcpExchange, Window};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WARM: usize = 200;
const ROUNDS: usize = 2000;
/// Large frames are sent fewer times.
const BYTES: usize = 400 << 20;

fn main() {
    println!("{:>7} {:>6} {:>9}  {:>28}  {:>28}  {:>28}", "", "", "", "bare TCP echo", "plain", "TLS");
    println!(
        "{:>7} {:>6} {:>9}  {:>9} {:>9} {:>8}  {:>9} {:>9} {:>8}  {:>9} {:>9} {:>8}",
        "values", "rows", "KiB", "median", "p99", "MB/s", "median", "p99", "MB/s", "median", "p99", "MB/s"
    );
    for hidden in [576, 4096] {
        for rows in [1, 16, 128] {
            let bytes = rows * hidden * 2;
            let rounds = (BYTES / (2 * bytes)).clamp(100, ROUNDS);
            print!("{hidden:>7} {rows:>6} {:>9.1}", bytes as f64 / 1024.0);
            for mut times in
                [echo(bytes, rounds), ranks(hidden, rows, rounds, false), ranks(hidden, rows, rounds, true)]
            {
                times.sort_unstable();
                let micros =
                    |percent: usize| times[(times.len() - 1) * percent / 100].as_nanos() as f64 / 1e3;
                // There and back.
                let rate = (2 * bytes) as f64 / micros(50);
                print!("  {:>6.1} µs {:>6.1} µs {rate:>8.0}", micros(50), micros(99));
            }
            println!();
        }
    }
    match Command::new("iperf3").arg("--version").output() {
        Ok(_) => iperf3(),
        Err(_) => println!("iperf3 is not installed"),
    }
}

/// The times of round trips of `bytes` bytes over a bare connection.
fn echo(bytes: usize, rounds: usize) -> Vec<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let (mut server, _) = listener.accept().expect("a connection");
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("an option");
    }
    std::thread::spawn(move || {
        let mut buffer = vec![0; bytes];
        while server.read_exact(&mut buffer).and_then(|()| server.write_all(&buffer)).is_ok() {}
    });
    let mut buffer = vec![0; bytes];
    timed(rounds, || {
        client.write_all(&buffer).expect("a write");
        client.read_exact(&mut buffer).expect("a read");
    })
}

/// The times of parcels of `rows` rows to one expert on another rank.
fn ranks(hidden: usize, rows: usize, rounds: usize, tls: bool) -> Vec<Duration> {
    let dir = tempfile::tempdir().expect("a folder");
    if tls {
        certificates(dir.path());
    }
    let map = ExpertMap::even(1, 1, 2, 2).expect("a map");
    let ports = [(); 2]
        .map(|()| TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port"));
    let peer =
        |(rank, address): (usize, &SocketAddr)| Peer { rank: rank as u16, address: address.to_string() };
    let peers = Peers::new(ports.iter().enumerate().map(peer).collect()).expect("peers");
    for (file, text) in [("map", serde_json::to_string(&map)), ("peers", serde_json::to_string(&peers))] {
        std::fs::write(dir.path().join(file), text.expect("JSON")).expect("a file");
    }
    let mut exchanges: Vec<TcpExchange> = ports
        .iter()
        .enumerate()
        .map(|(rank, address)| {
            let options = ExchangeOptions {
                rank: rank as u16,
                map: dir.path().join("map"),
                peers: dir.path().join("peers"),
                tls: tls.then(|| dir.path().to_owned()),
                activations: Activations::Bf16,
                model: [0; 32],
                quantization: Quantization::None,
                step_rows: rows,
                threads: 1,
                peer_wait: Duration::from_secs(60),
                adopt_limit: 0,
            };
            let host = Arc::new(Zeros(ExpertShape { layers: 1, experts: 2, hidden }));
            Prepared::new(options, *address).expect("a port").open(host, &Window::default()).expect("threads")
        })
        .collect();
    let exchange = &mut exchanges[0];
    while exchange.route(0, 1) != Route::To(1) {}
    let parcel = Parcel {
        layer: 0,
        adopt: false,
        experts: vec![(1, rows as u32)],
        sends: (0..rows as u32).collect(),
        row_count: rows as u32,
        rows: vec![0; rows * hidden * 2],
    };
    let mut answer = Vec::new();
    timed(rounds, || {
        exchange.send(1, &parcel);
        exchange.receive(1, &mut answer).expect("an answer");
    })
}

fn timed(rounds: usize, mut round: impl FnMut()) -> Vec<Duration> {
    for _ in 0..WARM.min(rounds) {
        round();
    }
    let one = |_| {
        let began = Instant::now();
        round();
        began.elapsed()
    };
    (0..rounds).map(one).collect()
}

/// What this machine's loopback can do, one connection.
fn iperf3() {
    let server =
        Command::new("iperf3").args(["-s", "-1", "-p", "5301"]).stdout(std::process::Stdio::null()).spawn();
    std::thread::sleep(Duration::from_millis(300));
    let client =
        Command::new("iperf3").args(["-c", "127.0.0.1", "-p", "5301", "-t", "3", "-f", "m"]).output();
    if let (Ok(mut server), Ok(client)) = (server, client) {
        let text = String::from_utf8_lossy(&client.stdout);
        text.lines().filter(|line| line.contains("receiver")).for_each(|line| println!("iperf3: {line}"));
        let _ = server.wait();
    }
}

fn certificates(folder: &Path) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("a certificate").pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![EXCHANGE_TLS_NAME.to_owned()]).expect("parameters");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate").pem();
    for (file, text) in [("ca.crt", authority), ("tls.crt", certificate), ("tls.key", key.serialize_pem())] {
        std::fs::write(folder.join(file), text).expect("a file");
    }
}

/// Answers at once.
struct Zeros(ExpertShape);

impl ExpertHost for Zeros {
    fn shape(&self) -> ExpertShape {
        self.0
    }
    fn holds(&self, _: usize, expert: usize) -> bool {
        expert == 1
    }
    fn held(&self) -> Vec<Vec<u16>> {
        vec![vec![]]
    }
    fn bytes(&self) -> u64 {
        0
    }
    fn load(&self, _: usize, _: usize) -> Result<(), LoadError> {
        Ok(())
    }
    fn release(&self, _: usize, _: usize) {}
    fn tokens(&self) -> Vec<Vec<u64>> {
        vec![vec![0; 2]]
    }
    fn worker(&self, _: usize) -> Box<dyn ExpertWorker> {
        Box::new(Zeros(self.0))
    }
}

impl ExpertWorker for Zeros {
    fn compute(&mut self, parcels: &[&Parcel], answers: &mut [Vec<u8>]) -> Vec<bool> {
        for (parcel, answer) in parcels.iter().zip(answers) {
            answer.resize(parcel.sends.len() * self.0.hidden * 2, 0);
        }
        vec![true; parcels.len()]
    }
}
