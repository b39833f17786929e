//! What routers and ranks tell, reduced to what decides: what waits, what comes, how fast a rank is.
//!
//! Requests are counted where they begin and where they wait: what was begun at ranks and what waits at ranks and
//! routers, together, grows by one for each request that comes, whichever way it takes, and stays the same when one moves
//! on. So clients that ask a rank directly count too, and a router's own counts are not needed.

use super::arrivals::{Arrivals, Arrived};
use super::lately::LATELY;
use super::rates::{Fit, Rates, Stretch};
use coterie_api::deployment::scaling::MeasuredStatus;
use coterie_api::front_door::ModelLoad;
use coterie_api::rank_load::RankLoad;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An answer that is older says nothing about now.
pub const FRESH: SignedDuration = SignedDuration::from_secs(6);
/// After so long, what was measured counts a third.
const MEMORY_SECONDS: f64 = 600.0;
/// Times to Ready that are remembered.
const STARTS: usize = 5;

/// One ModelDeployment's demand; fed by the shell with every answer.
#[derive(Clone, Debug)]
pub struct Demand {
    ranks: BTreeMap<String, Source<RankLoad>>,
    routers: BTreeMap<String, Source<ModelLoad>>,
    arrivals: Arrivals,
    fit: Fit,
    mix: Mix,
    full: Full,
    /// Seconds from made to Ready, newest last.
    starts: VecDeque<f64>,
    /// What an earlier operator had measured.
    remembered: Option<Measured>,
    last_request: Timestamp,
    /// Since when every source has answered without a gap.
    complete_since: Option<Timestamp>,
    faded: Timestamp,
}

/// A rank or a router that should answer.
#[derive(Clone, Debug)]
struct Source<T> {
    /// When it last answered, or when it was first expected to.
    heard: Timestamp,
    answer: Option<T>,
}

/// What requests consist of; older ones count less and less.
#[derive(Clone, Debug, Default)]
struct Mix {
    requests: f64,
    prompt_tokens: f64,
    computed_tokens: f64,
    generated_tokens: f64,
}

/// What ranks did in stretches in which they had more to do than they could; older ones count less and less.
#[derive(Clone, Debug, Default)]
struct Full {
    seconds: f64,
    computed_tokens: f64,
    generated_tokens: f64,
}

/// What decides, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Signals {
    /// Requests that wait at routers.
    pub at_routers: u64,
    /// Requests that wait at ranks.
    pub at_ranks: u64,
    /// Prompt tokens of both, and of those at ranks that were begun and are yet to be computed.
    pub waiting_tokens: f64,
    /// Requests that are being answered.
    pub running: u64,
    /// What came in each second, oldest first; the last second is not over.
    pub arrived: Vec<Arrived>,
    /// The last of these seconds, since 1970.
    pub newest_second: i64,
    /// What a rank does; `None` until one has answered requests.
    pub measured: Option<Measured>,
    /// Seconds from the making of a replica to Ready; `None` until one has come.
    pub start: Option<f64>,
    /// When a request last came, waited or ran, as far as it was seen.
    pub last_request: Timestamp,
    /// Since when every rank and router answers; `None` while one does not.
    pub complete_since: Option<Timestamp>,
}

/// What was measured of ranks and requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// What a rank takes for what.
    pub rates: Rates,
    /// Prompt tokens of a request, those of the prefix cache included.
    pub prompt_tokens: f64,
    /// Share of them that is computed, because it is not in the cache; 0 to 1.
    pub computed_share: f64,
    /// Tokens of an answer.
    pub output_tokens: f64,
    /// Requests in one batch at most; at least 1.
    pub max_running: f64,
    /// Share of its time that a rank which had more to do than it could spent on prompts and tokens, not on steps as such.
    /// `None` if none was seen so.
    pub full_share: Option<f64>,
}

impl Signals {
    /// Requests that wait.
    pub fn queue_depth(&self) -> u64 {
        self.at_routers.saturating_add(self.at_ranks)
    }

    /// Requests that came in the last minutes, or at least those that are there.
    pub fn requests(&self) -> f64 {
        let came: f64 = self.arrived.iter().rev().take(LATELY).map(|second| second.requests).sum();
        came.max(self.queue_depth().saturating_add(self.running) as f64)
    }
}

impl Demand {
    /// Nothing is known yet but what `status` kept of an earlier operator's measurements.
    pub fn new(kept: Option<&MeasuredStatus>, now: Timestamp) -> Self {
        let start = kept.and_then(|kept| kept.start_seconds).map(|seconds| seconds as f64);
        Self {
            ranks: BTreeMap::new(),
            routers: BTreeMap::new(),
            arrivals: Arrivals::default(),
            fit: Fit::default(),
            mix: Mix::default(),
            full: Full::default(),
            starts: start.into_iter().collect(),
            remembered: kept.map(Measured::of),
            last_request: now,
            complete_since: None,
            faded: now,
        }
    }

