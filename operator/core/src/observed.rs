//! The snapshot that [`crate::plan`] may look at, and how Kubernetes' objects are reduced to it.
//!
//! The shell fills an [`Observed`] for one ModelDeployment:
//! - `pods`: [`ObservedPod::from`] of every pod in its namespace that [`ObservedPod::is_owned_by`] its uid;
//! - `taken_names`: names of the other pods in that namespace;
//! - `nodes`: [`observe_nodes`] of all nodes and of the [`PodUse`] of all pods in the cluster;
//! - `claim`: if the spec names a PersistentVolumeClaim, [`ClaimState::of`] what a look-up gave;
//! - `services`: [`ObservedService::of`] the two names of [`crate::objects::service_names`], those that exist;
//! - `experts`: [`ObservedExperts::of`] every ConfigMap in that namespace with the label of the ModelDeployment;
//! - `certificates`: [`ObservedCertificates::of`] the Secret of [`crate::objects::exchange_tls_name`], if there may be
//!   several ranks;
//! - `occupancy`: what ranks told of their load in the last seconds;
//! - `reports`: what the ranks of several reported last, and `loads`: what a [`LoadGauge`] made of it;
//! - `decision`: what [`crate::plan::replicas::Scaler`] decided, if the spec has `scaling`;
//! - `status`: the status of the object as read, or the default.

mod certificates;
mod experts;
mod load;
mod node;
mod occupancy;
mod pod;
pub mod quantity;

pub use certificates::{ObservedCertificates, Validity};
pub(crate) use experts::version_of;
pub use experts::{ExpertLoad, Moved, ObservedExperts, RankReport};
pub use load::LoadGauge;
pub use node::{Free, ObservedNode, PodUse, observe_nodes};
pub use occupancy::Occupancy;
pub use pod::{ObservedPod, Phase, Role, TerminationSeen, Waiting};

use crate::plan::replicas::Decision;
use coterie_api::deployment::{ModelDeploymentStatus, PullPolicy};
use coterie_api::launch::Device;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Everything that a plan depends on beside the spec and the time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Pods of this ModelDeployment, terminating ones too.
    pub pods: Vec<ObservedPod>,
    /// Names of pods in the same namespace that are not ours; a new pod avoids them.
    pub taken_names: BTreeSet<String>,
    /// All nodes.
    pub nodes: Vec<ObservedNode>,
    /// The claim that the source names; `None` when the source is no claim.
    pub claim: Option<ClaimState>,
    /// Those of our Services' names that exist.
    pub services: Vec<ObservedService>,
    /// ConfigMaps with expert maps.
    pub experts: Vec<ObservedExperts>,
    /// The certificates of the exchange.
    pub certificates: ObservedCertificates,
    /// The last reports of ranks that answer, by the uid of their pods.
    pub reports: BTreeMap<String, RankReport>,
    /// What ranks told last of the requests that they have, by the uid of their pods.
    pub occupancy: BTreeMap<String, Occupancy>,
    /// What the scaler decided, if there is one.
    pub decision: Option<Arc<Decision>>,
    /// What was asked of experts last, by the number of the replica.
    pub loads: BTreeMap<u32, Arc<ExpertLoad>>,
    /// What was last written.
    pub status: ModelDeploymentStatus,
    /// What this operator was started with.
    pub settings: Settings,
}

/// What the operator was started with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Image of the runtime (`coterie`).
    pub runtime_image: String,
    /// The one that has machine code for GPUs, too, if there is one.
    pub gpu_runtime_image: Option<String>,
    /// When nodes pull it; Kubernetes' default when absent.
    pub image_pull_policy: Option<PullPolicy>,
    /// How long a certificate of the exchange is valid.
    pub certificate_life: SignedDuration,
    /// How long the load on experts is counted before it is told.
    pub load_window: SignedDuration,
}

impl Settings {
    /// Image of the ranks that compute on `device`; none if there is no such image.
    pub fn image_for(&self, device: Device) -> Option<&str> {
        match device {
            Device::Cpu => Some(&self.runtime_image),
            Device::Gpu => self.gpu_runtime_image.as_deref(),
        }
    }
}

/// State of a PersistentVolumeClaim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// There is none of that name.
    Missing,
    /// No volume yet; some classes wait for the first pod.
    Unbound,
    /// It has its volume.
    Bound,
}

impl ClaimState {
    /// From what a look-up by name gave.
    pub fn of(claim: Option<&PersistentVolumeClaim>) -> Self {
        match claim {
            None => ClaimState::Missing,
            Some(claim) => {
                let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
                if phase == Some("Bound") { ClaimState::Bound } else { ClaimState::Unbound }
            }
        }
    }
}

/// A Service that has one of our names.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedService {
    /// Its name.
    pub name: String,
    /// Whether the ModelDeployment controls it.
    pub owned: bool,
    /// As it is now; of one that is not ours, only its metadata counts.
    pub object: Service,
}

impl ObservedService {
    /// Of a Service; `uid` is the ModelDeployment's.
    pub fn of(object: Service, uid: &str) -> Self {
        let metadata = &object.metadata;
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            owned: pod::controller_uid(metadata) == Some(uid),
            object,
        }
    }
}
