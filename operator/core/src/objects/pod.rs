//! Pods: a rank that serves, and a look at the weights.

use super::share::{self, Share};
use super::{labels, metadata, service_names};
use crate::fingerprint::fingerprint;
use crate::observed::{Free, Settings};
use crate::validate::{Deployment, Source};
use coterie_api::launch::{Device, RankLaunch};
use coterie_api::name;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, HTTPGetAction, ImageVolumeSource, Lifecycle, LifecycleHandler,
    LocalObjectReference, PersistentVolumeClaimVolumeSource, Pod, PodResourceClaim, PodSecurityContext,
    PodSpec, Probe, ResourceClaim, ResourceRequirements, SeccompProfile, SecurityContext, SleepAction,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// Between the decision to end a rank and its SIGTERM: what Services need to stop sending new connections to it.
const UNLIST_SECONDS: u32 = 5;
/// Beside the drain itself: unlisting, and leaving the process.
const GRACE_SECONDS: u32 = UNLIST_SECONDS + 10;
/// A process that answers no probe handles no SIGTERM either: it is not given the time of a drain.
const HUNG_GRACE_SECONDS: i64 = 2;
/// The user that images are made for.
const USER: i64 = 65532;
const MODEL_VOLUME: &str = "model";
/// Name of a rank's claim of GPUs, within its pod.
const GPU_CLAIM: &str = "gpus";

/// What one rank is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct RankPod<'a> {
    /// Whose rank it is.
    pub deployment: &'a Deployment,
    /// Number of its replica.
    pub replica: u32,
    /// Its part of a replica of several ranks.
    pub share: Option<Share<'a>>,
    /// Revision of the spec.
    pub revision: &'a str,
    /// Image of the runtime.
    pub image: &'a str,
    /// What the operator was started with.
    pub settings: &'a Settings,
    /// The command line.
    pub launch: &'a RankLaunch,
    /// What it requests.
    pub demand: Free,
}

/// Name of a rank's pod; `rank` is its number if its replica has several.
pub fn rank_pod_name(name: &str, replica: u32, rank: Option<u32>) -> String {
    match rank {
        None => format!("{name}-{replica}"),
        Some(rank) => format!("{name}-{replica}-{rank}"),
    }
}

/// Name of the pod that inspects the source with this hash.
pub fn inspect_pod_name(name: &str, source_hash: &str) -> String {
    let short = source_hash.get(..6).unwrap_or(source_hash);
    format!("{name}-inspect-{short}")
}

/// Folder of the model inside the containers. The path is joined rather than mounted by subPath: the kubelet would
/// make a folder of that name in a claim that lacks it, instead of letting the inspection say that it is not there.
pub(crate) fn model_dir(source: &Source) -> String {
    match source {
        Source::Claim { path: Some(path), .. } => format!("{}/{path}", name::MODEL_MOUNT),
        Source::Claim { path: None, .. } | Source::Image { .. } => name::MODEL_MOUNT.to_owned(),
    }
}

