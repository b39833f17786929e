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
    why: Option<String>,
    versions: Versions,
}

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
            let new = || Peer { life: Life::Expected(now), why: None, versions: Versions::default() };
            self.peers.entry(rank).or_insert_with(new);
        }
    }

    /// `rank` was reached. `false` if nobody knows it any more.
    pub fn reached(&mut self, rank: u16, versions: Versions, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&rank) else { return false };
        *peer = Peer { life: Life::Alive(now), why: None, versions };
        true
    }

    /// `rank`, which was reached, says how far it is.
    pub fn heard(&mut self, rank: u16, versions: Versions) {
        if let Some(peer) = self.peers.get_mut(&rank) {
            peer.versions = versions;
        }
    }

    /// `rank` cannot be sent to. Says whether that is news: its state or the reason is another.
    pub fn missed(&mut self, rank: u16, why: &str) -> bool {
        let Some(peer) = self.peers.get_mut(&rank) else { return false };
        let news = matches!(peer.life, Life::Alive(_)) || peer.why.as_deref() != Some(why);
        if matches!(peer.life, Life::Alive(_)) {
            peer.life = Life::Left;
        }
        peer.why = Some(why.to_owned());
        news
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
            PeerReport { rank: *rank, state, why: peer.why.clone() }
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
