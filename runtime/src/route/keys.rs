//! Who asks, and whether they may. Without keys everybody is the same caller and may ask for anything.

mod meter;
mod rules;

pub use meter::Bucket;
use rules::position;
use rules::read;
pub use rules::{Allowance, KeyRule};

use crate::server::ApiError;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How often the folder is looked at. The kubelet brings a Secret's changes within a minute or so.
const EVERY: Duration = Duration::from_secs(2);

/// Every caller.
#[derive(Debug)]
pub struct Keys {
    /// None where no keys are asked for.
    callers: Option<RwLock<Arc<Vec<Known>>>>,
    anybody: Arc<Caller>,
}

#[derive(Debug)]
struct Known {
    rule: KeyRule,
    caller: Arc<Caller>,
}

/// One caller, and what it has taken.
#[derive(Debug)]
pub struct Caller {
    /// The name of its key; empty where there are none.
    pub name: Arc<str>,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    allowance: Allowance,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    running: u64,
}

/// One request of a caller. It counts as running until it is dropped.
#[derive(Debug)]
pub struct Permit {
    caller: Arc<Caller>,
    /// Tokens of its prompt that were taken when it came.
    estimated: u64,
}

impl Keys {
    /// Nobody is asked for a key.
    pub fn open() -> Keys {
        Keys { callers: None, anybody: Caller::new("", Allowance::default()) }
    }

    /// Only who has one of these keys may ask.
    pub fn only(rules: Vec<KeyRule>) -> Keys {
        let keys = Keys { callers: Some(RwLock::default()), ..Keys::open() };
        keys.set(rules);
        keys
    }

    /// These are the keys from now on. Who keeps its name keeps what it has taken.
    pub fn set(&self, rules: Vec<KeyRule>) {
        let Some(callers) = &self.callers else { return };
        let mut callers = callers.write().unwrap_or_else(PoisonError::into_inner);
        let known = rules.into_iter().map(|rule| {
            let before = callers.iter().find(|known| *known.caller.name == *rule.name);
            let caller = match before {
                Some(known) => {
                    known.caller.allow(rule.allowance);
                    known.caller.clone()
                }
                None => Caller::new(&rule.name, rule.allowance),
            };
            Known { rule, caller }
        });
        *callers = Arc::new(known.collect());
    }

    /// Whose request has these headers.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Arc<Caller>, ApiError> {
        let Some(callers) = &self.callers else { return Ok(self.anybody.clone()) };
        let callers = callers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = sent
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, key) = key.ok_or_else(ApiError::no_key)?;
        let at = position(callers.iter().map(|known| &known.rule.hash), key.trim());
        at.map(|at| callers[at].caller.clone()).ok_or_else(ApiError::wrong_key)
    }
}

impl Caller {
    fn new(name: &str, allowance: Allowance) -> Arc<Caller> {
        let taken = Taken { allowance: Allowance::default(), requests: None, tokens: None, running: 0 };
        let caller = Caller { name: name.into(), taken: Mutex::new(taken) };
        caller.allow(allowance);
        Arc::new(caller)
    }

    /// Its priority.
    pub fn priority(&self) -> i32 {
        self.lock().allowance.priority
    }

    /// A request comes whose prompt has about `prompt_tokens` tokens.
    pub(super) fn admit(self: &Arc<Self>, prompt_tokens: u64) -> Result<Permit, ApiError> {
        let now = Instant::now();
        let mut taken = self.lock();
        let Taken { allowance, requests, tokens, running } = &mut *taken;
        if let Some(most) = allowance.concurrency
            && *running >= most
        {
            let limit = format!("a concurrency of {most}");
            return Err(ApiError::caller_at_limit(&limit, Duration::from_secs(1)));
        }
        let may = |bucket: &mut Option<Bucket>, amount, limit: Option<u64>, what: &str| {
            let after = bucket.as_mut().and_then(|bucket| bucket.has(amount, now).err());
            let limit = limit.unwrap_or_default();
            after.map_or(Ok(()), |after| {
                Err(ApiError::caller_at_limit(&format!("{limit} {what} a minute"), after))
            })
        };
        may(requests, 1, allowance.requests_per_minute, "requests")?;
        may(tokens, prompt_tokens, allowance.tokens_per_minute, "tokens")?;
        requests.iter_mut().for_each(|bucket| bucket.take(1));
        tokens.iter_mut().for_each(|bucket| bucket.take(prompt_tokens));
        *running += 1;
        Ok(Permit { caller: self.clone(), estimated: prompt_tokens })
    }

