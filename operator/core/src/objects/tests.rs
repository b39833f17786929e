use super::*;
use crate::observed::ObservedPod;
use crate::plan::Action;
use crate::world::{World, settled};
use coterie_api::deployment::{ClaimSource, ModelDeployment, SourceSpec};
use k8s_openapi::api::core::v1::{Pod, PodSpec, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

fn pods(change: impl Fn(&mut ModelDeployment)) -> Vec<Pod> {
    let mut world = World::new(1);
    change(&mut world.object);
    let mut pods: Vec<Pod> = Vec::new();
    for _ in 0..2 {
        let created = world.plan().actions.into_iter().filter_map(|action| match action {
            Action::CreatePod(pod) => Some(*pod),
            _ => None,
        });
        pods.extend(created);
        world.quiesce(|_, _| {});
        world.end_inspection(0);
    }
    pods
}

fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap()
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

#[test]
fn what_somebody_changed_on_a_service_is_put_right_and_what_they_added_stays() {
    type Change = fn(&mut Service);
    fn spec(service: &mut Service) -> &mut k8s_openapi::api::core::v1::ServiceSpec {
        service.spec.as_mut().unwrap()
    }
    fn port(service: &mut Service) -> &mut k8s_openapi::api::core::v1::ServicePort {
        &mut spec(service).ports.as_mut().unwrap()[0]
    }
    let repaired: [(&str, Change); 7] = [
        ("port", |it| port(it).port = 81),
        ("target", |it| port(it).target_port = None),
        ("ports", |it| spec(it).ports = None),
        ("selector", |it| spec(it).selector = None),
        ("a further label to select by", |it| {
            spec(it).selector.as_mut().unwrap().insert("a".into(), "b".into());
        }),
        ("type", |it| spec(it).type_ = Some("NodePort".into())),
        ("label", |it| it.metadata.labels = None),
    ];
    let left: [(&str, Change); 3] = [
        ("a label of theirs", |it| {
            it.metadata.labels.as_mut().unwrap().insert("team".into(), "a".into());
        }),
        ("a port of theirs", |it| {
            let theirs = k8s_openapi::api::core::v1::ServicePort { port: 9090, ..port(it).clone() };
            spec(it).ports.as_mut().unwrap().push(theirs);
        }),
        ("what the API server fills in", |it| {
            spec(it).cluster_ip = Some("10.0.0.1".into());
            spec(it).session_affinity = Some("None".into());
        }),
    ];
    let actions = |change: Change| {
        let mut world = settled(1);
        change(&mut world.services[0]);
        world.plan().actions.iter().map(Action::object).collect::<Vec<_>>()
    };
    for (what, change) in repaired {
        assert_eq!(actions(change), ["Service smol"], "{what}");
    }
    for (what, change) in left {
        assert_eq!(actions(change), [] as [String; 0], "{what}");
    }
}

#[test]
fn both_pods_have_no_privilege_and_only_read_the_model() {
    for pod in pods(|_| {}) {
        let spec = spec(&pod);
        let expected = json!({
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}
        });
        assert_eq!(json(&spec.security_context), expected);
        let expected = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}
        });
        assert_eq!(json(&spec.containers[0].security_context), expected);
        assert_eq!(spec.automount_service_account_token, Some(false));
        assert_eq!(spec.enable_service_links, Some(false));
        assert_eq!(
            json(&spec.containers[0].volume_mounts),
            json!([{"name": "model", "mountPath": "/model", "readOnly": true}])
        );
        assert_eq!(
            json(&spec.volumes),
            json!([{"name": "model", "image": {"reference": "localhost/weights:1"}}])
        );
        let owner = &pod.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!(
            (owner.uid.as_str(), owner.controller, owner.block_owner_deletion),
            ("5e1f", Some(true), Some(true))
        );
    }
}

#[test]
fn a_claim_is_mounted_whole_and_its_path_is_joined() {
    for pod in pods(|object| {
        let claim = ClaimSource { claim_name: "weights".into(), path: Some("a/b/".into()) };
        object.spec.model.source = SourceSpec { image: None, persistent_volume_claim: Some(claim) };
    }) {
        let volume =
            json!([{"name": "model", "persistentVolumeClaim": {"claimName": "weights", "readOnly": true}}]);
        assert_eq!(json(&spec(&pod).volumes), volume);
        let args = spec(&pod).containers[0].args.clone().unwrap();
        assert!(args.contains(&"/model/a/b".to_owned()), "{args:?}");
    }
}

