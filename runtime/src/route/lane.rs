//! One ModelDeployment's lane through a router: its ranks, and the requests that wait until one of them has room.
//!
//! A request joins the line, and is given a [`Lease`] on a rank as soon as it is first and a rank has room: at once, as
//! a rule. Whatever may change that (a rank reports, an answer ends, ranks come) moves the line on.

mod lease;
mod line;
mod rank;

pub use lease::{Lease, Place};
pub use line::{Line, Waits};
pub use rank::{POLL, POLL_WHILE_WAITING, Rank};

use super::asked::TOKEN_BYTES;
use super::choice::choose;
use super::prefix::{Blocks, Prefixes, RankId};
use super::table::ModelKey;
use coterie_api::front_door::ModelLoad;
use coterie_api::rank_load::RankLoad;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What may wait in one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    /// Requests.
    pub requests: usize,
    /// Bytes of their bodies.
    pub bytes: usize,
}

/// What a lane must know of a request.
#[derive(Clone, Debug)]
pub struct Need {
    /// Who asks.
    pub caller: Arc<str>,
    /// Higher ones are served first.
    pub priority: i32,
    /// What it weighs against other callers' requests, tokens.
    pub cost: u64,
    /// About how many tokens its prompt has.
    pub prompt_tokens: u64,
    /// How many answers it asks for.
    pub choices: u64,
    /// Bytes of its body.
    pub bytes: usize,
    /// The beginnings of its prompt.
    pub prefix: Blocks,
}

/// Why a request may not even wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many wait as may.
    Full,
    /// The ModelDeployment was deleted.
    Gone,
}

/// One ModelDeployment's lane.
#[derive(Debug)]
pub struct Lane {
    /// Whose.
    pub key: ModelKey,
    limits: LaneLimits,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    ttft: Option<Duration>,
    ranks: Vec<Rank>,
    line: Line<Ticket>,
    prefixes: Prefixes,
    closed: bool,
    /// The newest numbers.
    rank: RankId,
    ticket: u64,
    /// Requests that were given a rank.
    turn: usize,
    /// Requests with a rank.
    running: u64,
    requests: u64,
    prompt_tokens: u64,
    last_seen: Option<Instant>,
}

/// A request in the line.
#[derive(Debug)]
struct Ticket {
    id: u64,
    need: Arc<Need>,
    since: Instant,
    /// It had a rank before, and goes on as soon as it can.
    again: bool,
    grant: oneshot::Sender<Lease>,
}

impl Waits for Ticket {
    fn id(&self) -> u64 {
        self.id
    }
    fn cost(&self) -> u64 {
        self.need.cost
    }
    fn bytes(&self) -> usize {
        self.need.bytes
    }
}

impl Ticket {
    /// Whether it has waited for so much of the time to its first token that the rest will hardly do.
    fn is_late(&self, ttft: Option<Duration>, now: Instant) -> bool {
        let in_time = ttft.map_or(Duration::MAX, |ttft| ttft / 2);
        !self.again && now.saturating_duration_since(self.since) >= in_time
    }
}

impl Lane {
    /// A lane without ranks.
    pub fn new(key: ModelKey, limits: LaneLimits) -> Arc<Lane> {
        Arc::new(Lane { key, limits, inner: Mutex::default() })
    }

    /// A request comes that has `need`, since `since`; `again` if it had a rank that could not serve it, which puts it
    /// before its caller's others.
    pub fn join(self: &Arc<Self>, need: &Arc<Need>, since: Instant, again: bool) -> Result<Place, Refused> {
        let (grant, granted) = oneshot::channel();
        let id = self.change(|inner| {
            if inner.closed {
                return Err(Refused::Gone);
            }
            if !again {
                inner.requests += 1;
                inner.prompt_tokens += need.prompt_tokens;
                inner.last_seen = Some(Instant::now());
                let crowded = inner.line.bytes() + need.bytes > self.limits.bytes;
                if inner.line.len() >= self.limits.requests || crowded && !inner.line.is_empty() {
                    return Err(Refused::Full);
                }
            }
            inner.ticket += 1;
            let ticket = Ticket { id: inner.ticket, need: need.clone(), since, again, grant };
            inner.line.push(&need.caller, need.priority, ticket, again);
            Ok(inner.ticket)
        })?;
        Ok(Place::new(self, id, granted))
    }

    /// When first tokens are to be there, if anybody said so: in a crowd those go first who can still be in time.
    pub fn set_ttft(&self, ttft: Option<Duration>) {
        self.lock().ttft = ttft;
    }

    /// Whether requests wait for a rank with room.
    pub fn has_line(&self) -> bool {
        !self.lock().line.is_empty()
    }

