//! The nodes of a plan without a cluster: those that take pods, and those that do not, with the reason.

use anyhow::{Result, bail};
use coterie_api::name::GPU_RESOURCE;
use coterie_operator_core::observed::quantity::{thousandths, units};
use k8s_openapi::api::core::v1::Node;
use serde::Deserialize;

/// What a node runs.
const LABEL_OS: &str = "kubernetes.io/os";

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Node>,
}

/// One or several documents, each a node or a list.
///
/// By kind first, and not by trial: YAML's own guesses (`n` is a boolean) only stay away when the type is known.
pub fn read(text: &str) -> Result<Vec<Node>> {
    let kinds: Vec<Kind> = serde_saphyr::from_multiple(text)?;
    let nodes: Vec<Node> = if kinds.iter().all(|document| document.kind == "Node") {
        serde_saphyr::from_multiple(text)?
    } else {
        let lists: Vec<List> = serde_saphyr::from_multiple(text)?;
        lists.into_iter().flat_map(|list| list.items).collect()
    };
    if nodes.is_empty() {
        bail!("there is no node in it");
    }
    nodes.iter().try_for_each(readable)?;
    Ok(nodes)
}

/// What is not understood would count as nothing.
fn readable(node: &Node) -> Result<()> {
    for (key, quantity) in node.status.iter().filter_map(|status| status.allocatable.as_ref()).flatten() {
        let is_read = match key.as_str() {
            "cpu" => thousandths(quantity).is_some(),
            "memory" | GPU_RESOURCE => units(quantity).is_some(),
            _ => true,
        };
        if !is_read {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            bail!("node {name} has {key}: {:?}, which is no quantity", quantity.0);
        }
    }
    Ok(())
}

/// Why the scheduler places nothing on this node for now, if so.
pub fn obstacle(node: &Node) -> Option<String> {
    let spec = node.spec.clone().unwrap_or_default();
    if spec.unschedulable == Some(true) {
        return Some("cordoned".to_owned());
    }
    let labels = node.metadata.labels.iter().flatten();
    if let Some((_, os)) = labels.into_iter().find(|(key, os)| *key == LABEL_OS && *os != "linux") {
        return Some(format!("a {os} node"));
    }
    let conditions = node.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    if conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status != "True") {
        return Some("not ready".to_owned());
    }
    // Set by Kubernetes itself, for as long as the reason lasts.
    let taints = spec.taints.unwrap_or_default();
    let keeps_away = taints
        .into_iter()
        .find(|taint| taint.key.starts_with("node.kubernetes.io/") && taint.effect != "PreferNoSchedule");
    keeps_away.map(|taint| format!("tainted {}", taint.key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(rest: &str) -> Node {
        let text = format!("kind: Node\nmetadata: {{name: n}}\n{rest}");
        read(&text).unwrap().remove(0)
    }

    #[test]
    fn a_node_that_takes_no_pods_says_why() {
        assert_eq!(obstacle(&node("")), None);
        assert_eq!(obstacle(&node("spec: {unschedulable: true}")).as_deref(), Some("cordoned"));
        let of = |os| {
            obstacle(
                &read(&format!("kind: Node\nmetadata: {{name: n, labels: {{kubernetes.io/os: {os}}}}}"))
                    .unwrap()[0],
            )
        };
        assert_eq!((of("linux"), of("windows").as_deref()), (None, Some("a windows node")));
        let ready = |status| node(&format!("status: {{conditions: [{{type: Ready, status: '{status}'}}]}}"));
        assert_eq!(obstacle(&ready("True")), None);
        assert_eq!(obstacle(&ready("Unknown")).as_deref(), Some("not ready"));
        let taint = |effect| {
            node(&format!(
                "spec: {{taints: [{{key: node.kubernetes.io/memory-pressure, effect: {effect}}}]}}"
            ))
        };
        assert_eq!(obstacle(&taint("PreferNoSchedule")), None);
        assert_eq!(
            obstacle(&taint("NoSchedule")).as_deref(),
            Some("tainted node.kubernetes.io/memory-pressure")
        );
    }

    #[test]
    fn a_file_without_nodes_or_with_nonsense_is_refused() {
        for nothing in ["", "kind: List\nitems: []"] {
            assert_eq!(read(nothing).unwrap_err().to_string(), "there is no node in it", "{nothing:?}");
        }
        let gpus = "kind: Node\nmetadata: {name: n}\nstatus: {allocatable: {nvidia.com/gpu: eight}}";
        assert_eq!(
            read(gpus).unwrap_err().to_string(),
            "node n has nvidia.com/gpu: \"eight\", which is no quantity"
        );
    }
}
