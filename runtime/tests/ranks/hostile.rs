//! Whoever reaches the exchange's port without being a rank gets nothing, and costs nobody a token.

use crate::replica::{Replica, map, oracle};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[tokio::test]
async fn nonsense_on_the_exchanges_port_costs_nobody_a_token() {
    let expected = oracle(4, &[]).await;
    let replica = Replica::start(&map(1, &[&[0, 1], &[2, 3]]), &[]).await;
    let port = replica.exchange_port(1);
    let garbage =
        || (0..4096_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<u8>>();
    let attacks: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        vec![0; 1 << 16],
        vec![0xff; 1 << 16],
        garbage(),
        // The beginning of a TLS handshake.
        vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01],
    ];
    let hostile = std::thread::spawn(move || {
        let mut kept = Vec::new();
        for attack in attacks.iter().cycle().take(60) {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            // It may be closed while we write: that is an answer too.
            let _ = stream.write_all(attack);
            let mut answer = [0; 64];
            let _ = stream.read(&mut answer);
            kept.push(stream);
        }
        kept.len()
    });
    for _ in 0..3 {
        replica.agrees_with(&expected).await;
    }
    assert_eq!(hostile.join().unwrap(), 60);
    replica.agrees_with(&expected).await;
}

#[tokio::test]
async fn a_rank_of_another_model_is_refused() {
    let expected = oracle(2, &[]).await;
    let both = map(1, &[&[0, 1, 2, 3], &[0, 1, 2, 3]]);
    let replica = Replica::start(&both, &[]).await;
    // It believes to be rank 1 of the same replica, but rounds otherwise: no wrong token may come of it.
    let mut other = Replica::new(&both, &["--activations", "int8"]);
    other.take_peers_of(&replica);
    other.run(1);
    other.all_ready().await;
    replica.agrees_with(&expected).await;
    let seen = other.report(1).await.peers;
    assert!(
        seen.iter().all(|peer| peer.why.as_deref().is_some_and(|why| why.contains("activations"))),
        "{seen:?}"
    );
}