    fn allow(&self, allowance: Allowance) {
        let now = Instant::now();
        let mut taken = self.lock();
        let follow = |bucket: &mut Option<Bucket>, limit: Option<u64>| match (bucket.as_mut(), limit) {
            (Some(bucket), Some(limit)) => bucket.limit(limit, now),
            (_, limit) => *bucket = limit.map(|limit| Bucket::full(limit, now)),
        };
        follow(&mut taken.requests, allowance.requests_per_minute);
        follow(&mut taken.tokens, allowance.tokens_per_minute);
        taken.allowance = allowance;
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The name of the caller's key.
    pub fn name(&self) -> &Arc<str> {
        &self.caller.name
    }

    /// It is over: its prompt had so many tokens, if the answer told, and so many were generated. What that is beyond the
    /// estimate is owed; what the estimate was too much comes back.
    pub fn settle(&self, prompt: Option<u64>, generated: u64) {
        let took = prompt.unwrap_or(self.estimated).saturating_add(generated);
        self.caller.lock().tokens.iter_mut().for_each(|bucket| bucket.correct(self.estimated, took));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.caller.lock();
        taken.running = taken.running.saturating_sub(1);
    }
}

/// The keys in a folder, and what was told of those that do not count.
pub fn begin(folder: &Path) -> Result<(Keys, Vec<String>), String> {
    let (rules, troubles) = read(folder)?;
    warn(&troubles, &[]);
    tracing::info!(keys = rules.len(), "API keys are asked for");
    Ok((Keys::only(rules), troubles))
}

/// Keeps `keys` as the folder says, until dropped; of what is wrong with it, this was `told` already. While it cannot be
/// read, they stay as they were.
pub async fn follow(folder: &Path, keys: &Keys, mut told: Vec<String>) -> Infallible {
    loop {
        sleep(EVERY).await;
        let troubles = match read(folder) {
            Ok((rules, troubles)) => {
                keys.set(rules);
                troubles
            }
            Err(trouble) => vec![trouble],
        };
        warn(&troubles, &told);
        told = troubles;
    }
}

fn warn(troubles: &[String], told: &[String]) {
    for trouble in troubles.iter().filter(|trouble| !told.contains(*trouble)) {
        tracing::warn!(trouble, "an API key does not count");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use ring::digest::{SHA256, digest};

    fn rule(name: &str, key: &str, allowance: Allowance) -> KeyRule {
        let hash = digest(&SHA256, key.as_bytes()).as_ref().try_into().unwrap();
        KeyRule { name: name.into(), hash, allowance }
    }

    fn with(value: &str) -> HeaderMap {
        [(AUTHORIZATION, HeaderValue::from_str(value).unwrap())].into_iter().collect()
    }

    #[test]
    fn a_caller_is_known_by_its_key_alone() {
        let keys =
            Keys::only(vec![rule("a", "one", Allowance::default()), rule("b", "two", Allowance::default())]);
        assert_eq!(&*keys.caller(&with("Bearer two")).unwrap().name, "b");
        for wrong in ["Bearer three", "Basic two", "two", "Bearer ", "Bearer 2"] {
            assert_eq!(keys.caller(&with(wrong)).unwrap_err().status(), 401, "{wrong}");
        }
        assert_eq!(keys.caller(&HeaderMap::new()).unwrap_err().status(), 401);
        assert!(Keys::only(vec![]).caller(&with("Bearer one")).is_err(), "no key is not every key");
        assert_eq!(&*Keys::open().caller(&HeaderMap::new()).unwrap().name, "");
    }

    #[test]
    fn each_limit_is_its_callers_own() {
        for (allowance, prompt) in [
            (Allowance { concurrency: Some(1), ..Allowance::default() }, 1),
            (Allowance { requests_per_minute: Some(1), ..Allowance::default() }, 1),
            (Allowance { tokens_per_minute: Some(100), ..Allowance::default() }, 60),
        ] {
            let keys = Keys::only(vec![rule("a", "one", allowance), rule("b", "two", allowance)]);
            let caller = |key: &str| keys.caller(&with(&format!("Bearer {key}"))).unwrap();
            let first = caller("one").admit(prompt).unwrap();
            let refused = caller("one").admit(prompt).unwrap_err();
            assert_eq!((refused.status(), refused.name()), (429, "rate_limit_exceeded"), "{allowance:?}");
            assert!(caller("two").admit(prompt).is_ok());
            drop(first);
            assert_eq!(caller("one").admit(prompt).is_ok(), allowance.concurrency.is_some());
        }
    }

    #[test]
    fn an_estimate_is_settled_by_what_the_answer_tells() {
        let allowance = Allowance { tokens_per_minute: Some(1000), ..Allowance::default() };
        let keys = Keys::only(vec![rule("a", "one", allowance)]);
        let caller = || keys.caller(&with("Bearer one")).unwrap();
        caller().admit(900).unwrap().settle(Some(100), 0);
        caller().admit(890).unwrap().settle(Some(10), 0);
        caller().admit(100).unwrap().settle(Some(1500), 390);
        let refused = caller().admit(1).unwrap_err();
        assert_eq!(refused.status(), 429, "1000 are owed");
    }

    #[test]
    fn generated_tokens_count_and_stay_counted_when_keys_are_read_anew() {
        let allowance = Allowance { tokens_per_minute: Some(1000), ..Allowance::default() };
        let keys = Keys::only(vec![rule("a", "one", allowance)]);
        let caller = || keys.caller(&with("Bearer one")).unwrap();
        caller().admit(10).unwrap().settle(None, 5000);
        assert!(caller().admit(1).is_err());
        keys.set(vec![rule("a", "one", Allowance { priority: 3, ..allowance })]);
        assert!(caller().admit(1).is_err());
        assert_eq!(caller().priority(), 3);
        keys.set(vec![]);
        assert!(keys.caller(&with("Bearer one")).is_err());
    }
}
