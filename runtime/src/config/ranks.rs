//! The flags of a rank that shares its experts with others.

use clap::Args;
use coterie_api::launch::Activations;
use coterie_api::name::EXCHANGE_PORT;
use std::path::PathBuf;

/// One rank of several. Without --rank, this process holds all experts.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "One rank of several")]
pub struct RanksArgs {
    /// Number of this rank in its replica, from 0
    #[arg(long, requires_all = ["expert_map", "peers"])]
    pub rank: Option<u16>,
    /// File that says which ranks hold which experts, JSON; read again when it changes
    #[arg(long, value_name = "FILE", requires = "rank")]
    pub expert_map: Option<PathBuf>,
    /// File that says where the ranks are reached, JSON; read again when it changes
    #[arg(long, value_name = "FILE", requires = "rank")]
    pub peers: Option<PathBuf>,
    /// Port on which other ranks reach this one's experts
    #[arg(long, value_name = "PORT", default_value_t = EXCHANGE_PORT, requires = "rank")]
    pub exchange_port: u16,
    /// Folder with ca.crt, tls.crt and tls.key, by which ranks prove themselves to each other; read again when they
    /// change [default: the exchange is neither encrypted nor protected]
    #[arg(long, value_name = "DIR", requires = "rank")]
    pub exchange_tls: Option<PathBuf>,
    /// How activations travel between ranks: bf16 or int8
    #[arg(long, default_value = Activations::Bf16.flag(), requires = "rank")]
    pub activations: Activations,
    /// A rank that was never reached is waited for so long before others take its experts over
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "rank")]
    pub peer_wait: u32,
    /// Experts of lost ranks that this one takes over at most, all layers together [default: as many as are lost]
    #[arg(long, value_name = "EXPERTS", requires = "rank")]
    pub adopt_limit: Option<usize>,
}
