use super::*;
use k8s_openapi::api::core::v1::{NodeSpec, NodeStatus, PodSpec, PodStatus};
use serde_json::json;

fn pod(spec: serde_json::Value, phase: &str) -> PodUse {
    let spec: PodSpec = serde_json::from_value(spec).unwrap();
    let status = PodStatus { phase: Some(phase.into()), ..Default::default() };
    PodUse::from(&Pod { spec: Some(spec), status: Some(status), ..Default::default() })
}

fn container(cpu: &str, memory: &str) -> serde_json::Value {
    json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
}

#[test]
fn a_pod_takes_the_most_that_it_ever_needs_at_once() {
    let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1", "memory": "1k"}}});
    let spec = json!({
        "nodeName": "n",
        "initContainers": [container("1", "9k"), sidecar, container("5", "1k")],
        "containers": [container("2", "3k"), container("500m", "4k"), {"name": "none"}],
        "overhead": {"cpu": "100m"},
    });
    let uses = pod(spec, "Running");
    assert_eq!(uses.requests, Free { memory: 9000, cpu: 6100, gpus: 0 });
    assert_eq!(uses.node.as_deref(), Some("n"));
}

#[test]
fn requests_of_the_whole_pod_replace_those_of_its_containers() {
    let spec = json!({
        "containers": [container("2", "3k")],
        "resources": {"requests": {"memory": "10k"}},
    });
    assert_eq!(pod(spec, "Pending").requests, Free { memory: 10_000, cpu: 2000, gpus: 0 });
}

#[test]
fn what_has_ended_takes_nothing() {
    for phase in ["Succeeded", "Failed"] {
        assert_eq!(pod(json!({"nodeName": "n", "containers": [container("2", "3k")]}), phase).node, None);
    }
}

#[test]
fn free_is_allocatable_less_the_requests_on_the_node() {
    let allocatable = [("memory", "10Gi"), ("cpu", "4"), ("nvidia.com/gpu", "2"), ("pods", "110")];
    let quantities = allocatable.map(|(key, value)| (key.to_owned(), Quantity(value.to_owned()))).into();
    let mut node = Node::default();
    node.metadata.name = Some("n".into());
    node.spec = Some(NodeSpec { unschedulable: Some(true), ..Default::default() });
    node.status = Some(NodeStatus { allocatable: Some(quantities), ..Default::default() });
    let gpu = json!({"name": "g", "resources": {"requests": {"nvidia.com/gpu": "1"}}});
    let uses = [
        pod(json!({"nodeName": "n", "containers": [container("1", "4Gi"), gpu]}), "Running"),
        pod(json!({"nodeName": "elsewhere", "containers": [container("1", "4Gi")]}), "Running"),
        pod(json!({"containers": [container("1", "4Gi")]}), "Pending"),
    ];
    let [seen]: [ObservedNode; 1] = observe_nodes([&node], &uses).try_into().unwrap();
    assert_eq!(seen.allocatable, Free { memory: 10 << 30, cpu: 4000, gpus: 2 });
    assert_eq!(seen.free, Free { memory: 6 << 30, cpu: 3000, gpus: 1 });
    assert!(!seen.schedulable);
    assert_eq!((seen.gpu_memory, seen.gpu_memory_in_all()), (0, 0), "no label tells");
    // More requested than there is (a node that shrank) leaves nothing, and nothing overflows.
    let greedy = pod(
        json!({"nodeName": "n", "containers": [container("9", "7Ei"), container("9", "7Ei"), container("9", "7Ei")]}),
        "Running",
    );
    assert_eq!(observe_nodes([&node], [&greedy])[0].free, Free { memory: 0, cpu: 0, gpus: 2 });
}

#[test]
fn memory_of_gpus_is_a_label_in_mebibytes() {
    let of = |text: &str| {
        let mut node = Node::default();
        node.metadata.labels = Some([("nvidia.com/gpu.memory".to_owned(), text.to_owned())].into());
        observe_nodes([&node], [])[0].gpu_memory
    };
    assert_eq!(of("81559"), 81_559 << 20);
    for nonsense in ["", "80GB", "-1", "1.5", "99999999999999999999", "18446744073709551615"] {
        assert_eq!(of(nonsense), 0, "{nonsense:?}");
    }
}

#[test]
fn how_often_something_fits_is_what_is_scarcest() {
    let have = Free { memory: 100, cpu: 8000, gpus: 4 };
    assert_eq!(have.times(Free { memory: 30, cpu: 1000, gpus: 0 }), 3);
    assert_eq!(have.times(Free { memory: 1, cpu: 4000, gpus: 1 }), 2);
    assert_eq!(have.times(Free { memory: 1, cpu: 0, gpus: 3 }), 1);
    assert_eq!(have.times(Free { memory: 101, cpu: 0, gpus: 0 }), 0);
    assert_eq!(have.times(Free::default()), u64::MAX);
}