/// The pod of one rank. The kubelet restarts its process with a bounded back-off; the operator replaces it only when
/// the pod itself is lost or its revision is old.
pub fn rank_pod(rank: &RankPod) -> Pod {
    let deployment = rank.deployment;
    let pod_name = rank_pod_name(&deployment.name, rank.replica, rank.share.map(|share| share.rank));
    let mut ports = vec![container_port(name::PORT_HTTP, rank.launch.port)];
    ports.extend(rank.share.map(|_| container_port(name::PORT_EXCHANGE, name::EXCHANGE_PORT)));
    let mut container = Container {
        name: name::CONTAINER_RANK.to_owned(),
        args: Some(rank.launch.args()),
        ports: Some(ports),
        resources: Some(rank_resources(rank)),
        // Loading hundreds of gigabytes may take most of an hour; only then does liveness count.
        startup_probe: Some(probe("/health", 1, 5, 3600)),
        readiness_probe: Some(probe("/ready", 1, 3, 3)),
        liveness_probe: Some(liveness()),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: UNLIST_SECONDS.into() }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..container(rank.image, rank.settings)
    };
    let replica = rank.replica.to_string();
    let mut pod_labels = labels([
        (name::LABEL_ROLE, name::ROLE_RANK),
        (name::LABEL_REVISION, rank.revision),
        (name::LABEL_REPLICA, &replica),
        (name::LABEL_SERVING, "true"),
    ]);
    let [_, subdomain] = service_names(&deployment.name);
    let mut all = pod_spec(deployment);
    if let Some(share) = rank.share {
        pod_labels.insert(name::LABEL_RANK.to_owned(), share.rank.to_string());
        let mounts = container.volume_mounts.get_or_insert_default();
        mounts.extend(share::mounts());
        all.volumes.get_or_insert_default().extend(share::volumes(&deployment.name, rank.replica));
        all.topology_spread_constraints = Some(vec![share::apart(deployment, &replica)]);
    }
    let claim = |template: &String| PodResourceClaim {
        name: GPU_CLAIM.to_owned(),
        resource_claim_template_name: Some(template.clone()),
        ..Default::default()
    };
    let spec = PodSpec {
        containers: vec![container],
        resource_claims: deployment.claim_template.as_ref().map(|template| vec![claim(template)]),
        hostname: Some(pod_name.clone()),
        subdomain: Some(subdomain),
        restart_policy: Some("Always".to_owned()),
        termination_grace_period_seconds: Some((deployment.drain_seconds + GRACE_SECONDS).into()),
        ..all
    };
    let mut pod = pod(deployment, pod_name, name::ROLE_RANK, pod_labels, spec);
    if let Some(share) = rank.share {
        pod.metadata.annotations.get_or_insert_default().extend(share.told.annotations());
    }
    pod
}

fn container_port(port_name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(port_name.to_owned()),
        container_port: number.into(),
        protocol: Some("TCP".to_owned()),
        ..Default::default()
    }
}

/// What an inspect pod takes from the spec beside its source, hashed: one that waits by older rules is made anew.
pub fn inspect_revision(deployment: &Deployment) -> String {
    fingerprint(&pod_spec(deployment), 10)
}

/// The pod that looks at the weights once and leaves what it found in its termination message.
pub fn inspect_pod(deployment: &Deployment, source_hash: &str, settings: &Settings) -> Pod {
    let quantities = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), Quantity((*value).to_owned()))).collect())
    };
    let args = ["inspect", &model_dir(&deployment.source), "--output", "json"];
    let container = Container {
        name: name::CONTAINER_INSPECT.to_owned(),
        args: Some(args.map(str::to_owned).to_vec()),
        resources: Some(ResourceRequirements {
            requests: quantities(&[("cpu", "100m"), ("memory", "64Mi")]),
            // Mapped files do not count: the kernel takes their pages back.
            limits: quantities(&[("memory", "1Gi")]),
            ..Default::default()
        }),
        ..container(&settings.runtime_image, settings)
    };
    let spec = PodSpec {
        containers: vec![container],
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(1),
        ..pod_spec(deployment)
    };
    let pod_name = inspect_pod_name(&deployment.name, source_hash);
    let own = labels([
        (name::LABEL_ROLE, name::ROLE_INSPECT),
        (name::LABEL_REVISION, &inspect_revision(deployment)),
    ]);
    pod(deployment, pod_name, name::ROLE_INSPECT, own, spec)
}

fn pod(
    deployment: &Deployment,
    pod_name: String,
    component: &str,
    own: BTreeMap<String, String>,
    spec: PodSpec,
) -> Pod {
    let template = &deployment.template;
    let mut metadata = metadata(deployment, pod_name, component);
    let ours = metadata.labels.take().unwrap_or_default();
    metadata.labels = Some(template.labels.clone().into_iter().chain(ours).chain(own).collect());
    metadata.annotations = (!template.annotations.is_empty()).then(|| template.annotations.clone());
    Pod { metadata, spec: Some(spec), status: None }
}

