//! Replicas behind a front door, in virtual time.
//!
//! The front door gives each request to the ready replica where it would find the least work, and holds it while none
//! has room. Of those it holds, the first goes that has waited for less than half of the time to a first token, and each
//! sixteenth time the first of all (`runtime/src/route/lane/line.rs`). All policies have the same one.

use super::outcome::{Outcome, Second};
use super::replica::{Event, Replica, Request, Speed};
use super::scalers::Autoscaler;
use super::trace::{Arrival, Trace};
use std::collections::VecDeque;

/// Seconds between two looks of the front door at what it holds.
const LOOK: f64 = 0.05;
/// While requests are late and others are not, one of so many that get a replica is the one that has waited for longest.
const LATE_TURN: u64 = 16;
/// Looks of a second.
const LOOKS: u64 = 20;
/// Seconds after the last arrival in which no replica did a step, after which what is not answered never will be. The time
/// that a replica takes to come is added.
const STUCK: f64 = 600.0;
/// Seconds after the last arrival for which a replay goes on in any case, and at most.
const LAST_WAIT: f64 = 6.0 * 3600.0;
const LAST_WAIT_LIMIT: f64 = 7.0 * 86_400.0;

/// What does not depend on the policy.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Of every replica.
    pub speed: Speed,
    /// Seconds from the making of a replica to Ready.
    pub cold_start: f64,
    /// Seconds in which a first token is to be there.
    pub ttft: f64,
    /// Replicas at the beginning, ready.
    pub start: usize,
    /// Fewest replicas.
    pub least: usize,
    /// Most replicas.
    pub most: usize,
}

/// What a policy may look at.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Seconds since the trace began.
    pub now: f64,
    /// Those that are draining too.
    pub replicas: &'a [Replica],
    /// Requests that the front door holds.
    pub held: usize,
    /// Their prompt tokens.
    pub held_tokens: f64,
    /// How many requests there were, at the front door and in replicas, at each second so far.
    pub in_flight: &'a [usize],
    /// Requests that came so far.
    pub arrived: usize,
}

impl Seen<'_> {
    /// Replicas that stay.
    pub fn kept(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| !replica.draining)
    }

    /// How many stay, ready or not.
    pub fn current(&self) -> usize {
        self.kept().count()
    }

    /// How many of them are ready.
    pub fn ready(&self) -> usize {
        self.kept().filter(|replica| replica.ready <= self.now).count()
    }

    /// Requests now.
    pub fn requests(&self) -> usize {
        self.in_flight.last().copied().unwrap_or(0)
    }

    /// The mean number of requests in the last `seconds`.
    pub fn mean_requests(&self, seconds: usize) -> f64 {
        let from = self.in_flight.len().saturating_sub(seconds.max(1));
        let window = &self.in_flight[from..];
        window.iter().sum::<usize>() as f64 / window.len().max(1) as f64
    }
}

/// Replays the trace, and goes on with the same clock of decisions until the last request is answered, or as long as
/// one may be hoped for: [`Outcome::unanswered`] says how many were not.
pub fn replay(trace: &Trace, setting: &Setting, scaler: &mut dyn Autoscaler) -> Outcome {
    let mut fleet = Fleet::new(setting, trace);
    let mut look = 0_u64;
    loop {
        let now = look as f64 * LOOK;
        fleet.arrive(trace, now);
        fleet.advance(now);
        let over = fleet.arrived == trace.arrivals.len();
        if over && (fleet.unanswered == 0 || fleet.is_hopeless(trace, now)) {
            return fleet.outcome;
        }
        if look.is_multiple_of(LOOKS) {
            fleet.each_second(now, look / LOOKS, scaler);
        }
        fleet.dispatch(trace, now);
        look += if fleet.is_still(trace, now) { LOOKS - look % LOOKS } else { 1 };
    }
}

struct Fleet<'a> {
    setting: &'a Setting,
    replicas: Vec<Replica>,
    made: u64,
    held: VecDeque<Request>,
    held_tokens: f64,
    /// Requests that got a replica before late ones.
    overtook: u64,
    arrived: usize,
    unanswered: usize,
    in_flight: Vec<usize>,
    /// Seconds after the last arrival after which what is not answered never will be.
    last_wait: f64,
    /// When a step of a replica was last seen to end.
    worked: f64,
    outcome: Outcome,
}

impl<'a> Fleet<'a> {
    fn new(setting: &'a Setting, trace: &Trace) -> Self {
        let mut fleet = Self {
            setting,
            replicas: Vec::new(),
            made: 0,
            held: VecDeque::new(),
            held_tokens: 0.0,
            overtook: 0,
            arrived: 0,
            unanswered: 0,
            in_flight: Vec::new(),
            last_wait: (2.0 * longest(trace, setting.speed)).clamp(LAST_WAIT, LAST_WAIT_LIMIT),
            worked: 0.0,
            outcome: Outcome::new(trace),
        };
        (0..setting.start.clamp(setting.least, setting.most)).for_each(|_| fleet.make(0.0, 0.0));
        fleet
    }

    fn make(&mut self, now: f64, cold_start: f64) {
        self.replicas.push(Replica::new(self.made, now, now + cold_start, self.setting.speed));
        self.made += 1;
    }

    /// Takes what has come until now.
    fn arrive(&mut self, trace: &Trace, now: f64) {
        while let Some(arrival) = trace.arrivals.get(self.arrived).filter(|arrival| arrival.at <= now) {
            let prompt = arrival.prompt_tokens as f64;
            self.held.push_back(Request { index: self.arrived, prompt, output: arrival.output_tokens });
            self.held_tokens += prompt;
            self.arrived += 1;
            self.unanswered += 1;
        }
    }

