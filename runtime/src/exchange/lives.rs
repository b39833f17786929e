//! Which of the other ranks live, as this one sees it. Time is an argument.

use super::hello::Versions;
use coterie_api::expert_report::{PeerReport, PeerState};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The other ranks of the replica.
#[derive(Debug)]
pub struct Lives {
    /// For so long a rank that was never reached is waited for.
    wait: Duration,
    peers: BTreeMap<u16, Peer>,
}

/// One of them.
#[derive(Debug)]
struct Peer {
    life: Life,
    /// Why it cannot be sent to: what was found last of one that was never reached, what came first of one that left.
    why: Option<String>,
    /// What was found since it left.
    since: Vec<String>,
    versions: Versions,
}

/// So many different reasons of one that left are told of; then they only go round.
const REASONS: usize = 4;

/// Whether it can be sent to, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Expected(Instant),
    Alive(Instant),
    Left,
}

impl Lives {
    /// Of nobody yet. A rank that was never reached is waited for until `wait` has passed since it became known.
    pub fn new(wait: Duration) -> Lives {
        Lives { wait, peers: BTreeMap::new() }
    }

    /// From now on there are these others: new ones are expected, who is not among them is forgotten.
    pub fn know(&mut self, ranks: &[u16], now: Instant) {
        self.peers.retain(|rank, _| ranks.contains(rank));
        for &rank in ranks {
            let new = || Peer {
                life: Life::Expected(now),
                why: None,
                since: Vec::new(),
                versions: Versions::default(),
            };
            self.peers.entry(rank).or_insert_with(new);
        }
    }

    /// `rank` was reached. `false` if nobody knows it any more.
    pub fn reached(&mut self, rank: u16, versions: Versions, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&rank) else { return false };
        *peer = Peer { life: Life::Alive(now), why: None, since: Vec::new(), versions };
        true
    }

    /// `rank`, which was reached, says how far it is.
    pub fn heard(&mut self, rank: u16, versions: Versions) {
        if let Some(peer) = self.peers.get_mut(&rank) {
            peer.versions = versions;
        }
    }

    /// `rank` cannot be sent to. Says whether that is news: its state is another, or the reason is one that was not found
    /// before. Of one that left, the first is the cause; each attempt to reach it again may find another.
    pub fn missed(&mut self, rank: u16, why: &str) -> bool {
        let Some(peer) = self.peers.get_mut(&rank) else { return false };
        match peer.life {
            Life::Alive(_) => {
                (peer.life, peer.why) = (Life::Left, Some(why.to_owned()));
                true
            }
            Life::Expected(_) => peer.why.replace(why.to_owned()).as_deref() != Some(why),
            Life::Left => {
                let known = peer.why.as_deref() == Some(why) || peer.since.iter().any(|told| told == why);
                let news = !known && peer.since.len() < REASONS;
                if news {
                    peer.since.push(why.to_owned());
                }
                news
            }
        }
    }

    /// Whether `rank` answers.
    pub fn alive(&self, rank: u16) -> bool {
        self.peers.get(&rank).is_some_and(|peer| matches!(peer.life, Life::Alive(_)))
    }

    /// For how long `rank` has answered.
    pub fn alive_for(&self, rank: u16, now: Instant) -> Option<Duration> {
        match self.peers.get(&rank)?.life {
            Life::Alive(since) => Some(now.saturating_duration_since(since)),
            _ => None,
        }
    }

    /// Whether `rank` was never reached and is waited for.
    pub fn expected(&self, rank: u16, now: Instant) -> bool {
        match self.peers.get(&rank).map(|peer| peer.life) {
            Some(Life::Expected(since)) => now.saturating_duration_since(since) < self.wait,
            _ => false,
        }
    }

    /// Who answers, in order, and how far they are.
    pub fn living(&self) -> impl Iterator<Item = (u16, Versions)> {
        let alive = self.peers.iter().filter(|(_, peer)| matches!(peer.life, Life::Alive(_)));
        alive.map(|(rank, peer)| (*rank, peer.versions))
    }

    /// For the operator.
    pub fn report(&self) -> Vec<PeerReport> {
        let of = |(rank, peer): (&u16, &Peer)| {
            let state = match peer.life {
                Life::Expected(_) => PeerState::Expected,
                Life::Alive(_) => PeerState::Alive,
                Life::Left => PeerState::Left,
            };
            let since = peer.since.iter().map(String::as_str);
            let all: Vec<&str> = peer.why.as_deref().into_iter().chain(since).collect();
            PeerReport { rank: *rank, state, why: (!all.is_empty()).then(|| all.join("; then: ")) }
        };
        self.peers.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_rank_is_expected_alive_left_and_alive_again() {
        let at = Instant::now();
        let mut lives = Lives::new(WAIT);
        lives.know(&[1, 2], at);
        assert!(lives.expected(1, at) && !lives.alive(1));
        assert!(lives.missed(1, "refused") && !lives.missed(1, "refused") && lives.missed(1, "no route"));
        assert!(lives.expected(1, at + WAIT / 2), "who was never reached is still waited for");
        assert!(!lives.expected(1, at + WAIT));
        assert!(lives.reached(1, Versions::default(), at + WAIT));
        assert_eq!(lives.alive_for(1, at + WAIT * 3), Some(WAIT * 2));
        assert!(lives.missed(1, "gone"));
        assert!(!lives.alive(1) && !lives.expected(1, at + WAIT));
        let report = &lives.report()[0];
        assert_eq!((report.rank, report.state, report.why.as_deref()), (1, PeerState::Left, Some("gone")));
        assert!(lives.missed(1, "no route") && !lives.missed(1, "gone") && !lives.missed(1, "no route"));
        assert_eq!(lives.report()[0].why.as_deref(), Some("gone; then: no route"), "the cause comes first");
        for reason in 0..100 {
            lives.missed(1, &format!("another {reason}"));
        }
        assert!(!lives.missed(1, "one more") && lives.report()[0].why.as_ref().unwrap().len() < 100);
        assert!(lives.reached(1, Versions::default(), at + WAIT * 4));
        assert_eq!(lives.living().map(|(rank, _)| rank).collect::<Vec<_>>(), [1]);
        assert_eq!(lives.report()[0].why, None);
    }

    #[test]
    fn ranks_come_and_go() {
        let at = Instant::now();
        let mut lives = Lives::new(WAIT);
        lives.know(&[1], at);
        lives.reached(1, Versions::default(), at);
        lives.know(&[1, 2], at + WAIT);
        assert!(lives.alive(1), "who is known already stays as it is");
        assert!(lives.expected(2, at + WAIT + WAIT / 2), "waited for since it became known");
        lives.know(&[2], at + WAIT);
        assert!(!lives.alive(1) && !lives.reached(1, Versions::default(), at) && !lives.missed(1, "gone"));
        lives.heard(1, Versions::default());
        assert_eq!(lives.report().len(), 1);
    }
}
