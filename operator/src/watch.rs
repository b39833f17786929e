//! One watch, and how far it has come.

use crate::error::chain;
use crate::health::Health;
use futures::{StreamExt, TryStreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far a watch has come, so that the operator can wait until it sees its own writes.
///
/// A watch delivers a kind's changes in the order of their resourceVersions (comparable as integers since
/// Kubernetes 1.35, and on etcd always), and a list that begins after a write contains it.
#[derive(Debug, Default)]
pub struct Progress {
    version: AtomicU64,
    lists_begun: AtomicU64,
    lists_done: tokio::sync::watch::Sender<u64>,
}

/// A point that a watch will reach: a write of ours.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    version: u64,
    lists_begun: u64,
}

impl Progress {
    /// The point at which the watch has seen the write that made `resource_version`; taken after the write.
    pub fn mark(&self, resource_version: Option<&str>) -> Mark {
        let version = resource_version.and_then(|version| version.parse().ok()).unwrap_or(0);
        Mark { version, lists_begun: self.lists_begun.load(Ordering::SeqCst) }
    }

    /// Whether everything up to `mark` has been taken.
    pub fn has_reached(&self, mark: &Mark) -> bool {
        self.version.load(Ordering::SeqCst) >= mark.version || *self.lists_done.borrow() > mark.lists_begun
    }

    /// Returns when everything was listed once.
    pub async fn first_list(&self) {
        // An error means that the sender is gone, and it is in `self`.
        let _ = self.lists_done.subscribe().wait_for(|done| *done > 0).await;
    }

    fn reach(&self, point: &Point) {
        match point {
            Point::ListBegins => {
                self.lists_begun.fetch_add(1, Ordering::SeqCst);
            }
            Point::ListDone => {
                self.lists_done.send_replace(self.lists_begun.load(Ordering::SeqCst));
            }
            Point::Version(version) => {
                self.version.fetch_max(*version, Ordering::SeqCst);
            }
            Point::Listing => {}
        }
    }
}

/// What an event says about how far the watch has come.
enum Point {
    ListBegins,
    Listing,
    ListDone,
    Version(u64),
}

impl Point {
    fn of<K: Resource>(event: &Event<K>) -> Self {
        match event {
            Event::Init => Point::ListBegins,
            Event::InitApply(_) => Point::Listing,
            Event::InitDone => Point::ListDone,
            Event::Apply(object) | Event::Delete(object) => {
                let version = object.meta().resource_version.as_deref().and_then(|text| text.parse().ok());
                Point::Version(version.unwrap_or(0))
            }
        }
    }
}

/// Watches what of `api` has the label `label`, or all, until dropped. `take` gets every event, in order; only then `progress` is moved on.
pub async fn follow<K>(
    api: Api<K>,
    label: Option<&str>,
    part: &'static str,
    progress: Arc<Progress>,
    health: Arc<Health>,
    mut take: impl FnMut(Event<K>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = label.map_or_else(Config::default, |label| Config::default().labels(label));
    let events = watcher(api, config).inspect_err(|error| {
        let error = chain(error);
        tracing::warn!(error, part, "a watch failed and is tried again");
        health.failed(part, error);
    });
    let mut events = pin!(events.default_backoff());
    while let Some(event) = events.next().await {
        let Ok(event) = event else { continue };
        tracing::trace!(part, %event, "seen");
        let point = Point::of(&event);
        take(event);
        progress.reach(&point);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use kube::api::ObjectMeta;

    fn pod(version: &str) -> Pod {
        let metadata = ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() };
        Pod { metadata, ..Pod::default() }
    }

    #[test]
    fn a_write_is_seen_when_its_version_or_a_later_one_came() {
        let progress = Progress::default();
        let mark = progress.mark(Some("9"));
        progress.reach(&Point::of(&Event::Apply(pod("8"))));
        assert!(!progress.has_reached(&mark));
        progress.reach(&Point::of(&Event::Delete(pod("10"))));
        assert!(progress.has_reached(&mark), "versions compare as numbers, and a later deletion counts");
    }

    #[test]
    fn a_write_is_seen_when_a_list_that_began_after_it_is_done() {
        let progress = Progress::default();
        progress.reach(&Point::of(&Event::<Pod>::Init));
        let mark = progress.mark(Some("9"));
        progress.reach(&Point::of(&Event::<Pod>::InitDone));
        assert!(!progress.has_reached(&mark), "that list may have been made before the write");
        progress.reach(&Point::of(&Event::<Pod>::Init));
        progress.reach(&Point::of(&Event::InitApply(pod("7"))));
        assert!(!progress.has_reached(&mark), "the list is not in the store yet");
        progress.reach(&Point::of(&Event::<Pod>::InitDone));
        assert!(progress.has_reached(&mark));
    }
}
