//! What is kept of the objects that are seen; all else would only fill the memory.

use coterie_api::deployment::ModelDeployment;
use coterie_api::name::{GROUP, LABEL_DEPLOYMENT, PORT_METRICS};
use coterie_operator_core::observed::{ObservedPod, PodUse};
use k8s_openapi::api::core::v1::{ConfigMap, Node, NodeSpec, NodeStatus, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use std::sync::Arc;

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSeen {
    /// What it takes from its node.
    pub uses: PodUse,
    /// Only of pods that belong to a ModelDeployment.
    pub own: Option<Arc<OwnPod>>,
    /// Only of routers that run.
    pub router: Option<Arc<Router>>,
}

/// One of the front door's pods.
#[derive(Debug, PartialEq)]
pub struct Router {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its IP address.
    pub address: String,
    /// Its port of metrics.
    pub port: u16,
    /// It was asked to end. What waits there still waits.
    pub leaving: bool,
}

/// One of our pods.
#[derive(Debug, PartialEq)]
pub struct OwnPod {
    /// Name of the ModelDeployment.
    pub deployment: String,
    /// What plans depend on.
    pub pod: ObservedPod,
}

impl PodSeen {
    /// Reduces a pod.
    pub fn of(pod: &Pod) -> Self {
        let own = owner(&pod.metadata).map(|deployment| {
            Arc::new(OwnPod { deployment: deployment.to_owned(), pod: ObservedPod::from(pod) })
        });
        Self { uses: PodUse::from(pod), own, router: router(pod).map(Arc::new) }
    }
}

/// By its labels, as the chart gives them; in which namespace it is, whoever asks has to look.
fn router(pod: &Pod) -> Option<Router> {
    let labels = pod.metadata.labels.as_ref()?;
    let has = |key: &str, value: &str| labels.get(key).is_some_and(|there| there == value);
    let status = pod.status.as_ref()?;
    let runs = status.phase.as_deref() == Some("Running");
    if !has("app.kubernetes.io/name", "coterie") || !has("app.kubernetes.io/component", "front-door") || !runs
    {
        return None;
    }
    let containers = pod.spec.as_ref()?.containers.iter();
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let port = ports.find(|port| port.name.as_deref() == Some(PORT_METRICS))?.container_port;
    Some(Router {
        name: pod.metadata.name.clone()?,
        uid: pod.metadata.uid.clone()?,
        address: status.pod_ip.clone()?,
        port: u16::try_from(port).ok()?,
        leaving: pod.metadata.deletion_timestamp.is_some(),
    })
}

/// Name of the ModelDeployment that controls the object with this metadata.
fn owner(metadata: &ObjectMeta) -> Option<&str> {
    let owners = metadata.owner_references.as_ref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    let ours = owner.kind == ModelDeployment::kind(&()) && owner.api_version.split('/').next() == Some(GROUP);
    ours.then_some(owner.name.as_str())
}

/// Keeps labels, taints and what there is for pods; drops what changes with every heartbeat.
pub fn strip_node(node: Node) -> Node {
    let spec = node.spec.unwrap_or_default();
    let status = node.status.unwrap_or_default();
    Node {
        metadata: ObjectMeta {
            name: node.metadata.name,
            labels: node.metadata.labels,
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: spec.taints,
            unschedulable: spec.unschedulable,
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus { allocatable: status.allocatable, ..NodeStatus::default() }),
    }
}

/// Keeps whose it is and, if it is a ModelDeployment's, what somebody may have changed by hand.
pub fn strip_service(service: Service) -> Service {
    let is_own = owner(&service.metadata).is_some();
    let metadata = ObjectMeta {
        name: service.metadata.name,
        labels: service.metadata.labels.filter(|_| is_own),
        annotations: service.metadata.annotations.filter(|_| is_own),
        owner_references: service.metadata.owner_references,
        ..ObjectMeta::default()
    };
    Service { metadata, spec: service.spec.filter(|_| is_own), status: None }
}

/// Drops what only the API server needs.
pub fn strip_config_map(mut map: ConfigMap) -> ConfigMap {
    map.metadata.managed_fields = None;
    map
}

/// The ModelDeployment that a ConfigMap says to be of.
pub fn labelled(map: &ConfigMap) -> Option<&String> {
    map.metadata.labels.as_ref()?.get(LABEL_DEPLOYMENT)
}
