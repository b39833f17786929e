//! Replicas as they are seen: the live pods of one number and one revision.

use crate::observed::{Observed, ObservedPod};
use std::collections::BTreeMap;

/// One replica, or what is left of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica<'a> {
    /// Its number; absent if somebody took that label away.
    pub number: Option<u32>,
    /// What it was made from.
    pub revision: &'a str,
    /// Its live pods, by rank; at least one.
    pub pods: Vec<&'a ObservedPod>,
}

impl<'a> Replica<'a> {
    /// The pod of a rank, if it is alive.
    pub fn rank(&self, rank: u32) -> Option<&'a ObservedPod> {
        self.pods.iter().copied().find(|pod| pod.rank_or_only() == rank)
    }

    /// Ranks that are ready.
    pub fn ready_ranks(&self) -> usize {
        self.pods.iter().filter(|pod| pod.ready).count()
    }

    /// Whether all of its `width` ranks are ready.
    pub fn is_complete(&self, width: u32) -> bool {
        (0..width).all(|rank| self.rank(rank).is_some_and(|pod| pod.ready))
    }

    /// Requests that its ranks have, as far as they told.
    pub fn requests(&self, observed: &Observed) -> u64 {
        let told = self.pods.iter().filter_map(|pod| observed.occupancy.get(&pod.uid));
        told.fold(0, |sum: u64, told| sum.saturating_add(told.requests))
    }

    /// Those of its `width` ranks that have no live pod.
    pub fn missing(&self, width: u32) -> Vec<u32> {
        (0..width).filter(|rank| self.rank(*rank).is_none()).collect()
    }

    /// Pods beyond `width` ranks.
    pub fn surplus(&self, width: u32) -> impl Iterator<Item = &'a ObservedPod> {
        self.pods.iter().copied().filter(move |pod| pod.rank_or_only() >= width)
    }
}

/// Live pods as replicas, in the order of their first pods.
pub fn replicas<'a>(pods: &[&'a ObservedPod]) -> Vec<Replica<'a>> {
    let mut found: Vec<Replica> = Vec::new();
    let mut known = BTreeMap::new();
    for pod in pods.iter().copied() {
        // A pod without a number is a replica of its own.
        let unnumbered = if pod.replica.is_none() { pod.name.as_str() } else { "" };
        let at = *known.entry((pod.replica, pod.revision.as_str(), unnumbered)).or_insert(found.len());
        match found.get_mut(at) {
            Some(replica) => replica.pods.push(pod),
            None => found.push(Replica { number: pod.replica, revision: &pod.revision, pods: vec![pod] }),
        }
    }
    for replica in &mut found {
        replica.pods.sort_by_key(|pod| pod.rank_or_only());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(replica: Option<u32>, rank: Option<u32>, revision: &str, ready: bool) -> ObservedPod {
        ObservedPod {
            name: format!("{replica:?}-{rank:?}"),
            replica,
            rank,
            revision: revision.into(),
            ready,
            ..Default::default()
        }
    }

    #[test]
    fn pods_of_one_number_and_revision_are_one_replica() {
        let pods = [
            pod(Some(1), Some(1), "a", false),
            pod(Some(0), None, "b", true),
            pod(Some(1), Some(0), "a", true),
            pod(Some(1), Some(0), "b", true),
            pod(None, None, "a", true),
            pod(None, Some(0), "a", true),
        ];
        let pods: Vec<&ObservedPod> = pods.iter().collect();
        let found = replicas(&pods);
        let shape = |replica: &Replica| (replica.number, replica.revision.to_owned(), replica.pods.len());
        let shapes: Vec<_> = found.iter().map(shape).collect();
        let expected =
            [(Some(1), "a", 2), (Some(0), "b", 1), (Some(1), "b", 1), (None, "a", 1), (None, "a", 1)];
        assert_eq!(shapes, expected.map(|(number, revision, pods)| (number, revision.to_owned(), pods)));
        let replica = &found[0];
        assert_eq!((replica.ready_ranks(), replica.missing(3)), (1, vec![2]));
        assert!(replica.is_complete(1) && !replica.is_complete(2));
        assert_eq!(replica.surplus(1).map(|pod| pod.rank).collect::<Vec<_>>(), [Some(1)]);
        assert!(found[1].is_complete(1), "the only rank has no number");
    }
}