    /// Says which ranks and routers there are, by the uids of their pods: those that should answer now.
    pub fn expect(&mut self, ranks: &BTreeSet<String>, routers: &BTreeSet<String>, now: Timestamp) {
        for (_, gone) in self.ranks.extract_if(.., |uid, _| !ranks.contains(uid)) {
            // What waited there is asked again elsewhere, and is counted there.
            if let Some(load) = gone.answer {
                self.arrivals.add(now, minus(waiting_at_rank(&load)));
            }
        }
        for (_, gone) in self.routers.extract_if(.., |uid, _| !routers.contains(uid)) {
            if let Some(load) = gone.answer {
                self.arrivals.add(now, minus(waiting_at_router(&load)));
            }
        }
        for uid in ranks {
            self.ranks.entry(uid.clone()).or_insert(Source { heard: now, answer: None });
        }
        for uid in routers {
            self.routers.entry(uid.clone()).or_insert(Source { heard: now, answer: None });
        }
    }

    /// Takes what a rank told. One that is not expected is not heard.
    pub fn rank(&mut self, uid: &str, load: &RankLoad, now: Timestamp) {
        let Some(source) = self.ranks.get_mut(uid) else { return };
        let before = source.answer.replace(load.clone());
        let passed = now.duration_since(source.heard).as_secs_f64();
        source.heard = now;
        let held =
            self.routers.values().filter_map(|router| router.answer.as_ref()).any(|load| load.waiting > 0);
        let begun_anew = RankLoad { since: load.since, ..RankLoad::default() };
        // What was begun before the first answer of a rank is nobody's.
        let Some(before) = before else { return };
        let waited = waiting_at_rank(&before);
        let before = if before.since == load.since { before } else { begun_anew };
        let waits = waiting_at_rank(load);
        let grown = |before: u64, after: u64| after.saturating_sub(before) as f64;
        let requests = grown(before.requests, load.requests);
        let prompt_tokens = grown(before.prompt_tokens, load.prompt_tokens);
        self.arrivals.add(
            now,
            Arrived {
                requests: requests + waits.requests - waited.requests,
                prompt_tokens: prompt_tokens + waits.prompt_tokens - waited.prompt_tokens,
            },
        );
        self.mix.requests += requests;
        self.mix.prompt_tokens += prompt_tokens;
        self.mix.computed_tokens += grown(before.computed_tokens, load.computed_tokens);
        self.mix.generated_tokens += grown(before.generated_tokens, load.generated_tokens);
        if let Some(stretch) = Stretch::between(&before, load) {
            self.fit.take(&stretch);
            if is_full(&before, held) && is_full(load, held) {
                self.full.take(&stretch, passed);
            }
        }
        if requests > 0.0 || load.running > 0 || load.waiting > 0 {
            self.last_request = self.last_request.max(now);
        }
    }

    /// Takes what a router told of this ModelDeployment; the default if it told nothing.
    pub fn router(&mut self, uid: &str, load: &ModelLoad, now: Timestamp) {
        let Some(source) = self.routers.get_mut(uid) else { return };
        let before = source.answer.replace(load.clone());
        source.heard = now;
        if let Some(before) = before {
            let (waits, waited) = (waiting_at_router(load), waiting_at_router(&before));
            self.arrivals.add(
                now,
                Arrived {
                    requests: waits.requests - waited.requests,
                    prompt_tokens: waits.prompt_tokens - waited.prompt_tokens,
                },
            );
        }
        let idle =
            load.idle_seconds.filter(|idle| (0.0..1e9).contains(idle)).map(SignedDuration::from_secs_f64);
        let last = idle.and_then(|idle| now.checked_sub(idle).ok());
        let last = if load.waiting > 0 || load.running > 0 { Some(now) } else { last };
        self.last_request = last.map_or(self.last_request, |last| self.last_request.max(last));
    }

    /// Takes how long a replica took from made to Ready.
    pub fn started(&mut self, took: SignedDuration) {
        self.starts.push_back(took.as_secs_f64().max(0.0));
        if self.starts.len() > STARTS {
            self.starts.pop_front();
        }
    }

    /// Forgets what came in the last minutes; what was measured of ranks and requests stays.
    pub fn forget_arrivals(&mut self) {
        self.arrivals = Arrivals::default();
    }

