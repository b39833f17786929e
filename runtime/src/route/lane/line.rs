//! What waits, in the order in which it is served: higher priorities first, and within one priority every caller its
//! share of tokens, by deficit round robin (Shreedhar and Varghese, 1995): each round gives every caller one token of
//! credit, and a request leaves when its caller's credit pays for it. All rounds until then are made at once.
//!
//! Of one caller's requests the first that is not late is served, so that in a crowd those who can still be served in time
//! are, in place of nobody; each [`LATE_TURN`]th time it is the first of all, so that the late ones are served, too.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What can wait.
pub trait Waits {
    /// Its number: none has it but this.
    fn id(&self) -> u64;
    /// What it costs, tokens.
    fn cost(&self) -> u64;
    /// Bytes that it holds.
    fn bytes(&self) -> usize;
}

/// While requests are late and others are not, one of so many that leave is the one that has waited for longest.
const LATE_TURN: u64 = 16;

/// A line of `T`.
#[derive(Debug)]
pub struct Line<T> {
    /// By priority; none is empty.
    classes: BTreeMap<Reverse<i32>, VecDeque<Caller<T>>>,
    len: usize,
    bytes: usize,
}

/// A caller with requests that wait; the first in its class has the turn.
#[derive(Debug)]
struct Caller<T> {
    name: Arc<str>,
    credit: u64,
    waiting: VecDeque<T>,
    /// Requests that left before late ones.
    overtook: u64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Line { classes: BTreeMap::new(), len: 0, bytes: 0 }
    }
}

impl<T: Waits> Line<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that they hold.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All that wait.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.classes.values().flatten().flat_map(|caller| &caller.waiting)
    }

    /// `request` of `caller` waits; behind the caller's others, or before them if its turn had already come once.
    pub fn push(&mut self, caller: &Arc<str>, priority: i32, request: T, before: bool) {
        self.len += 1;
        self.bytes += request.bytes();
        let class = self.classes.entry(Reverse(priority)).or_default();
        let at = class.iter().position(|other| other.name == *caller).unwrap_or_else(|| {
            class.push_back(Caller {
                name: caller.clone(),
                credit: 0,
                waiting: VecDeque::new(),
                overtook: 0,
            });
            class.len() - 1
        });
        if before {
            // It has paid already.
            class[at].credit = class[at].credit.saturating_add(request.cost());
            class[at].waiting.push_front(request);
        } else {
            class[at].waiting.push_back(request);
        }
    }

    /// Whose turn it is, where `late` says who is late. It stays so until it is taken, something else comes, or it is late.
    pub fn first(&mut self, late: impl Fn(&T) -> bool) -> Option<&T> {
        let class = self.classes.values_mut().next()?;
        let rounds: Vec<u64> = class.iter().map(|caller| caller.missing(&late)).collect();
        let least = rounds.iter().copied().min()?;
        let at = rounds.iter().position(|rounds| *rounds == least)?;
        class.iter_mut().for_each(|caller| caller.credit = caller.credit.saturating_add(least));
        class.rotate_left(at);
        let caller = class.front()?;
        caller.waiting.get(caller.next(&late))
    }

    /// Takes the one whose turn it is.
    pub fn pop(&mut self, late: impl Fn(&T) -> bool) -> Option<T> {
        self.first(&late)?;
        let mut class = self.classes.first_entry()?;
        let mut caller = class.get_mut().pop_front()?;
        let at = caller.next(&late);
        caller.overtook = if at == 0 { 0 } else { caller.overtook + 1 };
        let request = caller.waiting.remove(at);
        if let Some(request) = &request {
            caller.credit = caller.credit.saturating_sub(request.cost());
            self.len -= 1;
            self.bytes -= request.bytes();
        }
        // Whoever can pay for the next goes on; whoever cannot gives the turn away. Without a request there is no credit.
        match caller.missing(&late) {
            _ if caller.waiting.is_empty() => {}
            0 => class.get_mut().push_front(caller),
            _ => class.get_mut().push_back(caller),
        }
        if class.get().is_empty() {
            class.remove();
        }
        request
    }

    /// The request with this number waits no longer.
    pub fn remove(&mut self, id: u64) {
        for class in self.classes.values_mut() {
            for caller in class.iter_mut() {
                if let Some(at) = caller.waiting.iter().position(|request| request.id() == id)
                    && let Some(request) = caller.waiting.remove(at)
                {
                    self.len -= 1;
                    self.bytes -= request.bytes();
                }
            }
            class.retain(|caller| !caller.waiting.is_empty());
        }
        self.classes.retain(|_, class| !class.is_empty());
    }

    /// Takes all.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        let all = std::mem::take(self);
        all.classes.into_values().flatten().flat_map(|caller| caller.waiting)
    }
}

impl<T: Waits> Caller<T> {
    /// The place of its next request.
    fn next(&self, late: impl Fn(&T) -> bool) -> usize {
        match self.overtook + 1 < LATE_TURN {
            true => self.waiting.iter().position(|request| !late(request)).unwrap_or(0),
            false => 0,
        }
    }