/// What both kinds of pod have in common: the model, the placement rules of the template, no privileges.
fn pod_spec(deployment: &Deployment) -> PodSpec {
    let template = &deployment.template;
    let secrets = template.image_pull_secrets.iter();
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        image_pull_secrets: none_if_empty(
            secrets.map(|secret| LocalObjectReference { name: secret.clone() }).collect::<Vec<_>>(),
        ),
        node_selector: Some(template.node_selector.clone()).filter(|selector| !selector.is_empty()),
        priority_class_name: template.priority_class_name.clone(),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        tolerations: none_if_empty(template.tolerations.clone()),
        volumes: Some(vec![model_volume(&deployment.source)]),
        ..Default::default()
    }
}

fn container(image: &str, settings: &Settings) -> Container {
    Container {
        image: Some(image.to_owned()),
        image_pull_policy: settings.image_pull_policy.map(|policy| policy.as_str().to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Default::default() }),
            read_only_root_filesystem: Some(true),
            ..Default::default()
        }),
        // A process that could not even write its message has left its last lines.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![VolumeMount {
            name: MODEL_VOLUME.to_owned(),
            mount_path: name::MODEL_MOUNT.to_owned(),
            read_only: Some(true),
            ..Default::default()
        }]),
        ..Default::default()
    }
}

fn model_volume(source: &Source) -> Volume {
    let mut volume = Volume { name: MODEL_VOLUME.to_owned(), ..Default::default() };
    match source {
        Source::Image { reference, pull_policy } => {
            volume.image = Some(ImageVolumeSource {
                reference: Some(reference.clone()),
                pull_policy: pull_policy.map(|policy| policy.as_str().to_owned()),
            });
        }
        Source::Claim { name, .. } => {
            volume.persistent_volume_claim =
                Some(PersistentVolumeClaimVolumeSource { claim_name: name.clone(), read_only: Some(true) });
        }
    }
    volume
}

/// The template's resources, with at least the memory that the model needs requested.
///
/// No memory limit is added: an estimate that is a little low would turn into a killed rank, while the request already
/// makes the scheduler keep the room free and evict others first. Who sets a limit has it checked against the need.
fn rank_resources(rank: &RankPod) -> ResourceRequirements {
    let template = &rank.deployment.template;
    let mut requests = template.requests.clone();
    let mut limits = template.limits.clone();
    if template.memory_request.is_none_or(|request| request < rank.demand.memory) {
        requests.insert("memory".to_owned(), memory(rank.demand.memory));
    }
    let claims = rank.deployment.claim_template.is_some();
    if rank.launch.device == Device::Gpu && !claims {
        // Kubernetes wants request and limit of an extended resource to be equal, and copies the limit.
        limits.insert(name::GPU_RESOURCE.to_owned(), Quantity(rank.demand.gpus.to_string()));
    }
    ResourceRequirements {
        requests: Some(requests),
        claims: claims.then(|| vec![ResourceClaim { name: GPU_CLAIM.to_owned(), request: None }]),
        limits: Some(limits).filter(|limits| !limits.is_empty()),
    }
}

fn memory(bytes: u64) -> Quantity {
    const MIB: u64 = 1 << 20;
    Quantity(if bytes.is_multiple_of(MIB) { format!("{}Mi", bytes / MIB) } else { bytes.to_string() })
}

fn probe(path: &str, period: i32, timeout: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(name::PORT_HTTP.to_owned()),
            ..Default::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(timeout),
        failure_threshold: Some(failures),
        ..Default::default()
    }
}

/// Notices within 40 s that a process hangs. One that is only busy answers: the threads that do are not those that
/// compute, and of seven questions in a row one answer within 5 s is enough.
fn liveness() -> Probe {
    Probe { termination_grace_period_seconds: Some(HUNG_GRACE_SECONDS), ..probe("/health", 5, 5, 7) }
}

fn none_if_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
