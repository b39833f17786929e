//! The nodes that ranks may be placed on, and how many of them they can hold when nothing else runs there.

use super::layout::Demand;
use crate::observed::ObservedNode;
use crate::validate::{Deployment, Template};
use coterie_api::launch::Device;
use k8s_openapi::api::core::v1::{Taint, Toleration};
use std::borrow::Cow;

/// What a node runs: images of the runtime are made for Linux.
const OS: &str = "kubernetes.io/os";

/// The nodes that a template lets its pods onto.
pub(super) struct Nodes<'a>(pub(super) Vec<&'a ObservedNode>);

/// The nodes as the pods of `deployment` see them: with GPUs to ask for by number, or to claim.
pub(super) fn seen<'a>(deployment: &Deployment, nodes: &'a [ObservedNode]) -> Cow<'a, [ObservedNode]> {
    match deployment.claim_template {
        None => Cow::Borrowed(nodes),
        Some(_) => nodes.iter().map(ObservedNode::by_claims).collect(),
    }
}

impl<'a> Nodes<'a> {
    pub(super) fn eligible(template: &Template, nodes: &'a [ObservedNode]) -> Self {
        Self(nodes.iter().filter(|node| may_use(template, node)).collect())
    }

    /// How many ranks fit on all nodes together when those are empty.
    pub(super) fn room(&self, demand: Demand) -> u64 {
        self.0.iter().fold(0, |sum: u64, node| sum.saturating_add(takes(node, demand)))
    }

    /// Whether a rank fits some node beside what runs there now.
    pub(super) fn has_room_now(&self, demand: Demand) -> bool {
        let fits = |node: &&&ObservedNode| node.free.holds(demand.request) && has_memory(node, demand);
        self.0.iter().filter(|node| node.schedulable).any(|node| fits(&node))
    }

    /// Memory of the device on the largest node, empty, bytes.
    pub(super) fn largest(&self, device: Device) -> u64 {
        let memory = |node: &&ObservedNode| match device {
            Device::Cpu => node.allocatable.memory,
            Device::Gpu => node.gpu_memory_in_all(),
        };
        self.0.iter().map(memory).max().unwrap_or(0)
    }

    /// Most memory of the device that is free on one node now, bytes.
    pub(super) fn free(&self, device: Device) -> u64 {
        let memory = |node: &&ObservedNode| match device {
            Device::Cpu => node.free.memory,
            Device::Gpu => node.free.gpus.saturating_mul(node.gpu_memory),
        };
        self.0.iter().filter(|node| node.schedulable).map(memory).max().unwrap_or(0)
    }

    /// GPUs of the node that has most.
    pub(super) fn most_gpus(&self) -> u64 {
        self.0.iter().map(|node| node.allocatable.gpus).max().unwrap_or(0)
    }
}

/// How many ranks fit on the node when that is empty.
pub(super) fn takes(node: &ObservedNode, demand: Demand) -> u64 {
    if has_memory(node, demand) { node.allocatable.times(demand.request) } else { 0 }
}

/// GPUs whose memory nobody tells are taken for too small: a plan must not promise what it cannot see.
fn has_memory(node: &ObservedNode, demand: Demand) -> bool {
    demand.of_each_gpu <= node.gpu_memory
}

/// Whether the template's node selector and tolerations let a rank onto this node. A cordon, and what Kubernetes itself
/// taints for the time being (not ready, under pressure), pass.
pub(super) fn may_use(template: &Template, node: &ObservedNode) -> bool {
    let selected = template.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let tolerated = |taint: &Taint| {
        taint.effect == "PreferNoSchedule"
            || taint.key.starts_with("node.kubernetes.io/")
            || template.tolerations.iter().any(|toleration| tolerates(toleration, taint))
    };
    let linux = node.labels.get(OS).is_none_or(|os| os == "linux");
    selected && linux && node.taints.iter().all(tolerated)
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let key = set(&toleration.key).is_none_or(|key| key == taint.key);
    let effect = set(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let exists = toleration.operator.as_deref() == Some("Exists");
    let value = toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("");
    key && effect && (exists || value && toleration.key.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_match_as_kubernetes_has_it() {
        let taint = Taint {
            key: "team".into(),
            value: Some("a".into()),
            effect: "NoExecute".into(),
            ..Default::default()
        };
        let toleration = |key: &str, operator: &str, value: &str, effect: &str| Toleration {
            key: Some(key.into()),
            operator: Some(operator.into()),
            value: Some(value.into()),
            effect: Some(effect.into()),
            toleration_seconds: None,
        };
        assert!(tolerates(&toleration("team", "Equal", "a", "NoExecute"), &taint));
        assert!(tolerates(&toleration("team", "", "a", ""), &taint), "Equal is the default");
        assert!(tolerates(&toleration("team", "Exists", "", ""), &taint));
        assert!(tolerates(&toleration("", "Exists", "", ""), &taint));
        assert!(!tolerates(&toleration("team", "Equal", "b", ""), &taint));
        assert!(!tolerates(&toleration("team", "Exists", "", "NoSchedule"), &taint));
        assert!(!tolerates(&toleration("tea", "Exists", "", ""), &taint));
        assert!(!tolerates(&Toleration::default(), &taint));
    }

    #[test]
    fn a_node_that_runs_windows_takes_no_rank() {
        let deployment = crate::validate::validate(&crate::world::object(1)).unwrap();
        let takes = |os: &str| {
            let mut node = crate::world::node("n", 1 << 40);
            node.labels.insert(OS.to_owned(), os.to_owned());
            may_use(&deployment.template, &node)
        };
        assert!(takes("linux") && !takes("windows"));
    }
}
