//! What strangers and broken ranks may send: their connection ends, is counted, and nobody else notices.

use super::super::fake::parcel;
use super::super::frame::{BadFrame, Header, Kind};
use super::super::hello::Role;
use super::super::parcel_frame;
use super::map;
use super::ranks::{LIMIT, Made, STRANGER, World, ask};
use coterie_engine::moe::exchange::Parcel;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

/// Everything that comes until the other side closes.
fn rest(mut socket: TcpStream) -> Vec<u8> {
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(_) => {}
        // Closed with our bytes unread.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection stays open: {error}"),
    }
    bytes
}

fn bytes_of(parcel: &Parcel) -> Vec<u8> {
    let mut bytes = Vec::new();
    parcel_frame::encode(parcel, 1, &mut bytes);
    bytes.extend_from_slice(&parcel.rows);
    bytes
}

#[test]
fn wrong_frames_end_their_connection_and_no_other() {
    let mut world = World::new(&map(), Made::default());
    world.until_all_alive();
    let good = parcel(0, &[2], 2);
    let damaged = |at: usize, byte: u8| {
        let mut bytes = bytes_of(&good);
        bytes[at] = byte;
        bytes
    };
    let frames = [
        damaged(0, b'X'),
        damaged(4, 2),
        damaged(6, 99),
        damaged(6, Kind::Pulse as u8),
        damaged(8, 7),
        damaged(13, 1),
        damaged(23, 0x7f),
        // A send of a row that is not there, an expert that is not there.
        damaged(32 + 6, 9),
        damaged(32, 200),
    ];
    for (number, frame) in frames.into_iter().enumerate() {
        let mut socket = world.call(1, STRANGER, Role::Parcels).unwrap();
        socket.write_all(&frame).unwrap();
        assert_eq!(rest(socket), b"", "frame {number} was answered");
    }
    // Counted once the connection is closed.
    world.until(1, |_| world.rank(1).window.counts.refused.get() == 9);
    assert_eq!(world.forward(0, 0, &[2, 3], 2), 0);
}

#[test]
fn half_a_frame_and_a_closed_connection_do_no_harm() {
    let mut world = World::new(&map(), Made::default());
    world.until_all_alive();
    let whole = bytes_of(&parcel(0, &[2, 3], 3));
    for length in [1, 31, 32, 33, 44, 60, whole.len() - 1] {
        let mut socket = world.call(1, STRANGER, Role::Parcels).unwrap();
        socket.write_all(&whole[..length]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(socket), b"");
    }
    world.forward(0, 0, &[2, 3], 2);
    world.forward(2, 0, &[0, 1], 2);
}

#[test]
fn who_says_nothing_is_not_waited_for() {
    let world = World::new(&map(), Made::default());
    let began = Instant::now();
    let silent = TcpStream::connect(world.address(1)).unwrap();
    let mut half = TcpStream::connect(world.address(1)).unwrap();
    half.write_all(b"COEX\x01\0").unwrap();
    assert_eq!((rest(silent), rest(half)), (vec![], vec![]));
    assert!(began.elapsed() < LIMIT);
    let mut html = TcpStream::connect(world.address(1)).unwrap();
    html.write_all(b"GET / HTTP/1.1\r\nHost: rank\r\n\r\n        ").unwrap();
    assert_eq!(rest(html), b"");
}

#[test]
fn many_strangers_do_not_keep_the_ranks_apart_for_long() {
    let mut world = World::new(&map(), Made::default());
    let strangers: Vec<TcpStream> =
        (0..200).filter_map(|_| TcpStream::connect(world.address(1)).ok()).collect();
    world.until_all_alive();
    world.forward(0, 0, &[2], 1);
    drop(strangers);
}

#[test]
fn another_version_is_refused_by_both_sides_in_words() {
    let world = World::new(&map(), Made::default());
    let mut socket = TcpStream::connect(world.address(1)).unwrap();
    let mut hello = Header { kind: Kind::Hello, payload: 76, ..Header::default() }.encode();
    hello[4] = 2;
    socket.write_all(&hello).unwrap();
    assert_eq!(rest(socket), b"");
    let said = BadFrame::Protocol(2).to_string();
    assert!(said.contains("protocol 2") && said.contains("this one 1"), "{said}");
}

#[test]
fn an_expert_that_is_not_held_is_named_and_the_connection_goes_on() {
    let world = World::new(&map(), Made::default());
    let mut socket = world.call(1, STRANGER, Role::Parcels).unwrap();
    socket.write_all(&bytes_of(&parcel(1, &[0, 2], 2))).unwrap();
    let mut answer = [0; 34];
    socket.read_exact(&mut answer).unwrap();
    let mut header = [0; 32];
    header.copy_from_slice(&answer[..32]);
    let header = Header::decode(&header).unwrap();
    assert_eq!((header.kind, header.experts, header.sequence), (Kind::Missing, 1, 1));
    assert_eq!(answer[32..], [0, 0], "expert 0");
    assert!(ask(&mut socket, &parcel(1, &[2], 2)).is_some());
}