    /// These are the ranks now. Returns those that are new, to be asked for their load.
    pub fn set_ranks(self: &Arc<Self>, addresses: &BTreeSet<String>) -> Vec<(RankId, Arc<str>)> {
        self.change(|inner| {
            for rank in &mut inner.ranks {
                rank.listed = addresses.contains(&*rank.address);
            }
            let known: BTreeSet<Arc<str>> = inner.ranks.iter().map(|rank| rank.address.clone()).collect();
            let mut new = Vec::new();
            for address in addresses.iter().filter(|address| !known.contains(address.as_str())) {
                inner.rank += 1;
                let rank = Rank::new(inner.rank, address, Instant::now());
                new.push((rank.id, rank.address.clone()));
                inner.ranks.push(rank);
            }
            new
        })
    }

    /// A rank answered, with its load if it reports one, or did not. False if it is none of this lane any more.
    pub fn heard(self: &Arc<Self>, rank: RankId, answer: Result<Option<RankLoad>, ()>) -> bool {
        self.change(|inner| {
            let Some(at) = inner.ranks.iter().position(|known| known.id == rank) else { return false };
            let now = Instant::now();
            match answer {
                Ok(Some(load)) => {
                    if inner.ranks[at].report(load, now) {
                        inner.prefixes.forget(rank);
                    }
                }
                Ok(None) => inner.ranks[at].answered(now),
                Err(()) => inner.ranks[at].did_not_answer(now),
            }
            true
        })
    }

    /// Ends it: who waits is told.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        let waiting: Vec<Ticket> = inner.line.drain().collect();
        drop(inner);
        drop(waiting);
    }

    /// What it looks like to the operator.
    pub fn load(&self) -> ModelLoad {
        let inner = self.lock();
        let now = Instant::now();
        let oldest = inner.line.iter().map(|ticket| ticket.since).min();
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs_f64();
        ModelLoad {
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            waiting: inner.line.len() as u64,
            waiting_tokens: inner.line.iter().map(|ticket| ticket.need.prompt_tokens).sum(),
            oldest_wait_seconds: oldest.map_or(0.0, seconds),
            running: inner.running,
            idle_seconds: inner.last_seen.map(seconds),
            requests: inner.requests,
            prompt_tokens: inner.prompt_tokens,
        }
    }

    /// Ranks that take requests.
    pub fn serving(&self) -> usize {
        self.lock().ranks.iter().filter(|rank| rank.serves()).count()
    }

    /// Changes something, and moves the line on.
    fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.lock();
        let result = change(&mut inner);
        let granted = self.move_on(&mut inner);
        inner.ranks.retain(|rank| rank.listed || rank.own > 0);
        drop(inner);
        // Not before: a lease that nobody takes any more is dropped, and comes back here.
        for (grant, lease) in granted {
            let _ = grant.send(lease);
        }
        result
    }

    fn move_on(self: &Arc<Self>, inner: &mut Inner) -> Vec<(oneshot::Sender<Lease>, Lease)> {
        let mut granted = Vec::new();
        let (now, ttft) = (Instant::now(), inner.ttft);
        let late = |ticket: &Ticket| ticket.is_late(ttft, now);
        while let Some(need) = inner.line.first(late).map(|ticket| ticket.need.clone()) {
            let Some((at, cached)) = inner.pick(&need, now) else { break };
            let Some(ticket) = inner.line.pop(late) else { break };
            inner.turn = inner.turn.wrapping_add(1);
            inner.running += 1;
            let rank = &mut inner.ranks[at];
            let tokens = need.prompt_tokens.saturating_sub(cached);
            rank.send(need.choices, tokens, now);
            inner.prefixes.saw(&need.prefix, rank.id);
            granted.push((ticket.grant, Lease::new(self, rank, need.choices, tokens)));
        }
        granted
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The place of the rank to send to, if one has room, and how many of the prompt's tokens it has seen.
    fn pick(&self, need: &Need, now: Instant) -> Option<(usize, u64)> {
        let with_room: Vec<usize> =
            (0..self.ranks.len()).filter(|at| self.ranks[*at].has_room(now)).collect();
        if with_room.is_empty() {
            return None;
        }
        let seen = self.prefixes.seen(&need.prefix);
        let cached = |rank: &Rank| {
            let bytes = seen.iter().find(|(id, _)| *id == rank.id).map_or(0, |(_, bytes)| *bytes);
            bytes / TOKEN_BYTES
        };
        let ranks = with_room.iter().map(|at| &self.ranks[*at]);
        let views: Vec<_> = ranks.map(|rank| rank.view(cached(rank), now)).collect();
        let chosen = choose(&views, need.prompt_tokens, self.turn)?;
        Some((with_room[chosen], views[chosen].cached_tokens))
    }

    fn rank(&mut self, id: RankId) -> Option<&mut Rank> {
        self.ranks.iter_mut().find(|rank| rank.id == id)
    }
}

#[cfg(test)]
mod tests;
