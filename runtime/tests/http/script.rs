//! An engine that follows a script: a prompt that holds `say:TEXT` is answered with TEXT, a token a step.
//!
//! A request with a constraint gets the scripted token where that is allowed, elsewhere the first that is.
//!
//! `say:` up to the next structure token or the end of the prompt. `again:TEXT` says it for ever. `panic:` panics,
//! `fail:` fails that request alone. `wait:` before any of them delays every step by 20 ms, `shuffle:` leaves the request
//! out of some steps, which take 1 ms. A `#` in TEXT becomes the last digit of the seed, as many times as it says: choices differ.
//!
//! A request that comes with tokens goes on behind them.
//!
//! A prompt that came before in the same scope is in the cache, but for its last token.

use crate::model::{END, TURN};
use coterie_engine::{Event, Finish, Load, NoToken, Rejected, Request, RequestId, TokenLogprobs, TokenMask};
use coterie_runtime::engine_thread::TokenSource;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const CONTEXT: usize = 2000;
/// One more than the tokenizer's, as models have it.
pub const VOCABULARY: usize = 260;
pub const RUNNING: usize = 4;
pub const WAITING: usize = 4;
pub const WAITING_TOKENS: usize = 3000;

/// What happened in the engine, for tests to look at.
#[derive(Debug, Default)]
pub struct Seen {
    pub requests: Vec<Request>,
    pub cancelled: Vec<RequestId>,
    pub steps: u64,
    /// The first and the last step in which each request generated a token.
    pub spans: BTreeMap<RequestId, (u64, u64)>,
}

pub struct Script {
    pub seen: Arc<Mutex<Seen>>,
    next: u64,
    waiting: VecDeque<RequestId>,
    running: Vec<RequestId>,
    state: BTreeMap<RequestId, Progress>,
    cache: HashSet<(u64, Vec<u32>)>,
    load: Load,
}

struct Progress {
    request: Request,
    act: Act,
    started: bool,
    generated: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Act {
    Say,
    Again,
    Panic,
    Fail,
}

impl Script {
    pub fn new(seen: Arc<Mutex<Seen>>) -> Script {
        let (waiting, running, state) = (VecDeque::new(), Vec::new(), BTreeMap::new());
        Script { seen, next: 0, waiting, running, state, cache: HashSet::new(), load: Load::default() }
    }

    fn waiting_tokens(&self) -> usize {
        self.waiting.iter().map(|id| self.state[id].request.prompt.len()).sum()
    }

