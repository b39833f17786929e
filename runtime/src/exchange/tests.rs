//! Ranks of one process, connected by real sockets, some of them through a proxy that misbehaves. Their experts are
//! fakes; whatever happens, every answer must be the right one.

mod attacks;
mod certificates;
mod failures;
mod maps;
mod proxy;
mod ranks;

use super::fake::parcel;
use super::hello::Role;
use coterie_api::expert_map::ExpertMap;
use coterie_api::expert_report::PeerState;
use ranks::{Made, STRANGER, World};

/// Experts 0 and 1 on rank 0; 2 on rank 1; 3 on ranks 1 and 2, and 2 on rank 2 as well.
pub fn map() -> ExpertMap {
    let layer = vec![vec![0, 1], vec![2, 3], vec![2, 3]];
    ExpertMap::new(1, 4, vec![layer.clone(), layer]).unwrap()
}

#[test]
fn ranks_compute_each_others_experts() {
    for made in [Made { tls: false, ..Made::default() }, Made { tls: true, ..Made::default() }] {
        let mut world = World::new(&map(), made);
        world.until_all_alive();
        for rows in [1, 5, 16] {
            for layer in 0..2 {
                world.forward(0, layer, &[2, 3], rows);
                world.forward(1, layer, &[0, 1], rows);
                world.forward(2, layer, &[0, 3, 1], rows);
            }
        }
        let counts = &world.rank(0).window.counts;
        assert_eq!((counts.unanswered.get(), counts.refused.get()), (0, 0));
        assert!(counts.rows_sent.get() >= 22 && counts.bytes_sent.get() > counts.rows_sent.get() * 16);
        assert!(counts.computed.get() >= 6, "ranks 1 and 2 have no copy of experts 0 and 1");
        let report = world.rank(1).window.report().unwrap();
        assert_eq!((report.rank, report.held, report.adopted, report.expert_bytes), (1, 4, 0, 400));
        assert_eq!((report.read_version, report.loaded_version, report.routing_version), (1, 1, 1));
        assert_eq!((report.peers.len(), report.trouble), (2, None));
    }
}

#[test]
fn ranks_that_do_not_go_together_do_not_exchange() {
    let made = Made { models: Some(vec![[7; 32], [8; 32], [7; 32]]), ..Made::default() };
    let mut world = World::new(&map(), made);
    world.until_state(0, 2, PeerState::Alive);
    world.until(0, |report| report.peers[0].why.is_some());
    let report = world.rank(0).window.report().unwrap();
    let why = report.peers[0].why.clone().unwrap();
    assert!(why.contains("rank 1 has a model") && why.contains("rank 0 has 070707"), "{why}");
    assert!(world.rank(0).window.unreached().unwrap().contains(&why));
    world.forward(0, 0, &[2, 3], 3);
    assert!(world.rank(1).window.counts.refused.get() > 0);
}

#[test]
fn a_second_connection_of_a_rank_ends_its_first() {
    let world = World::new(&map(), Made::default());
    let mut first = world.call(0, STRANGER, Role::Parcels).unwrap();
    let mut second = world.call(0, STRANGER, Role::Parcels).unwrap();
    assert!(ranks::ask(&mut first, &parcel(0, &[0], 1)).is_none());
    assert!(ranks::ask(&mut second, &parcel(0, &[0], 1)).is_some());
}
