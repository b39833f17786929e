//! What a rank of several tells about its experts: `GET /experts` on its HTTP port.

use serde::{Deserialize, Serialize};

/// One rank's view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpertReport {
    /// Its number.
    pub rank: u16,
    /// When this process began to count, seconds since 1970: another value means that the counts began again at 0.
    pub since: u64,
    /// Newest expert map that it has read.
    pub read_version: u64,
    /// Newest map of which it holds every expert that is its own.
    pub loaded_version: u64,
    /// The map by which it sends tokens to experts.
    pub routing_version: u64,
    /// Why the newest map's experts are not loaded, if something is wrong with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// `[layer][expert]`: tokens that its own requests sent to each expert, wherever that was.
    pub tokens: Vec<Vec<u64>>,
    /// Experts that it holds, all layers together.
    pub held: u32,
    /// Those of them that are not its own by any map: taken over from ranks that were lost.
    pub adopted: u32,
    /// Bytes of all experts that it holds.
    pub expert_bytes: u64,
    /// The other ranks as it sees them, in order.
    pub peers: Vec<PeerReport>,
}

/// One other rank, as a rank sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReport {
    /// Its number.
    pub rank: u16,
    /// Whether it can be sent to.
    pub state: PeerState,
    /// Why not, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Whether a rank can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerState {
    /// It was not reached yet.
    Expected,
    /// It answers.
    Alive,
    /// It answered once and is left out now.
    Left,
}