    fn generate(&mut self, id: RequestId, events: &mut Vec<Event>) -> bool {
        let progress = self.state.get_mut(&id).unwrap();
        let Progress { request, act, started, generated } = progress;
        match act {
            Act::Panic => panic!("the script says so"),
            Act::Fail => {
                events.push(Event::Failed { id, why: NoToken::NotNumbers });
                return true;
            }
            Act::Say | Act::Again => {}
        }
        if !std::mem::replace(started, true) {
            let new = self.cache.insert((request.cache_scope, request.prompt.clone()));
            let cached_tokens = if new { 0 } else { request.prompt.len() - 1 };
            events.push(Event::Started { id, cached_tokens });
            self.load.scheduled.prompt_tokens += request.prompt.len() as u64;
            self.load.scheduled.started += 1;
            self.load.scheduled.started_tokens += request.prompt.len() as u64;
            if let Some(top) = request.prompt_logprobs.filter(|_| *generated == 0) {
                let nothing_more = request.max_tokens == 0;
                let score = |(at, token): (usize, &u32)| (at > 0).then(|| scored(*token, top));
                let logprobs = request.prompt.iter().enumerate().map(score).collect();
                let finish = nothing_more.then_some(Finish::Length);
                events.push(Event::Prompt { id, logprobs, finish });
                if nothing_more {
                    return true;
                }
            }
        }
        let lines = spoken(request);
        let wished = match act {
            Act::Again if !lines.is_empty() => lines[*generated % lines.len()],
            _ => lines.get(*generated).copied().unwrap_or(END),
        };
        let token = match constrained(request, wished) {
            Ok(token) => token,
            Err(why) => {
                events.push(Event::Failed { id, why });
                return true;
            }
        };
        *generated += 1;
        let mut seen = self.seen.lock().unwrap();
        let now = seen.steps;
        seen.spans.entry(id).or_insert((now, now)).1 = now;
        drop(seen);
        self.load.generated_tokens += 1;
        let finish = if request.stop_tokens.contains(&token) {
            Some(Finish::Stop)
        } else if *generated >= request.max_tokens {
            Some(Finish::Length)
        } else {
            None
        };
        events.push(Event::Token {
            id,
            token,
            logprobs: request.top_logprobs.map(|top| scored(token, top)),
            finish,
        });
        finish.is_some()
    }
}

fn says(request: &Request, word: &str) -> bool {
    let word: Vec<u32> = word.bytes().map(u32::from).collect();
    request.prompt.windows(word.len()).any(|window| window == word)
}

/// A coin that falls the same way each time.
fn chance(step: u64, id: RequestId) -> bool {
    let mixed = ((step << 32) | id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 63 == 1
}

/// The token that comes where `wished` should.
fn constrained(request: &mut Request, wished: u32) -> Result<u32, NoToken> {
    let Some(constraint) = &mut request.constraint else { return Ok(wished) };
    let mut mask = TokenMask::default();
    mask.reset(VOCABULARY);
    constraint.allow(&mut mask).map_err(NoToken::Constraint)?;
    let first = || (0..VOCABULARY as u32).find(|token| mask.allows(*token)).ok_or(NoToken::NothingAllowed);
    let token = if mask.allows(wished) { wished } else { first()? };
    if !request.stop_tokens.contains(&token) {
        constraint.accept(token).map_err(NoToken::Constraint)?;
    }
    Ok(token)
}

/// What the prompt asks to say.
fn spoken(request: &Request) -> Vec<u32> {
    let prompt = &request.prompt;
    let digit = request.sampling.seed % 10;
    let after = |word: &str| {
        let word: Vec<u32> = word.bytes().map(u32::from).collect();
        prompt.windows(word.len()).rposition(|window| window == word).map(|at| &prompt[at + word.len()..])
    };
    let line = after("say:").or_else(|| after("again:")).unwrap_or(&[]);
    let said = line.iter().copied().take_while(|token| *token < TURN);
    said.flat_map(|token| match token == u32::from(b'#') {
        true => vec![u32::from(b'0') + digit as u32; digit as usize],
        false => vec![token],
    })
    .collect()
}

fn scored(token: u32, top: usize) -> TokenLogprobs {
    let top = (0..top as u32).map(|rank| (token.wrapping_add(rank) % 256, -0.25 - rank as f32)).collect();
    TokenLogprobs { token, logprob: -0.25, top }
}

impl TokenSource for Script {
    fn submit(&mut self, request: Request) -> Result<RequestId, Rejected> {
        let (prompt, max_tokens) = (request.prompt.len(), request.max_tokens);
        if prompt == 0 {
            return Err(Rejected::EmptyPrompt);
        }
        if let Some(token) = request.prompt.iter().find(|token| **token as usize >= VOCABULARY) {
            return Err(Rejected::UnknownToken { token: *token, vocabulary: VOCABULARY });
        }
        if prompt + max_tokens > CONTEXT {
            return Err(Rejected::TooLong { prompt, max_tokens, context: CONTEXT });
        }
        if self.waiting.len() >= WAITING {
            return Err(Rejected::QueueFull { waiting: self.waiting.len(), limit: WAITING });
        }
        let waiting = self.waiting_tokens();
        if waiting > 0 && waiting + prompt > WAITING_TOKENS {
            return Err(Rejected::TokensFull { waiting, limit: WAITING_TOKENS });
        }
        let text: Vec<u8> = request.prompt.iter().map(|token| *token as u8).collect();
        let text = String::from_utf8_lossy(&text);
        let act = [("panic:", Act::Panic), ("fail:", Act::Fail), ("again:", Act::Again)];
        let act = act.into_iter().find(|(word, _)| text.contains(word)).map_or(Act::Say, |(_, act)| act);
        let id = RequestId(self.next);
        self.next += 1;
        self.seen.lock().unwrap().requests.push(request.clone());
        let generated = request.generated.len();
        self.state.insert(id, Progress { request, act, started: false, generated });
        self.waiting.push_back(id);
        Ok(id)
    }

    fn cancel(&mut self, id: RequestId) {
        self.waiting.retain(|waiting| *waiting != id);
        self.running.retain(|running| *running != id);
        self.state.remove(&id);
        self.seen.lock().unwrap().cancelled.push(id);
    }

    fn step(&mut self, events: &mut Vec<Event>) {
        self.seen.lock().unwrap().steps += 1;
        while self.running.len() < RUNNING {
            let Some(id) = self.waiting.pop_front() else { break };
            self.running.push(id);
        }
        if self.state.values().any(|progress| says(&progress.request, "wait:")) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.state.values().any(|progress| says(&progress.request, "shuffle:")) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let steps = self.seen.lock().unwrap().steps;
        for id in self.running.clone() {
            if says(&self.state[&id].request, "shuffle:") && chance(steps, id) {
                continue;
            }
            if self.generate(id, events) {
                self.running.retain(|running| *running != id);
                self.state.remove(&id);
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.state.is_empty()
    }

    fn load_now(&self) -> Load {
        let used = self.running.len() as f32 / RUNNING as f32;
        Load {
            waiting: self.waiting.len(),
            waiting_tokens: self.waiting_tokens(),
            running: self.running.len(),
            kv_usage: used,
            ..self.load
        }
    }

    fn max_running(&self) -> usize {
        RUNNING
    }

    fn context_length(&self) -> usize {
        CONTEXT
    }

    fn vocabulary(&self) -> usize {
        VOCABULARY
    }

    fn stop_tokens(&self) -> &[u32] {
        &[END]
    }
}
