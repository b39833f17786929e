//! The engine's side: sends its parcels and waits for the answers, on connections that the links made.

use super::frame::{BadFrame, Header, Kind};
use super::limits::Limits;
use super::link::{Link, SLOW_PAUSE};
use super::parcel_frame;
use super::shared::Shared;
use super::usual::Usual;
use super::wire::{Broken, Wire};
use coterie_engine::moe::exchange::{Exchange, Parcel, Route, Unanswered};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A route to nowhere is looked at again after this, or when something changes.
const NOWHERE: Duration = Duration::from_millis(20);

/// The links to the other ranks.
pub type Links = Arc<Mutex<BTreeMap<u16, Arc<Link>>>>;

/// The exchange over TCP.
pub struct TcpExchange {
    shared: Arc<Shared>,
    links: Links,
    ways: BTreeMap<u16, Way>,
    /// Of the parcel that is being sent.
    head: Vec<u8>,
    /// Ends the threads when the engine is gone.
    _running: super::Running,
}

/// To one rank.
#[derive(Default)]
struct Way {
    generation: u64,
    wire: Option<Wire>,
    sequence: u64,
    sent: Option<Sent>,
    usual: Usual,
}

/// A parcel that is on its way.
struct Sent {
    at: Instant,
    layer: u16,
    adopt: bool,
    experts: Vec<(u16, u32)>,
    sends: u32,
}

/// What came instead of an answer.
enum NoAnswer {
    /// These experts are not held.
    Missing(Vec<u16>),
    Broken(Broken),
}

impl From<Broken> for NoAnswer {
    fn from(broken: Broken) -> Self {
        NoAnswer::Broken(broken)
    }
}

impl From<BadFrame> for NoAnswer {
    fn from(bad: BadFrame) -> Self {
        NoAnswer::Broken(bad.into())
    }
}

impl TcpExchange {
    pub(super) fn new(shared: Arc<Shared>, links: Links, running: super::Running) -> TcpExchange {
        TcpExchange { shared, links, ways: BTreeMap::new(), head: Vec::new(), _running: running }
    }

    /// `rank` is left out from now on.
    fn lose(&mut self, rank: u16, broken: &Broken) {
        let Some(way) = self.ways.get_mut(&rank) else { return };
        way.wire = None;
        let rest = if matches!(broken, Broken::Slow(_)) { SLOW_PAUSE } else { Duration::ZERO };
        if let Some(link) = link(&self.links, rank) {
            link.fail(&self.shared, way.generation, &broken.to_string(), rest);
        }
    }
}

impl Exchange for TcpExchange {
    fn route(&mut self, layer: usize, expert: usize) -> Route {
        let own = self.shared.own;
        loop {
            let route = self.shared.route(layer, expert);
            if route == Route::Adopt(own) {
                let (layer, expert) = (layer as u16, expert as u16);
                if self.shared.adopt(layer, expert) {
                    return Route::Here;
                }
                // Then it is somebody else's turn.
                self.shared.lacks(own, layer, [expert].into_iter());
                continue;
            }
            if route == Route::Nowhere {
                self.shared.wait(NOWHERE);
            }
            return route;
        }
    }

    fn send(&mut self, rank: u16, parcel: &Parcel) {
        let way = self.ways.entry(rank).or_default();
        if let Some((generation, wire)) = link(&self.links, rank).and_then(|link| link.take()) {
            (way.generation, way.wire) = (generation, Some(wire));
        }
        way.sent = None;
        let Some(wire) = &mut way.wire else { return };
        way.sequence += 1;
        let (experts, sends) = (parcel.experts.clone(), parcel.sends.len() as u32);
        let sent = Sent { at: Instant::now(), layer: parcel.layer, adopt: parcel.adopt, experts, sends };
        parcel_frame::encode(parcel, way.sequence, &mut self.head);
        let written =
            wire.write(&self.head, &parcel.rows, &mut sent.patience(&self.shared, rank, &way.usual));
        match written {
            Ok(()) => {
                way.sent = Some(sent);
                let counts = &self.shared.counts;
                counts.rows_sent.inc_by(u64::from(parcel.row_count));
                counts.bytes_sent.inc_by((self.head.len() + parcel.rows.len()) as u64);
            }
            Err(broken) => self.lose(rank, &broken),
        }
    }

