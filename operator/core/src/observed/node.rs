//! What nodes have and what of it is free.

use super::quantity;
use coterie_api::name;
use k8s_openapi::api::core::v1::{Container, Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// One node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedNode {
    /// Its name.
    pub name: String,
    /// What it has for pods.
    pub allocatable: Free,
    /// What no pod has requested.
    pub free: Free,
    /// Memory of one of its GPUs, bytes; 0 where no label tells it.
    pub gpu_memory: u64,
    /// Not cordoned.
    pub schedulable: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
}

/// Amounts of what ranks ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Free {
    /// Memory, bytes.
    pub memory: u64,
    /// CPU, thousandths of a core.
    pub cpu: u64,
    /// NVIDIA GPUs.
    pub gpus: u64,
}

/// What one pod takes from its node: all that is kept of the pods of other people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUse {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// The node that it was placed on; `None` before, and once it has ended.
    pub node: Option<String>,
    /// What it requests.
    pub requests: Free,
}

/// Subtracts what pods request from what nodes have.
pub fn observe_nodes<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    pods: impl IntoIterator<Item = &'a PodUse>,
) -> Vec<ObservedNode> {
    let mut used: BTreeMap<&str, Free> = BTreeMap::new();
    for pod in pods {
        if let Some(node) = &pod.node {
            let sum = used.entry(node).or_default();
            *sum = sum.plus(pod.requests);
        }
    }
    let observe = |node: &Node| {
        let name = node.metadata.name.clone().unwrap_or_default();
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let allocatable = allocatable.map(Free::from_quantities).unwrap_or_default();
        let spec = node.spec.as_ref();
        let labels = node.metadata.labels.clone().unwrap_or_default();
        ObservedNode {
            allocatable,
            gpu_memory: gpu_memory(&labels),
            free: allocatable.minus(used.get(name.as_str()).copied().unwrap_or_default()),
            schedulable: spec.and_then(|spec| spec.unschedulable) != Some(true),
            labels,
            taints: spec.and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            name,
        }
    };
    nodes.into_iter().map(observe).collect()
}

impl ObservedNode {
    /// The node as claims see it: its GPUs are those that a label counts, where no device plugin offers them. Which of
    /// them are claimed already is not seen here; the scheduler knows.
    pub fn by_claims(&self) -> ObservedNode {
        let labelled = self.labels.get(name::LABEL_GPU_COUNT).and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut node = self.clone();
        if node.allocatable.gpus == 0 {
            (node.allocatable.gpus, node.free.gpus) = (labelled, labelled);
        }
        node
    }
}

/// Bytes, from a label in MiB; 0 if that is missing or no number.
fn gpu_memory(labels: &BTreeMap<String, String>) -> u64 {
    let mebibytes = labels.get(name::LABEL_GPU_MEMORY).and_then(|text| text.parse::<u64>().ok());
    mebibytes.and_then(|number| number.checked_mul(1 << 20)).unwrap_or(0)
}

impl ObservedNode {
    /// Memory of all its GPUs, bytes.
    pub fn gpu_memory_in_all(&self) -> u64 {
        self.allocatable.gpus.saturating_mul(self.gpu_memory)
    }
}

impl Free {
    /// Whether `demand` fits, in every respect.
    pub fn holds(&self, demand: Free) -> bool {
        self.memory >= demand.memory && self.cpu >= demand.cpu && self.gpus >= demand.gpus
    }

    /// How many times `demand` fits; without end if it asks for nothing.
    pub fn times(&self, demand: Free) -> u64 {
        let times = |have: u64, want: u64| have.checked_div(want).unwrap_or(u64::MAX);
        times(self.memory, demand.memory).min(times(self.cpu, demand.cpu)).min(times(self.gpus, demand.gpus))
    }

    fn from_quantities(quantities: &BTreeMap<String, Quantity>) -> Self {
        let of = |key: &str| quantities.get(key).and_then(quantity::units).unwrap_or(0);
        Self {
            memory: of("memory"),
            cpu: quantities.get("cpu").and_then(quantity::thousandths).unwrap_or(0),
            gpus: of(name::GPU_RESOURCE),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_add(other.memory),
            cpu: self.cpu.saturating_add(other.cpu),
            gpus: self.gpus.saturating_add(other.gpus),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_sub(other.memory),
            cpu: self.cpu.saturating_sub(other.cpu),
            gpus: self.gpus.saturating_sub(other.gpus),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            memory: self.memory.max(other.memory),
            cpu: self.cpu.max(other.cpu),
            gpus: self.gpus.max(other.gpus),
        }
    }
}

impl From<&Pod> for PodUse {
    fn from(pod: &Pod) -> Self {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let ended = matches!(phase, Some("Succeeded" | "Failed"));
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|_| !ended),
            requests: requests(pod),
        }
    }
}

/// What the scheduler counts: the containers with the sidecars, or the most demanding moment of initialisation if that
/// is more; requests of the pod as a whole replace both; its overhead comes on top.
fn requests(pod: &Pod) -> Free {
    let Some(spec) = &pod.spec else { return Free::default() };
    let of = |container: &Container| {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        requests.map(Free::from_quantities).unwrap_or_default()
    };
    let mut sidecars = Free::default();
    let mut initialising = Free::default();
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = sidecars.plus(of(container));
            initialising = initialising.max(sidecars);
        } else {
            initialising = initialising.max(sidecars.plus(of(container)));
        }
    }
    let running = spec.containers.iter().fold(sidecars, |sum, container| sum.plus(of(container)));
    let mut total = running.max(initialising);
    if let Some(whole) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        let amounts = Free::from_quantities(whole);
        if whole.contains_key("memory") {
            total.memory = amounts.memory;
        }
        if whole.contains_key("cpu") {
            total.cpu = amounts.cpu;
        }
    }
    let overhead = spec.overhead.as_ref().map(Free::from_quantities).unwrap_or_default();
    total.plus(overhead)
}

#[cfg(test)]
mod tests;
