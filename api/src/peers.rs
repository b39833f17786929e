//! The ranks of one replica and where they are reached: a file that the operator writes beside the expert map.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use thiserror::Error;

/// Every rank of a replica, each once, in order of their numbers. Numbers may be missing while the replica is made
/// wider or narrower.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Peers(Vec<Peer>);

/// One rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its number.
    pub rank: u16,
    /// Host and port of its exchange, e.g. `smol-0-1.smol-ranks.chat.svc:8081`.
    pub address: String,
}

/// Why something is no list of peers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoPeers {
    /// Two with one number.
    #[error("rank {0} is among the peers twice")]
    Twice(u16),
    /// An address without a port.
    #[error("the address {address:?} of rank {rank} is no host:port")]
    Address {
        /// The rank.
        rank: u16,
        /// As written.
        address: String,
    },
}

impl Peers {
    /// Of ranks in any order.
    pub fn new(mut ranks: Vec<Peer>) -> Result<Peers, NoPeers> {
        let mut seen = BTreeSet::new();
        for Peer { rank, address } in &ranks {
            if !seen.insert(*rank) {
                return Err(NoPeers::Twice(*rank));
            }
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                return Err(NoPeers::Address { rank: *rank, address: address.clone() });
            }
        }
        ranks.sort_by_key(|peer| peer.rank);
        Ok(Peers(ranks))
    }

    /// In order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.0.iter()
    }

    /// Where a rank is reached.
    pub fn address(&self, rank: u16) -> Option<&str> {
        self.0.iter().find(|peer| peer.rank == rank).map(|peer| peer.address.as_str())
    }
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    peers: Vec<Peer>,
}

impl TryFrom<Written> for Peers {
    type Error = NoPeers;

    fn try_from(written: Written) -> Result<Self, NoPeers> {
        Peers::new(written.peers)
    }
}

impl From<Peers> for Written {
    fn from(peers: Peers) -> Self {
        Written { peers: peers.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(rank: u16, address: &str) -> Peer {
        Peer { rank, address: address.to_owned() }
    }

    #[test]
    fn are_sorted_written_and_read_back() {
        let peers = Peers::new(vec![peer(2, "c:3"), peer(0, "[::1]:1")]).unwrap();
        assert_eq!((peers.address(2), peers.address(1)), (Some("c:3"), None));
        let text = serde_json::to_string(&peers).unwrap();
        assert_eq!(text, r#"{"peers":[{"rank":0,"address":"[::1]:1"},{"rank":2,"address":"c:3"}]}"#);
        assert_eq!(serde_json::from_str::<Peers>(&text).unwrap(), peers);
    }

    #[test]
    fn what_is_no_list_of_peers_is_refused_with_its_reason() {
        assert_eq!(Peers::new(vec![peer(1, "a:1"), peer(1, "b:1")]), Err(NoPeers::Twice(1)));
        for address in ["a", "a:", ":1", "a:70000", ""] {
            let refused = NoPeers::Address { rank: 0, address: address.to_owned() };
            assert_eq!(Peers::new(vec![peer(0, address)]), Err(refused));
        }
    }
}
