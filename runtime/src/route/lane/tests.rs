use super::*;
use std::time::Duration;

const LIMITS: LaneLimits = LaneLimits { requests: 3, bytes: 1000 };

fn lane() -> Arc<Lane> {
    Lane::new(ModelKey { namespace: "a".into(), name: "m".into() }, LIMITS)
}

fn need(caller: &str, bytes: usize) -> Arc<Need> {
    Arc::new(Need {
        caller: caller.into(),
        priority: 0,
        cost: 10,
        prompt_tokens: 5,
        choices: 1,
        bytes,
        prefix: Blocks::new(),
    })
}

fn join(lane: &Arc<Lane>) -> Result<Place, Refused> {
    lane.join(&need("me", 1), Instant::now(), false)
}

fn addresses(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|address| (*address).to_owned()).collect()
}

/// A rank that runs one request at once, and takes one more.
fn report(lane: &Arc<Lane>, rank: RankId, running: u64) -> bool {
    let load = RankLoad { since: 1, ready: true, max_running: 1, running, ..RankLoad::default() };
    lane.heard(rank, Ok(Some(load)))
}

fn now(place: &mut Place) -> Option<Lease> {
    place.granted.try_recv().ok()
}

#[test]
fn a_request_waits_until_a_rank_comes() {
    let lane = lane();
    let mut place = join(&lane).unwrap();
    assert!(now(&mut place).is_none());
    assert_eq!((lane.load().waiting, lane.load().waiting_tokens, lane.load().running), (1, 5, 0));
    let new = lane.set_ranks(&addresses(&["r:1"]));
    assert_eq!(new, [(1, "r:1".into())]);
    let lease = now(&mut place).unwrap();
    assert_eq!(&*lease.address, "r:1");
    assert_eq!((lane.load().waiting, lane.load().running, lane.load().requests), (0, 1, 1));
    drop(lease);
    assert_eq!(lane.load().running, 0);
    assert!(lane.load().idle_seconds.is_some());
}

#[test]
fn an_answer_that_ends_makes_room_for_the_next() {
    let lane = lane();
    lane.set_ranks(&addresses(&["r:1"]));
    report(&lane, 1, 0);
    let mut places: Vec<Place> = (0..4).map(|_| join(&lane).unwrap()).collect();
    let mut leases: Vec<Lease> = places.iter_mut().filter_map(now).collect();
    assert_eq!(leases.len(), 2, "one runs, one is next");
    leases.pop();
    assert!(now(&mut places[2]).is_some());
}

#[test]
fn the_line_is_bounded_in_requests_and_bytes() {
    let lane = lane();
    let places: Vec<Place> = (0..3).map(|_| join(&lane).unwrap()).collect();
    assert_eq!(join(&lane).err(), Some(Refused::Full));
    drop(places);
    let _one = lane.join(&need("me", 600), Instant::now(), false).unwrap();
    assert_eq!(lane.join(&need("me", 600), Instant::now(), false).err(), Some(Refused::Full));
    assert!(lane.join(&need("me", 600), Instant::now(), true).is_ok(), "who has had a rank is never refused");
}

#[test]
fn who_leaves_waits_no_longer_and_takes_no_rank() {
    let lane = lane();
    let first = join(&lane).unwrap();
    let mut second = join(&lane).unwrap();
    drop(first);
    assert_eq!(lane.load().waiting, 1);
    lane.set_ranks(&addresses(&["r:1"]));
    assert!(now(&mut second).is_some());
    drop(second);
    assert_eq!((lane.load().waiting, lane.load().running), (0, 0));
}

#[test]
fn a_grant_that_nobody_takes_comes_back() {
    let lane = lane();
    let place = join(&lane).unwrap();
    lane.set_ranks(&addresses(&["r:1"]));
    assert_eq!(lane.load().running, 1);
    drop(place);
    assert_eq!(lane.load().running, 0);
}