    /// Tokens of credit that its next request still needs.
    fn missing(&self, late: impl Fn(&T) -> bool) -> u64 {
        self.waiting.get(self.next(late)).map_or(0, Waits::cost).saturating_sub(self.credit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Asked(u64, u64);

    impl Waits for Asked {
        fn id(&self) -> u64 {
            self.0
        }
        fn cost(&self) -> u64 {
            self.1
        }
        fn bytes(&self) -> usize {
            10
        }
    }

    fn served(line: &mut Line<Asked>) -> Vec<u64> {
        std::iter::from_fn(|| line.pop(|_| false)).map(|asked| asked.0).collect()
    }

    #[test]
    fn who_is_late_lets_those_in_time_pass_and_has_every_sixteenth_turn() {
        let (mut line, me) = (Line::default(), Arc::from("me"));
        (0..40).for_each(|id| line.push(&me, 0, Asked(id, 1), false));
        let late = |asked: &Asked| asked.0 < 3;
        let served: Vec<u64> = std::iter::from_fn(|| line.pop(late)).map(|asked| asked.0).collect();
        let expected = (3..18).chain([0]).chain(18..33).chain([1]).chain(33..40).chain([2]);
        assert_eq!(served, expected.collect::<Vec<_>>());
    }

    #[test]
    fn where_all_are_late_it_is_as_where_none_is() {
        let (mut line, me) = (Line::default(), Arc::from("me"));
        (0..40).for_each(|id| line.push(&me, 0, Asked(id, 1), false));
        let served: Vec<u64> = std::iter::from_fn(|| line.pop(|_| true)).map(|asked| asked.0).collect();
        assert_eq!(served, (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn one_caller_is_served_in_order() {
        let (mut line, me) = (Line::default(), Arc::from("me"));
        (0..4).for_each(|id| line.push(&me, 0, Asked(id, 1000), false));
        assert_eq!(line.first(|_| false).cloned(), Some(Asked(0, 1000)));
        line.push(&me, 0, Asked(9, 1000), true);
        line.remove(2);
        assert_eq!((line.len(), line.bytes()), (4, 40));
        assert_eq!(served(&mut line), [9, 0, 1, 3]);
        assert_eq!((line.len(), line.bytes(), line.classes.len()), (0, 0, 0));
    }

    #[test]
    fn priority_comes_first() {
        let (mut line, a, b) = (Line::default(), Arc::from("a"), Arc::from("b"));
        line.push(&a, 0, Asked(1, 1), false);
        line.push(&b, 5, Asked(2, 9999), false);
        line.push(&a, 5, Asked(3, 9999), false);
        assert_eq!(served(&mut line), [2, 3, 1]);
    }

    #[test]
    fn a_flood_does_not_delay_who_asks_little() {
        let (mut line, flood, quiet) = (Line::default(), Arc::from("flood"), Arc::from("quiet"));
        (0..100).for_each(|id| line.push(&flood, 0, Asked(id, 1000), false));
        line.pop(|_| false);
        line.push(&quiet, 0, Asked(500, 1000), false);
        let order = served(&mut line);
        assert!(order.iter().position(|id| *id == 500).unwrap() <= 2, "{order:?}");
    }

    proptest! {
        /// While callers have requests waiting, none gets ahead of another by more than a request of each.
        #[test]
        fn callers_get_equal_shares_of_tokens(costs in prop::collection::vec(prop::collection::vec(1u64..5000, 60), 2..5)) {
            let mut line = Line::default();
            let names: Vec<Arc<str>> = (0..costs.len()).map(|caller| Arc::from(caller.to_string())).collect();
            for (caller, costs) in costs.iter().enumerate() {
                for (number, cost) in costs.iter().enumerate() {
                    line.push(&names[caller], 0, Asked((caller * 1000 + number) as u64, *cost), false);
                }
            }
            let mut got = vec![0u64; costs.len()];
            let mut left = vec![60; costs.len()];
            while left.iter().all(|left| *left > 0) {
                let Asked(id, cost) = line.pop(|_| false).unwrap();
                let caller = (id / 1000) as usize;
                got[caller] += cost;
                left[caller] -= 1;
                let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
                prop_assert!(most - least <= 2 * 5000, "{got:?}");
            }
        }

        #[test]
        fn nothing_is_lost_or_served_twice(pushes in prop::collection::vec((0u8..4, 0i32..3, 0u64..9000, any::<bool>()), 0..50), removed in 0u64..60) {
            let mut line = Line::default();
            for (id, (caller, priority, cost, before)) in pushes.iter().enumerate() {
                line.push(&Arc::from(caller.to_string()), *priority, Asked(id as u64, *cost), *before);
            }
            line.remove(removed);
            let mut order = served(&mut line);
            order.sort();
            prop_assert_eq!(order, (0..pushes.len() as u64).filter(|id| *id != removed).collect::<Vec<_>>());
            prop_assert!(line.is_empty() && line.bytes() == 0);
        }
    }
}
