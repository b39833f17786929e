//! One rank as a lane knows it: what it reported, what was sent to it since, and whether it can be sent to at all.

use crate::route::choice::{Pace, View};
use crate::route::prefix::RankId;
use coterie_api::rank_load::RankLoad;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often ranks are asked for their load.
pub const POLL: Duration = Duration::from_millis(500);
/// How often, while requests wait for room.
pub const POLL_WHILE_WAITING: Duration = Duration::from_millis(100);
/// Seconds of prompts that wait in a rank at most before it gets one more: as many as keep it busy until it is asked again. All
/// others wait where any rank can take them, and where who can still be served in time goes first.
const PROMPTS: f64 = 0.2;
/// Requests that a rank may have here before it has answered at all. It is asked as soon as it is found, so the line waits
/// for milliseconds, and is then given out by what each rank can use.
const UNHEARD_ROOM: u64 = 1;
/// Requests that a rank may have here that lives, but does not tell how many it runs at once.
const UNTOLD_ROOM: u64 = 64;
/// A pace that was not seen for so long is forgotten: a rank that was slow once, and gets nothing for that, could not
/// show otherwise.
const FORGET: Duration = Duration::from_secs(5);
/// A rank that says for so long that it has nothing, while requests from here are with it, has lost them. Longer than a
/// request may be prepared before the engine knows it (a grammar's compilation, the splitting of ten MiB of text).
const LOST: Duration = Duration::from_secs(60);
/// Weight of the newest stretch of time in a rank's pace.
const NEWEST: f64 = 0.3;

/// One rank.
#[derive(Debug)]
pub struct Rank {
    pub id: RankId,
    /// `host:port`.
    pub address: Arc<str>,
    /// It has a ready endpoint. One that has none gets nothing new, but its answers go on.
    pub listed: bool,
    /// Choices that are with it through this lane.
    pub own: u64,
    /// It has answered to the question for its load, with one or without.
    heard: bool,
    load: Option<RankLoad>,
    reported: Instant,
    /// `own` when it reported, and prompt tokens sent to it since.
    own_then: u64,
    sent_tokens: u64,
    /// Seconds of prompts that it had yet to compute at a time, by its pace.
    prompts: (f64, Instant),
    /// Nothing is sent to it until it reports again: it could not be reached, or refused.
    shunned: bool,
    pace: Pace,
    /// When it last did something.
    paced: Instant,
    /// Since when it says that it has nothing, although requests from here are with it.
    denies: Option<Instant>,
    /// Since when it answers nothing at all.
    silent: watch::Sender<Option<Instant>>,
}

impl Rank {
    pub fn new(id: RankId, address: &str, now: Instant) -> Rank {
        Rank {
            id,
            address: address.into(),
            listed: true,
            own: 0,
            heard: false,
            load: None,
            reported: now,
            own_then: 0,
            sent_tokens: 0,
            prompts: (0.0, now),
            shunned: false,
            pace: Pace::default(),
            paced: now,
            denies: None,
            silent: watch::Sender::new(None),
        }
    }

    /// Since when it answers nothing at all, for those who wait for it.
    pub fn silent(&self) -> watch::Receiver<Option<Instant>> {
        self.silent.subscribe()
    }

    /// It answered to the question for its load. True if it is another process than before, which has seen nothing.
    pub fn report(&mut self, load: RankLoad, now: Instant) -> bool {
        let restarted = self.load.as_ref().is_some_and(|before| before.since != load.since);
        match &self.load {
            Some(before) if !restarted => {
                let elapsed = now.saturating_duration_since(self.reported);
                if load.steps > before.steps {
                    self.pace = pace(self.pace, before, &load, elapsed);
                    self.paced = now;
                } else if now.saturating_duration_since(self.paced) > FORGET {
                    self.pace = Pace::default();
                }
            }
            _ => self.pace = Pace::default(),
        }
        let denies = self.own > 0 && self.own_then > 0 && load.running + load.waiting == 0;
        let moved = self.load.as_ref().is_none_or(|before| before.requests != load.requests);
        self.denies = self.denies.filter(|_| !moved).or(Some(now)).filter(|_| denies);
        self.prompts = (load.uncomputed_tokens() as f64 * self.pace.prompt_token.unwrap_or(0.0), now);
        self.load = Some(load);
        match self.denies.filter(|since| now.saturating_duration_since(*since) >= LOST) {
            Some(_) => self.did_not_answer(now),
            None => self.answered(now),
        }
        restarted
    }