#[test]
fn a_shunned_rank_gets_nothing_until_it_reports() {
    let lane = lane();
    lane.set_ranks(&addresses(&["r:1"]));
    let lease = now(&mut join(&lane).unwrap()).unwrap();
    lease.shun();
    drop(lease);
    let mut place = join(&lane).unwrap();
    assert!(now(&mut place).is_none());
    assert!(report(&lane, 1, 0));
    assert!(now(&mut place).is_some());
}

#[test]
fn a_rank_that_is_taken_off_the_list_stays_known_while_it_answers() {
    let lane = lane();
    lane.set_ranks(&addresses(&["r:1"]));
    let lease = now(&mut join(&lane).unwrap()).unwrap();
    lane.set_ranks(&addresses(&["r:2"]));
    assert!(report(&lane, 1, 1), "it is still asked");
    let other = now(&mut join(&lane).unwrap()).unwrap();
    assert_eq!(&*other.address, "r:2");
    drop(lease);
    assert!(!report(&lane, 1, 0), "nothing of ours is there any more");
}

#[test]
fn a_lane_that_closes_tells_who_waits() {
    let lane = lane();
    let mut place = join(&lane).unwrap();
    lane.close();
    assert_eq!(place.granted.try_recv().err(), Some(oneshot::error::TryRecvError::Closed));
    assert_eq!(join(&lane).err(), Some(Refused::Gone));
}

#[test]
fn a_conversation_goes_back_to_the_rank_that_knows_it() {
    let lane = lane();
    lane.set_ranks(&addresses(&["r:1", "r:2", "r:3"]));
    let need = Arc::new(Need {
        prefix: super::super::prefix::blocks(b"", &[7; 2048]),
        prompt_tokens: 512,
        ..(*need("me", 1)).clone()
    });
    let lease = || now(&mut lane.join(&need, Instant::now(), false).unwrap()).unwrap();
    let first = lease().address.clone();
    for _ in 0..5 {
        assert_eq!(lease().address, first);
        drop(now(&mut join(&lane).unwrap()));
    }
}

#[tokio::test]
async fn a_rank_is_lost_when_it_is_silent_to_everybody_for_long() {
    let patience = Duration::from_millis(50);
    let lane = lane();
    lane.set_ranks(&addresses(&["r:1"]));
    let mut lease = now(&mut join(&lane).unwrap()).unwrap();
    let heard = Instant::now();
    assert!(
        tokio::time::timeout(2 * patience, lease.lost(heard, patience)).await.is_err(),
        "it answers others"
    );
    lane.heard(1, Err(()));
    lane.heard(1, Ok(None));
    assert!(tokio::time::timeout(2 * patience, lease.lost(heard, patience)).await.is_err(), "it came back");
    lane.heard(1, Err(()));
    assert!(tokio::time::timeout(Duration::from_secs(20), lease.lost(heard, patience)).await.is_ok());
}

#[test]
fn in_a_crowd_those_go_first_who_can_still_be_served_in_time() {
    let lane = lane();
    lane.set_ttft(Some(Duration::from_secs(2)));
    lane.set_ranks(&addresses(&["r:1"]));
    report(&lane, 1, 0);
    let mut leases: Vec<Lease> = (0..2).map(|_| now(&mut join(&lane).unwrap()).unwrap()).collect();
    let waited = |seconds| Instant::now() - Duration::from_secs(seconds);
    let mut late = lane.join(&need("me", 1), waited(3), false).unwrap();
    let mut in_time = lane.join(&need("me", 1), waited(0), false).unwrap();
    leases.pop();
    let _granted = now(&mut in_time).unwrap();
    assert!(now(&mut late).is_none());

    // Who had a rank goes on before both.
    let _newer = lane.join(&need("me", 1), waited(0), false).unwrap();
    let mut again = lane.join(&need("me", 1), waited(60), true).unwrap();
    leases.pop();
    let _granted = now(&mut again).unwrap();
}
