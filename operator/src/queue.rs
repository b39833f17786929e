//! Which ModelDeployments to look at again, and when.

use coterie_api::condition::PLACED;
use coterie_api::deployment::ModelDeployment;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use kube::runtime::reflector::{ObjectRef, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// Changes that come together are looked at together.
const TOGETHER: Duration = Duration::from_millis(100);
/// A busy cluster makes everybody who waits look again only this often.
const APART: Duration = Duration::from_secs(2);

/// The requests' end of the queue.
pub type Requests = UnboundedReceiver<ObjectRef<ModelDeployment>>;

/// Where the watches put what they saw.
#[derive(Clone, Debug)]
pub struct Queue {
    requests: UnboundedSender<ObjectRef<ModelDeployment>>,
    room: Arc<Notify>,
    nodes: Arc<Notify>,
}

impl Queue {
    /// A queue and its other end.
    pub fn new() -> (Self, Requests) {
        let (requests, receiver) = unbounded();
        (Self { requests, room: Arc::default(), nodes: Arc::default() }, receiver)
    }

    /// Look at this one now.
    pub fn one(&self, namespace: &str, name: &str) {
        // The other end is only gone when the operator ends.
        let _ = self.requests.unbounded_send(ObjectRef::new(name).within(namespace));
    }

    /// Look at all of them now: something was listed anew.
    pub fn all(&self, deployments: &Store<ModelDeployment>) {
        self.those(deployments, |_| true);
    }

    /// Some pod came, went, or was placed: those that wait for room may find it.
    pub fn room_changed(&self) {
        self.room.notify_one();
    }

    /// Some node came, went, or changed: what fits may be something else now.
    pub fn nodes_changed(&self) {
        self.nodes.notify_one();
    }

    /// Turns changes of the cluster into requests, many changes into one; runs until dropped.
    pub async fn run(&self, deployments: Store<ModelDeployment>) {
        loop {
            let nodes = tokio::select! {
                () = self.nodes.notified() => true,
                () = self.room.notified() => false,
            };
            sleep(TOGETHER).await;
            self.those(&deployments, |deployment| nodes || waits_for_room(deployment));
            sleep(APART - TOGETHER).await;
        }
    }

    fn those(&self, deployments: &Store<ModelDeployment>, which: impl Fn(&ModelDeployment) -> bool) {
        for deployment in deployments.state_filter(which) {
            let _ = self.requests.unbounded_send(ObjectRef::from_obj(&*deployment));
        }
    }
}

fn waits_for_room(deployment: &ModelDeployment) -> bool {
    let conditions =
        deployment.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    !conditions.iter().any(|condition| condition.type_ == PLACED && condition.status == "True")
}