    /// It lives but reports no load.
    pub fn answered(&mut self, now: Instant) {
        self.heard = true;
        self.reported = now;
        self.own_then = self.own;
        self.sent_tokens = 0;
        self.shunned = false;
        self.silent.send_if_modified(|since| since.take().is_some());
    }

    /// It did not answer to the question for its load.
    pub fn did_not_answer(&mut self, now: Instant) {
        self.shunned = true;
        self.silent.send_if_modified(|since| {
            let first = since.is_none();
            since.get_or_insert(now);
            first
        });
    }

    /// It refused a request, or could not be reached.
    pub fn shun(&mut self) {
        self.shunned = true;
    }

    /// A request of so many choices is sent to it, with so many prompt tokens to compute.
    pub fn send(&mut self, choices: u64, tokens: u64, now: Instant) {
        self.own += choices;
        self.sent_tokens += tokens;
        self.prompts = (self.prompts(now) + tokens as f64 * self.pace.prompt_token.unwrap_or(0.0), now);
    }

    /// Seconds of prompts that it has yet to compute, if it has computed them all the time since it reported.
    fn prompts(&self, now: Instant) -> f64 {
        let (seconds, at) = self.prompts;
        (seconds - now.saturating_duration_since(at).as_secs_f64()).max(0.0)
    }

    /// Such a request is done.
    pub fn done(&mut self, choices: u64, tokens: u64) {
        self.own = self.own.saturating_sub(choices);
        self.sent_tokens = self.sent_tokens.saturating_sub(tokens);
    }

    /// Whether it takes requests, room or not.
    pub fn serves(&self) -> bool {
        let ready = self.load.as_ref().is_none_or(|load| load.ready && !load.draining);
        self.listed && ready && !self.shunned
    }

    /// Whether a further request would be computed soon. A few may wait there, so that a place in its batch that
    /// becomes free is taken at once; all others wait here, where any rank can still take them.
    pub fn has_room(&self, now: Instant) -> bool {
        if !self.serves() || self.prompts(now) >= PROMPTS {
            return false;
        }
        let Some(load) = self.load.as_ref().filter(|load| load.max_running > 0) else {
            return self.own < self.untold_room();
        };
        let spare = (load.max_running / 4).max(1);
        let sent = self.own.saturating_sub(self.own_then);
        // Requests may wait although the batch has places: then the KV cache is full.
        let crammed = load.waiting > 0 && load.waiting + sent >= spare;
        !crammed && self.requests() < load.max_running + spare
    }

    fn untold_room(&self) -> u64 {
        if self.heard { UNTOLD_ROOM } else { UNHEARD_ROOM }
    }

    /// Requests that it has, whoever sent them: others' as of its last report, ours as of now.
    fn requests(&self) -> u64 {
        let reported = self.load.as_ref().map_or(0, |load| load.waiting + load.running);
        reported.saturating_sub(self.own_then) + self.own
    }

    /// As it can be judged now for a prompt of which it has seen `cached_tokens`.
    pub fn view(&self, cached_tokens: u64, now: Instant) -> View {
        let load = self.load.as_ref();
        View {
            requests: self.requests(),
            max_running: load.map_or_else(|| self.untold_room(), |load| load.max_running),
            waiting_tokens: load.map_or(0, RankLoad::uncomputed_tokens) + self.sent_tokens,
            cached_tokens,
            overdue: now.saturating_duration_since(self.reported).saturating_sub(2 * POLL),
            pace: self.pace,
        }
    }
}