    /// What decides now.
    pub fn signals(&mut self, now: Timestamp) -> Signals {
        self.arrivals.advance(now);
        let passed = now.duration_since(self.faded).as_secs_f64().max(0.0);
        let factor = (-passed / MEMORY_SECONDS).exp();
        self.fit.fade(factor);
        self.mix.fade(factor);
        self.full.fade(factor);
        self.faded = self.faded.max(now);
        let heard = self.ranks.values().map(|rank| rank.heard);
        let mut heard = heard.chain(self.routers.values().map(|router| router.heard));
        let stale = heard.any(|heard| now.duration_since(heard) > FRESH);
        self.complete_since = if stale { None } else { self.complete_since.or(Some(now)) };
        let ranks = || self.ranks.values().filter_map(|rank| rank.answer.as_ref());
        let routers = || self.routers.values().filter_map(|router| router.answer.as_ref());
        let tokens =
            ranks().map(RankLoad::uncomputed_tokens).chain(routers().map(|load| load.waiting_tokens));
        Signals {
            at_routers: routers().map(|load| load.waiting).fold(0, u64::saturating_add),
            at_ranks: ranks().map(|load| load.waiting).fold(0, u64::saturating_add),
            waiting_tokens: tokens.map(|tokens| tokens as f64).sum(),
            running: ranks().map(|load| load.running).fold(0, u64::saturating_add),
            arrived: self.arrivals.seconds().collect(),
            newest_second: self.arrivals.newest(),
            measured: self.measured().or(self.remembered),
            start: self.start(),
            last_request: self.last_request,
            complete_since: self.complete_since,
        }
    }

    fn measured(&self) -> Option<Measured> {
        let rates = self.fit.rates()?;
        let Mix { requests, prompt_tokens, computed_tokens, generated_tokens } = self.mix;
        if requests < 1.0 {
            return None;
        }
        let answers = || self.ranks.values().filter_map(|rank| rank.answer.as_ref());
        let running: u64 = answers().map(|load| load.running).fold(0, u64::saturating_add);
        // Those that run are half-way, in the mean.
        let finished = (requests - running as f64 / 2.0).max(requests / 2.0);
        let slots = answers().map(|load| load.max_running).max();
        Some(Measured {
            rates,
            prompt_tokens: prompt_tokens / requests,
            computed_share: if prompt_tokens > 0.0 {
                (computed_tokens / prompt_tokens).min(1.0)
            } else {
                1.0
            },
            output_tokens: generated_tokens / finished,
            full_share: self.full.share(&rates),
            max_running: slots.or(self.remembered.map(|kept| kept.max_running as u64)).unwrap_or(1).max(1)
                as f64,
        })
    }

    /// The mean of the last times to Ready.
    fn start(&self) -> Option<f64> {
        let count = self.starts.len();
        (count > 0).then(|| self.starts.iter().sum::<f64>() / count as f64)
    }
}

impl Mix {
    fn fade(&mut self, factor: f64) {
        for sum in [
            &mut self.requests,
            &mut self.prompt_tokens,
            &mut self.computed_tokens,
            &mut self.generated_tokens,
        ] {
            *sum *= factor;
        }
    }
}

/// Less time says little.
const FULL_SECONDS: f64 = 10.0;

impl Full {
    fn take(&mut self, stretch: &Stretch, seconds: f64) {
        self.seconds += seconds.max(0.0);
        self.generated_tokens += stretch.counts[1];
        self.computed_tokens += stretch.counts[2];
    }

    fn fade(&mut self, factor: f64) {
        for sum in [&mut self.seconds, &mut self.computed_tokens, &mut self.generated_tokens] {
            *sum *= factor;
        }
    }

    fn share(&self, rates: &Rates) -> Option<f64> {
        let work = self.computed_tokens * rates.prompt + self.generated_tokens * rates.token;
        (self.seconds >= FULL_SECONDS).then(|| work / self.seconds)
    }
}

/// Whether a rank has more to do than it can: requests wait at it although routers hold others back, or more than a batch
/// takes in.
fn is_full(load: &RankLoad, held: bool) -> bool {
    load.waiting > 0 && (held || load.waiting >= load.running.max(4))
}

impl Measured {
    /// What a status kept.
    fn of(kept: &MeasuredStatus) -> Self {
        let positive = |value: i64| value.max(0) as f64;
        Self {
            rates: Rates {
                step: positive(kept.step_microseconds) * 1e-6,
                token: positive(kept.token_microseconds) * 1e-6,
                prompt: 1.0 / positive(kept.prefill_tokens_per_second).max(1.0),
            },
            prompt_tokens: positive(kept.prompt_tokens),
            computed_share: 1.0,
            output_tokens: positive(kept.output_tokens),
            full_share: None,
            max_running: positive(kept.max_running).max(1.0),
        }
    }
}

fn waiting_at_rank(load: &RankLoad) -> Arrived {
    Arrived { requests: load.waiting as f64, prompt_tokens: load.waiting_tokens as f64 }
}

fn waiting_at_router(load: &ModelLoad) -> Arrived {
    Arrived { requests: load.waiting as f64, prompt_tokens: load.waiting_tokens as f64 }
}

fn minus(arrived: Arrived) -> Arrived {
    Arrived { requests: -arrived.requests, prompt_tokens: -arrived.prompt_tokens }
}
