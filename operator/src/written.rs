//! What was written for a ModelDeployment and not seen yet.
//!
//! A plan made on a view that lacks our own last writes would do them again. So an object's next plan waits until the
//! watches show what its last one did. That no pod is made twice or the wrong one deleted does not depend on it: pods
//! are created by name and deleted by uid and resourceVersion.

use crate::book::Key;
use crate::observe::Observer;
use crate::watch::Mark;
use coterie_api::deployment::ModelDeployment;
use kube::runtime::reflector::ObjectRef;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// One write that a watch will show.
#[derive(Clone, Debug)]
pub enum Write {
    /// The status of the ModelDeployment.
    Status(Mark),
    /// A pod was created or annotated.
    Pod(Mark),
    /// A Service was applied.
    Service(Mark),
    /// A ConfigMap was created or applied.
    ConfigMap(Mark),
    /// A ConfigMap was deleted.
    ConfigMapDeletion {
        /// Namespace and name.
        key: Key,
        /// Which one of that name.
        uid: String,
    },
    /// A pod was asked to end.
    Deletion {
        /// Namespace and name.
        key: Key,
        /// Which pod of that name.
        uid: String,
    },
}

/// The writes that were not seen yet, by ModelDeployment.
#[derive(Debug, Default)]
pub struct Written {
    unseen: Mutex<HashMap<ObjectRef<ModelDeployment>, Unseen>>,
}

#[derive(Debug)]
struct Unseen {
    since: Instant,
    writes: Vec<Write>,
}

impl Written {
    /// Notes a write for `of`.
    pub fn note(&self, of: &ObjectRef<ModelDeployment>, write: Write) {
        let mut unseen = self.lock();
        let entry = unseen.entry(of.clone());
        let entry = entry.or_insert_with(|| Unseen { since: Instant::now(), writes: Vec::new() });
        entry.writes.push(write);
    }

    /// Since when something that was written for `of` is not seen; `None` when all is.
    pub fn unseen_since(&self, of: &ObjectRef<ModelDeployment>, observer: &Observer) -> Option<Instant> {
        let mut unseen = self.lock();
        let entry = unseen.get_mut(of)?;
        entry.writes.retain(|write| !observer.shows(write));
        if entry.writes.is_empty() {
            unseen.remove(of);
            return None;
        }
        Some(entry.since)
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, of: &ObjectRef<ModelDeployment>) {
        self.lock().remove(of);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef<ModelDeployment>, Unseen>> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