/// How fast a rank is after a stretch of time between two reports.
fn pace(before: Pace, old: &RankLoad, new: &RankLoad, elapsed: Duration) -> Pace {
    let busy = (new.busy_seconds - old.busy_seconds).max(0.0);
    let steps = new.steps.saturating_sub(old.steps) as f64;
    let prompt = new.computed_tokens.saturating_sub(old.computed_tokens) as f64;
    let begun = new.requests.saturating_sub(old.requests) as f64;
    let mut pace = before;
    if steps > 0.0 && prompt == 0.0 {
        pace.step = mixed(before.step, busy / steps);
    }
    if prompt > 0.0 {
        let decoding = steps * before.step.unwrap_or(0.0);
        pace.prompt_token = mixed(before.prompt_token, (busy - decoding).max(0.1 * busy) / prompt);
    }
    let full = |load: &RankLoad| load.running >= load.max_running && load.waiting > 0;
    if begun > 0.0 && full(old) && full(new) {
        pace.turn = mixed(before.turn, elapsed.as_secs_f64() / begun);
    }
    pace
}

fn mixed(before: Option<f64>, newest: f64) -> Option<f64> {
    Some(before.map_or(newest, |before| before + NEWEST * (newest - before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> RankLoad {
        RankLoad { since: 1, ready: true, max_running: 4, ..RankLoad::default() }
    }

    fn rank() -> Rank {
        let mut rank = Rank::new(1, "a:1", Instant::now());
        rank.report(load(), Instant::now());
        rank
    }

    #[test]
    fn own_requests_count_at_once_and_those_of_others_as_they_are_reported() {
        let mut rank = rank();
        rank.send(2, 10, Instant::now());
        assert_eq!(rank.view(0, Instant::now()).requests, 2);
        rank.report(RankLoad { running: 3, waiting_tokens: 7, ..load() }, Instant::now());
        let view = rank.view(0, Instant::now());
        assert_eq!((view.requests, view.waiting_tokens), (3, 7), "two of the three are ours");
        rank.done(2, 10);
        assert_eq!(rank.view(0, Instant::now()).requests, 1);
    }

    #[test]
    fn a_batch_takes_its_requests_and_a_few_more() {
        let mut rank = rank();
        let sent = (0..100)
            .take_while(|_| rank.has_room(Instant::now()).then(|| rank.send(1, 1, Instant::now())).is_some())
            .count();
        assert_eq!(sent, 5);
        rank.done(1, 1);
        assert!(rank.has_room(Instant::now()));
    }

    #[test]
    fn a_rank_that_has_not_answered_yet_gets_one_request() {
        let sent = |rank: &mut Rank| {
            (0..100)
                .take_while(|_| {
                    rank.has_room(Instant::now()).then(|| rank.send(1, 1, Instant::now())).is_some()
                })
                .count()
        };
        let mut rank = Rank::new(1, "a:1", Instant::now());
        assert_eq!(sent(&mut rank), 1);
        rank.did_not_answer(Instant::now());
        assert_eq!(sent(&mut rank), 0);
        rank.report(load(), Instant::now());
        assert_eq!(sent(&mut rank), 4, "a batch and a quarter, with the first");

        let mut silent_about_it = Rank::new(2, "b:1", Instant::now());
        silent_about_it.answered(Instant::now());
        assert_eq!(sent(&mut silent_about_it) as u64, UNTOLD_ROOM);
    }

    #[test]
    fn prompts_that_take_too_long_wait_elsewhere() {
        let (mut rank, start) = (rank(), Instant::now());
        let computed = RankLoad { steps: 10, busy_seconds: 1.0, computed_tokens: 1000, ..load() };
        rank.report(computed.clone(), start);
        rank.send(1, 190, start);
        assert!(rank.has_room(start), "0.19 s at a millisecond each");
        rank.send(1, 20, start);
        assert!(!rank.has_room(start), "0.21 s");
        assert!(rank.has_room(start + Duration::from_millis(11)), "it computes them");
        rank.report(RankLoad { prefilling_tokens: 5000, running: 2, ..computed.clone() }, start);
        assert!(!rank.has_room(start), "somebody else sent more");
        rank.report(RankLoad { waiting_tokens: 0, running: 2, ..computed }, start);
        rank.send(1, 100_000, start);
        assert!(!rank.has_room(start));
        rank.report(load(), start + FORGET * 2);
        assert!(rank.has_room(start + FORGET * 2), "another process, whose pace nobody knows");
    }

    #[test]
    fn requests_of_another_router_take_room() {
        let mut rank = rank();
        rank.report(RankLoad { running: 4, ..load() }, Instant::now());
        rank.send(1, 1, Instant::now());
        assert!(
            !rank.has_room(Instant::now()),
            "four of another's and one of ours are a batch and a quarter"
        );
    }

    #[test]
    fn what_waits_in_a_batch_with_places_waits_for_memory() {
        let mut rank = rank();
        rank.report(RankLoad { running: 2, waiting: 1, ..load() }, Instant::now());
        assert!(!rank.has_room(Instant::now()));
    }

    #[test]
    fn a_rank_that_drains_loads_or_refused_gets_nothing() {
        for change in [RankLoad { draining: true, ..load() }, RankLoad { ready: false, ..load() }] {
            let mut rank = rank();
            rank.report(change, Instant::now());
            assert!(!rank.has_room(Instant::now()));
        }
        let mut rank = rank();
        rank.shun();
        assert!(!rank.has_room(Instant::now()));
        rank.report(load(), Instant::now());
        assert!(rank.has_room(Instant::now()), "it answers again");
        rank.listed = false;
        assert!(!rank.has_room(Instant::now()));
    }

    #[test]
    fn silence_begins_once_and_ends_with_an_answer() {
        let mut rank = rank();
        let silent = rank.silent();
        let first = Instant::now();
        rank.did_not_answer(first);
        rank.did_not_answer(first + POLL);
        assert_eq!(*silent.borrow(), Some(first));
        rank.answered(first + 2 * POLL);
        assert_eq!(*silent.borrow(), None);
    }

    #[test]
    fn requests_that_a_rank_knows_nothing_of_are_lost_there() {
        let (mut rank, start) = (rank(), Instant::now());
        let silent = rank.silent();
        rank.send(1, 10, Instant::now());
        rank.report(load(), start);
        rank.report(load(), start + LOST);
        assert_eq!(*silent.borrow(), None, "it has had time to get it only since the last report");
        rank.report(load(), start + LOST * 2 - Duration::from_secs(1));
        assert!(rank.serves());
        rank.report(load(), start + LOST * 2);
        assert!(silent.borrow().is_some() && !rank.serves());

        // They were sent again, elsewhere.
        rank.done(1, 10);
        rank.report(load(), start + LOST * 3);
        assert!(silent.borrow().is_none() && rank.serves());
        rank.send(1, 10, Instant::now());
        for seconds in 0..300 {
            let report = RankLoad { requests: seconds / 50, ..load() };
            rank.report(report, start + LOST * 4 + Duration::from_secs(seconds));
            assert!(rank.serves(), "short requests come and go between two reports");
        }
    }

    #[test]
    fn a_pace_that_was_not_seen_for_long_is_forgotten() {
        let (mut rank, start) = (rank(), Instant::now());
        let slow = RankLoad { steps: 1, busy_seconds: 9.0, ..load() };
        rank.report(slow.clone(), start);
        assert_eq!(rank.view(0, start).pace.step, Some(9.0));
        rank.report(slow.clone(), start + FORGET / 2);
        assert_eq!(rank.view(0, start).pace.step, Some(9.0));
        rank.report(slow, start + FORGET * 2);
        assert_eq!(rank.view(0, start).pace, Pace::default());
    }

    #[test]
    fn pace_is_learnt_from_what_was_done() {
        let step = Duration::from_millis(500);
        let old = load();
        let decoded = RankLoad { steps: 10, busy_seconds: 0.2, generated_tokens: 10, ..load() };
        let slow = pace(Pace::default(), &old, &decoded, step);
        assert_eq!((slow.step, slow.prompt_token), (Some(0.02), None));
        let prefilled = RankLoad { steps: 20, busy_seconds: 0.6, computed_tokens: 100, ..decoded };
        let both = pace(slow, &decoded, &prefilled, step);
        assert!((both.prompt_token.unwrap() - 0.002).abs() < 1e-9, "{both:?}");
        assert_eq!(both.step, slow.step);
        let full = RankLoad { running: 4, waiting: 2, ..load() };
        let later = RankLoad { requests: 5, ..full.clone() };
        assert_eq!(pace(both, &full, &later, step).turn, Some(0.1));
    }
}