#[test]
fn a_rank_has_a_name_in_dns_and_time_to_drain() {
    let world = settled(1);
    let spec = spec(&world.pods[0]);
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("smol-0"), Some("smol-ranks")));
    assert_eq!(spec.termination_grace_period_seconds, Some(615));
    assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
    let container = &spec.containers[0];
    assert_eq!(container.args.as_ref().unwrap()[..3], ["serve", "--model", "/model"]);
    assert_eq!(json(&container.resources), json!({"requests": {"memory": "5108Mi"}}));
    let path = |probe: &Option<k8s_openapi::api::core::v1::Probe>| json(probe)["httpGet"]["path"].clone();
    assert_eq!(path(&container.readiness_probe), "/ready");
    assert_eq!(path(&container.liveness_probe), "/health");
    let liveness = json(&container.liveness_probe);
    let figures = ["periodSeconds", "timeoutSeconds", "failureThreshold", "terminationGracePeriodSeconds"];
    assert_eq!(figures.map(|key| liveness[key].clone()), [json!(5), json!(5), json!(7), json!(2)]);
    let seen = ObservedPod::from(&world.pods[0]);
    assert!(seen.is_owned_by("5e1f") && !seen.is_owned_by("other"));
    assert_eq!((seen.replica, seen.image.as_str()), (Some(0), "localhost/coterie:1"));
}

#[test]
fn the_inspect_pod_ends_by_itself() {
    let pods = pods(|_| {});
    let spec = spec(&pods[0]);
    assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
    assert_eq!(spec.containers[0].args.as_ref().unwrap()[..], ["inspect", "/model", "--output", "json"]);
    assert_eq!(spec.hostname, None);
}

#[test]
fn the_template_reaches_both_pods_and_cannot_take_our_labels() {
    for pod in pods(|object| {
        let template = &mut object.spec.template;
        template.labels = labels([("team", "x"), ("app.kubernetes.io/name", "mine")]);
        template.annotations = labels([("note", "y")]);
        template.node_selector = labels([("pool", "z")]);
        template.priority_class_name = Some("high".into());
    }) {
        let found = pod.metadata.labels.as_ref().unwrap();
        assert_eq!((found["team"].as_str(), found["app.kubernetes.io/name"].as_str()), ("x", "coterie"));
        assert_eq!(pod.metadata.annotations, Some(labels([("note", "y")])));
        assert_eq!(spec(&pod).node_selector, Some(labels([("pool", "z")])));
        assert_eq!(spec(&pod).priority_class_name.as_deref(), Some("high"));
    }
}

#[test]
fn memory_of_the_template_is_kept_where_it_is_enough() {
    let resources = |request: &str| {
        let pods = pods(|object| {
            let resources = &mut object.spec.template.resources;
            resources.requests.insert("memory".into(), Quantity(request.into()));
            resources.limits.insert("memory".into(), Quantity("10G".into()));
        });
        json(&spec(&pods[1]).containers[0].resources)
    };
    assert_eq!(resources("1Gi"), json!({"requests": {"memory": "5108Mi"}, "limits": {"memory": "10G"}}));
    assert_eq!(resources("9G"), json!({"requests": {"memory": "9G"}, "limits": {"memory": "10G"}}));
}

#[test]
fn services_select_ranks_and_a_changed_one_is_applied_again() {
    let world = settled(1);
    let [client, ranks]: [Service; 2] = world.services.clone().try_into().unwrap();
    let (client_spec, ranks_spec) = (client.spec.unwrap(), ranks.spec.unwrap());
    let mut serving = rank_selector(&world.deployment());
    serving.insert("coterie.dev/serving".into(), "true".into());
    assert_eq!(client_spec.selector, Some(serving));
    assert_eq!(
        ranks_spec.selector,
        Some(rank_selector(&world.deployment())),
        "experts of a cordoned rank are used"
    );
    assert_eq!(json(&client_spec.ports.unwrap()[0])["port"], 80);
    assert_eq!(
        (ranks_spec.cluster_ip.as_deref(), ranks_spec.publish_not_ready_addresses),
        (Some("None"), Some(true))
    );
    let mut world = settled(1);
    world.services[0].metadata.annotations = None;
    let objects: Vec<String> = world.plan().actions.iter().map(Action::object).collect();
    assert_eq!(objects, ["Service smol"]);
    world.services.remove(1);
    assert_eq!(world.plan().actions.len(), 2);
}
