//! New maps and new ranks while the old ones serve.

use super::super::keeper::LOOK_EVERY;
use super::map;
use super::ranks::{Made, World};
use coterie_api::expert_map::ExpertMap;
use coterie_api::expert_report::ExpertReport;
use coterie_engine::moe::exchange::ExpertHost;
use std::time::Instant;

fn at(version: u64, layer: Vec<Vec<u16>>) -> ExpertMap {
    ExpertMap::new(version, 4, vec![layer.clone(), layer]).unwrap()
}

#[test]
fn a_new_map_is_loaded_then_used_by_all_and_no_answer_is_missed() {
    let mut world = World::new(&map(), Made::default());
    world.until_all_alive();
    world.write_map(&at(2, vec![vec![0, 3], vec![1, 2], vec![0, 2]]));
    let mut missed = 0;
    while (0..3).any(|rank| world.rank(rank).window.report().unwrap().routing_version != 2) {
        for rank in 0..3 {
            missed += world.forward(rank, 0, &[0, 1, 2, 3], 2);
        }
    }
    assert_eq!(missed, 0);
    assert!(
        world.rank(0).host.holds(1, 3) && world.rank(1).host.holds(0, 1) && world.rank(2).host.holds(0, 0)
    );
    let report = world.rank(1).window.report().unwrap();
    assert_eq!((report.read_version, report.loaded_version, report.trouble), (2, 2, None));
    // Of four own experts and two that version 2 no longer gives: these are kept until their holders have settled.
    assert_eq!((report.held, report.adopted), (6, 0));
}

#[test]
fn a_map_whose_experts_cannot_be_loaded_is_told_of_and_the_old_one_goes_on() {
    let mut world = World::new(&map(), Made::default());
    world.until_all_alive();
    world.rank(1).host.fail_loads(true);
    world.write_map(&at(2, vec![vec![0, 3], vec![1, 2], vec![0, 2]]));
    world.until(1, |report| {
        report.trouble.as_ref().is_some_and(|trouble| trouble.contains("version 2 cannot be loaded"))
    });
    world.until(0, |report| report.loaded_version == 2);
    assert_eq!(world.forward(0, 0, &[2, 3], 2), 0);
    let report = world.rank(0).window.report().unwrap();
    assert_eq!(report.routing_version, 1, "all must have loaded it");
    world.rank(1).host.fail_loads(false);
    world.until(0, |report| report.routing_version == 2);
    world.until(1, |report| report.trouble.is_none());
}

#[test]
fn a_file_that_is_of_no_use_changes_nothing() {
    let mut world = World::new(&map(), Made::default());
    world.until_all_alive();
    for (text, said) in [
        ("{", "is of no use"),
        (r#"{"version":18446744073709551615,"experts":4,"layers":[]}"#, "9007199254740992 is allowed"),
        (r#"{"version":2,"experts":4,"layers":[[[0,1,2,3]]]}"#, "is for (1, 4) layers and experts"),
        (
            r#"{"version":1,"experts":4,"layers":[[[0,1,2,3]],[[0,1,2,3]]]}"#,
            "a changed map needs a new version",
        ),
        (r#"{"version":0,"experts":4,"layers":[[[0,1,2,3]],[[0,1,2,3]]]}"#, "version 0 is not newer than 1"),
    ] {
        std::fs::write(world.dir.path().join("map.json"), text).unwrap();
        let is_told =
            |report: &ExpertReport| report.trouble.as_ref().is_some_and(|trouble| trouble.contains(said));
        world.until(0, is_told);
        // The file is looked at again and again, and stays what it is.
        let until = Instant::now() + 3 * LOOK_EVERY;
        while Instant::now() < until {
            assert!(is_told(&world.rank(0).window.report().unwrap()), "{said}: no longer told of");
            std::thread::sleep(LOOK_EVERY / 10);
        }
        assert_eq!(world.forward(0, 0, &[2, 3], 2), 0);
        assert_eq!(world.rank(0).window.report().unwrap().routing_version, 1);
    }
    world.write_map(&at(2, vec![vec![0, 1], vec![2], vec![3]]));
    world.until(0, |report| report.routing_version == 2 && report.trouble.is_none());
}

#[test]
fn a_map_that_names_a_rank_nobody_knows_is_told_of() {
    let world = World::new(&map(), Made::default());
    world.until_all_alive();
    world.write_map(&at(2, vec![vec![0], vec![1], vec![2], vec![3]]));
    world.until(0, |report| {
        let said = "expert map 2 gives experts to rank 3, which the peers file does not name: tokens go by version 1";
        report.trouble.as_ref().is_some_and(|trouble| trouble.starts_with(said))
    });
    assert_eq!(world.rank(0).window.report().unwrap().routing_version, 1);
    world.write_map(&at(3, vec![vec![0, 1], vec![2], vec![3]]));
    world.until(0, |report| report.routing_version == 3 && report.trouble.is_none());
}

#[test]
fn a_replica_becomes_wider_and_narrower_while_it_serves() {
    let two = |version, third: Vec<u16>| at(version, vec![vec![0, 1], vec![2, 3], third]);
    let narrow = ExpertMap::new(1, 4, vec![vec![vec![0, 1], vec![2, 3]]; 2]).unwrap();
    // Rank 2 has a place, but is not started, and nobody is told of it.
    let mut world = World::new(&two(1, vec![]), Made { started: Some(2), ..Made::default() });
    world.write_map(&two(1, vec![]));
    world.until_all_alive();
    let mut missed = 0;
    let mut serve = |world: &mut World| {
        for rank in 0..2 {
            missed += world.forward(rank, 0, &[0, 1, 2, 3], 2);
        }
    };
    let wide = at(2, vec![vec![0, 1], vec![2], vec![3]]);
    world.write_peers(&[0, 1, 2]);
    world.write_map(&wide);
    for _ in 0..50 {
        serve(&mut world);
    }
    assert_eq!(world.rank(0).window.report().unwrap().routing_version, 1, "rank 2 is not there yet");
    world.restart(2, &wide);
    while world.rank(0).window.report().unwrap().routing_version != 2 {
        serve(&mut world);
    }
    world.until_all_alive();
    world.forward(2, 1, &[0, 1, 2, 3], 3);
    assert!(world.rank(2).window.counts.unanswered.get() == 0);
    // Narrower: first its experts move away, then it ends.
    world.write_map(&narrow.with_version(3).unwrap());
    while (0..3).any(|rank| world.rank(rank).window.report().unwrap().routing_version != 3) {
        serve(&mut world);
    }
    world.write_peers(&[0, 1]);
    world.until(0, |report| report.peers.len() == 1);
    world.kill(2);
    serve(&mut world);
    assert_eq!(missed, 0);
}