    fn receive(&mut self, rank: u16, answer: &mut Vec<u8>) -> Result<(), Unanswered> {
        let received = match self.ways.get_mut(&rank) {
            Some(way) => way.receive(rank, &self.shared, answer),
            None => None,
        };
        match received {
            Some(Ok(())) => return Ok(()),
            Some(Err((layer, NoAnswer::Missing(experts)))) => {
                self.shared.lacks(rank, layer, experts.into_iter());
            }
            Some(Err((_, NoAnswer::Broken(broken)))) => self.lose(rank, &broken),
            // It could not even be sent.
            None => {}
        }
        self.shared.counts.unanswered.inc();
        Err(Unanswered)
    }
}

impl Way {
    /// The answer to what was sent, if anything was; else the layer and what came instead.
    fn receive(
        &mut self,
        rank: u16,
        shared: &Shared,
        answer: &mut Vec<u8>,
    ) -> Option<Result<(), (u16, NoAnswer)>> {
        let sent = self.sent.take()?;
        let wire = self.wire.as_mut()?;
        let read = sent.read_answer(wire, self.sequence, shared, rank, &self.usual, answer);
        if read.is_ok() {
            let time = sent.at.elapsed();
            shared.counts.round_trip.observe(time);
            shared.counts.bytes_received.inc_by(answer.len() as u64);
            if !sent.adopt {
                self.usual.observe(sent.sends, time);
            }
        }
        Some(read.map_err(|instead| (sent.layer, instead)))
    }
}

impl Sent {
    /// How long to wait: as long as the other side shows signs of life (its link ends the connection when it does
    /// not), unless it takes far longer than usual and others hold all of these experts.
    fn patience<'a>(
        &'a self,
        shared: &'a Shared,
        rank: u16,
        usual: &Usual,
    ) -> impl FnMut() -> Result<(), Broken> + use<'a> {
        let limit = usual.limit(self.sends);
        move || {
            let waited = self.at.elapsed();
            let slow = !self.adopt && waited >= limit && shared.replaceable(rank, self.layer, &self.experts);
            match (shared.ended(), slow) {
                (true, _) => Err(Broken::Ended),
                (_, true) => Err(Broken::Slow(waited)),
                _ => Ok(()),
            }
        }
    }

    fn read_answer(
        &self,
        wire: &mut Wire,
        sequence: u64,
        shared: &Shared,
        rank: u16,
        usual: &Usual,
        answer: &mut Vec<u8>,
    ) -> Result<(), NoAnswer> {
        let limits: &Limits = &shared.limits;
        let wait = &mut self.patience(shared, rank, usual);
        let header = wire.header(limits, wait)?;
        if header.sequence != sequence {
            return Err(BadFrame::Sequence { found: header.sequence, expected: sequence }.into());
        }
        match header {
            Header { kind: Kind::Answer, sends, payload, .. } if sends == self.sends => {
                answer.resize(payload as usize, 0);
                Ok(wire.fill(answer, wait)?)
            }
            Header { kind: Kind::Missing, payload, .. } => {
                let mut bytes = vec![0; payload as usize];
                wire.fill(&mut bytes, wait)?;
                let experts = bytes.chunks_exact(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
                Err(NoAnswer::Missing(experts.collect()))
            }
            Header { kind: Kind::Answer, sends, .. } => {
                let (found, expected) = (limits.answer_bytes(sends), limits.answer_bytes(self.sends));
                Err(BadFrame::Length { kind: Kind::Answer, found, expected }.into())
            }
            Header { kind, .. } => Err(BadFrame::Unexpected { found: kind, expected: "an answer" }.into()),
        }
    }
}

fn link(links: &Links, rank: u16) -> Option<Arc<Link>> {
    links.lock().unwrap_or_else(PoisonError::into_inner).get(&rank).cloned()
}