    /// Computes what the replicas do until now; those that are drained go.
    fn advance(&mut self, now: f64) {
        let (outcome, unanswered) = (&mut self.outcome, &mut self.unanswered);
        for replica in &mut self.replicas {
            let steps = replica.steps();
            replica.advance(now, |event| {
                *unanswered -= usize::from(matches!(event, Event::Last(..)));
                outcome.tell(event);
            });
            if replica.steps() > steps {
                self.worked = now;
            }
        }
        self.replicas.retain(|replica| !replica.draining || replica.in_flight() > 0);
    }

    fn dispatch(&mut self, trace: &Trace, now: f64) {
        while let Some(next) = self.next(trace, now) {
            let request = self.held[next];
            let free = self.replicas.iter_mut().filter(|it| !it.draining && it.ready <= now && it.has_room());
            let Some(replica) = free.min_by(|a, b| a.expected_wait().total_cmp(&b.expected_wait())) else {
                return;
            };
            // What came since the last look has not waited for it.
            replica.take(request, trace.arrivals[request.index].at.max(now - LOOK));
            self.overtook = if next == 0 { 0 } else { self.overtook + 1 };
            self.held.remove(next);
            self.held_tokens -= request.prompt;
        }
        self.held_tokens = 0.0;
    }

    /// The place of the request that is next, of those that are held.
    fn next(&self, trace: &Trace, now: f64) -> Option<usize> {
        let in_time = |request: &Request| now - trace.arrivals[request.index].at < self.setting.ttft / 2.0;
        let first = self.held.iter().position(in_time).filter(|_| self.overtook + 1 < LATE_TURN);
        first.or((!self.held.is_empty()).then_some(0))
    }

    /// Counts, and lets the policy decide.
    fn each_second(&mut self, now: f64, second: u64, scaler: &mut dyn Autoscaler) {
        self.in_flight.push(self.unanswered);
        let seen = Seen {
            now,
            replicas: &self.replicas,
            held: self.held.len(),
            held_tokens: self.held_tokens,
            in_flight: &self.in_flight,
            arrived: self.arrived,
        };
        let current = seen.current();
        if second.is_multiple_of(scaler.every()) {
            let wanted = scaler.decide(&seen).clamp(self.setting.least, self.setting.most);
            if wanted != current {
                self.outcome.decisions += 1;
            }
            (current..wanted).for_each(|_| self.make(now, self.setting.cold_start));
            (wanted..current).for_each(|_| self.drop_one(now));
        }
        self.outcome.seconds.push(Second { held: self.replicas.len(), requests: self.unanswered });
    }

    /// The newest that is not ready, else the emptiest.
    fn drop_one(&mut self, now: f64) {
        let kept = || self.replicas.iter().enumerate().filter(|(_, replica)| !replica.draining);
        let coming =
            kept().filter(|(_, it)| it.ready > now).max_by(|(_, a), (_, b)| a.ready.total_cmp(&b.ready));
        if let Some((at, _)) = coming {
            self.replicas.remove(at);
        } else if let Some((at, _)) = kept().min_by_key(|(_, replica)| replica.in_flight()) {
            self.replicas[at].draining = true;
        }
    }

    /// Whether there is nothing to give to a replica before the next second.
    fn is_still(&self, trace: &Trace, now: f64) -> bool {
        let next = trace.arrivals.get(self.arrived).map_or(f64::INFINITY, |arrival| arrival.at);
        self.held.is_empty() && next > now + 1.0
    }

    /// Whether what is not answered when all has come never will be: nobody works on it, or for ever.
    fn is_hopeless(&self, trace: &Trace, now: f64) -> bool {
        let last = trace.seconds() + self.setting.cold_start;
        now > last + self.last_wait || now > last.max(self.worked + self.setting.cold_start) + STUCK
    }
}

/// Seconds that the longest request takes on a replica of its own.
fn longest(trace: &Trace, speed: Speed) -> f64 {
    let alone = |arrival: &Arrival| {
        arrival.prompt_tokens as f64 * (speed.prompt + speed.step / speed.chunk)
            + arrival.output_tokens as f64 * (speed.step + speed.token)
    };
    trace.arrivals.iter().map(alone).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::scalers::fixed::Fixed;

    /// One request of ten million tokens, by one replica.
    fn unanswered(step: f64) -> (usize, f64) {
        let arrivals = vec![Arrival { at: 0.0, prompt_tokens: 1000, output_tokens: 10_000_000 }];
        let trace = Trace::new("long".into(), arrivals).unwrap();
        let speed = Speed { step, token: 0.0003, prompt: 1.0 / 8000.0, slots: 64, chunk: 256.0, itl: 0.05 };
        let setting = Setting { speed, cold_start: 30.0, ttft: 2.0, start: 1, least: 1, most: 1 };
        let outcome = replay(&trace, &setting, &mut Fixed(1));
        (outcome.unanswered(), outcome.replica_hours())
    }

    #[test]
    fn a_replay_ends_with_the_last_answer_however_long_it_takes() {
        let (unanswered, hours) = unanswered(0.01);
        assert_eq!(unanswered, 0);
        assert!((hours - 10_000_000.0 * 0.0103 / 3600.0).abs() < 0.1, "{hours}");
    }

    #[test]
    fn an_answer_that_takes_years_is_not_waited_for_and_counted() {
        let (unanswered, hours) = unanswered(60.0);
        assert_eq!(unanswered, 1);
        assert!((hours - 7.0 * 24.0).abs() < 0.1, "{hours}");
    }
}
