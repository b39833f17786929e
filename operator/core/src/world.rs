//! A cluster for tests: it runs what a plan wants, and lets pods live, fail and be deleted.

use crate::objects;
use crate::observed::{
    ClaimState, ExpertLoad, Free, Observed, ObservedCertificates, ObservedExperts, ObservedNode, ObservedPod,
    ObservedService, Occupancy, RankReport, Role, Settings,
};
use crate::plan::certificates::CertificateStep;
use crate::plan::{Action, Plan, plan};
use crate::status::{Applied, events, status};
use crate::validate::{Deployment, validate};
use coterie_api::deployment::{ImageSource, ModelDeployment, ModelDeploymentSpec, ModelSpec, SourceSpec};
use coterie_api::launch::{Device, Inspection, WeightBytes};
use coterie_api::name;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    ConfigMap, ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod,
    PodCondition, PodStatus, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const GIB: u64 = 1 << 30;
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A model of 4 GiB in bf16 and 2 GiB in int8, with 64 KiB of KV cache a token and 256 MiB of working memory.
pub(crate) fn inspection() -> Inspection {
    Inspection {
        architecture: "MixtralForCausalLM".into(),
        parameters: 2 << 30,
        active_parameters: 1 << 30,
        layers: 30,
        expert_layers: None,
        experts: 8,
        experts_per_token: 2,
        context_length: 8192,
        weight_bytes: WeightBytes { none: 4 * GIB, int8: 2 * GIB, int4: None },
        expert_bytes: None,
        kv_bytes_per_token: 64 << 10,
        state_bytes: 0,
        working_bytes: GIB / 4,
        spare_bytes: 0,
        draft_module: None,
        digest: "sha256:0123".into(),
        devices: vec![Device::Cpu],
        most_gpus: 16,
    }
}

/// A ModelDeployment as an API server would give it.
pub(crate) fn object(replicas: i32) -> ModelDeployment {
    let source = SourceSpec {
        image: Some(ImageSource { reference: "localhost/weights:1".into(), pull_policy: None }),
        persistent_volume_claim: None,
    };
    let spec = ModelDeploymentSpec {
        model: ModelSpec { source, ..Default::default() },
        replicas,
        ..Default::default()
    };
    let mut object = ModelDeployment::new("smol", spec);
    object.metadata.namespace = Some("chat".into());
    object.metadata.uid = Some("5e1f".into());
    object.metadata.generation = Some(1);
    object
}

pub(crate) fn node(name: &str, memory: u64) -> ObservedNode {
    let all = Free { memory, cpu: 8000, gpus: 0 };
    ObservedNode {
        name: name.into(),
        allocatable: all,
        free: all,
        gpu_memory: 0,
        schedulable: true,
        labels: Default::default(),
        taints: Vec::new(),
    }
}

pub(crate) struct World {
    pub(crate) object: ModelDeployment,
    pub(crate) pods: Vec<Pod>,
    pub(crate) services: Vec<Service>,
    pub(crate) config_maps: Vec<ConfigMap>,
    pub(crate) certificates: ObservedCertificates,
    /// What ranks report, by the uid of their pods.
    pub(crate) reports: BTreeMap<String, RankReport>,
    /// Requests of ranks, by the uid of their pods; the others have none.
    pub(crate) requests: BTreeMap<String, u64>,
    /// No rank tells its load.
    pub(crate) untold: bool,
    /// What was asked of experts, by replica.
    pub(crate) loads: BTreeMap<u32, Arc<ExpertLoad>>,
    pub(crate) nodes: Vec<ObservedNode>,
    pub(crate) claim: Option<ClaimState>,
    pub(crate) settings: Settings,
    pub(crate) now: Timestamp,
    /// What `coterie inspect` would leave: exit code and termination message.
    pub(crate) verdict: (i32, String),
    /// Ranks with this flag on their command line never become ready.
    pub(crate) broken: Option<&'static str>,
    /// Every action so far, e.g. `+smol-0`, `-smol-0`, and `!Reason` for every Event.
    pub(crate) log: Vec<String>,
    serial: u32,
}

impl World {
    pub(crate) fn new(replicas: i32) -> Self {
        Self {
            object: object(replicas),
            pods: Vec::new(),
            services: Vec::new(),
            config_maps: Vec::new(),
            certificates: ObservedCertificates::NotLooked,
            reports: BTreeMap::new(),
            requests: BTreeMap::new(),
            untold: false,
            loads: BTreeMap::new(),
            nodes: vec![node("worker-1", 64 * GIB)],
            claim: None,
            settings: Settings {
                runtime_image: "localhost/coterie:1".into(),
                gpu_runtime_image: None,
                image_pull_policy: None,
                certificate_life: SignedDuration::from_hours(24 * 30),
                load_window: SignedDuration::from_mins(1),
            },
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            verdict: (0, serde_json::to_string(&inspection()).unwrap()),
            broken: None,
            log: Vec::new(),
            serial: 0,
        }
    }

    pub(crate) fn deployment(&self) -> Deployment {
        validate(&self.object).unwrap()
    }

    pub(crate) fn observed(&self) -> Observed {
        let pods: Vec<ObservedPod> = self.pods.iter().map(ObservedPod::from).collect();
        let occupancy = |pod: &ObservedPod| {
            let requests = self.requests.get(&pod.uid).copied().unwrap_or(0);
            (pod.uid.clone(), Occupancy { at: self.now, requests })
        };
        let tells = |pod: &&ObservedPod| pod.ready && !self.untold;
        Observed {
            occupancy: pods.iter().filter(tells).map(occupancy).collect(),
            pods,
            nodes: self.nodes.clone(),
            claim: self.claim,
            services: self.services.iter().map(|it| ObservedService::of(it.clone(), "5e1f")).collect(),
            experts: self
                .config_maps
                .iter()
                .filter_map(|map| ObservedExperts::of(map.clone(), "5e1f"))
                .collect(),
            certificates: self.certificates.clone(),
            reports: self.reports.clone(),
            loads: self.loads.clone(),
            status: self.object.status.clone().unwrap_or_default(),
            settings: self.settings.clone(),
            ..Default::default()
        }
    }

    /// Somebody looks whether there are certificates, as the shell does for several ranks.
    fn look_at_certificates(&mut self) {
        let several = self.object.spec.ranks.is_some_and(|ranks| ranks > 1);
        if several && self.certificates == ObservedCertificates::NotLooked {
            self.certificates = ObservedCertificates::Missing;
        }
    }

    /// The newest map that a pod's replica has.
    pub(crate) fn version_for(&self, pod: &ObservedPod) -> u64 {
        let observed = self.observed();
        let there = observed.experts.iter().find(|there| Some(there.replica) == pod.replica);
        there.and_then(|there| there.map.as_ref()).map_or(0, |map| map.version())
    }

    /// A rank has read, loaded and goes by the newest map; whether that is news.
    pub(crate) fn follow_map(&mut self, index: usize) -> bool {
        let pod = ObservedPod::from(&self.pods[index]);
        let newest = self.version_for(&pod);
        let is_news = pod.rank.is_some() && self.reports.get(&pod.uid).is_none_or(|it| it.routing < newest);
        if is_news {
            let report = RankReport { read: newest, loaded: newest, routing: newest, ..Default::default() };
            self.reports.insert(pod.uid, report);
        }
        is_news
    }

    pub(crate) fn plan(&self) -> Plan {
        plan(&self.deployment(), &self.observed(), self.now)
    }

    /// One reconcile; gives the plan and whether the status was written.
    pub(crate) fn reconcile(&mut self) -> (Plan, bool) {
        self.look_at_certificates();
        let plan = self.plan();
        let deployment = self.deployment();
        let observed = self.observed();
        for action in &plan.actions {
            self.apply(action);
        }
        let new = status(&deployment, &observed, &plan, &Applied::default(), self.now);
        // As read back from an API server.
        let new = serde_json::from_str(&serde_json::to_string(&new).unwrap()).unwrap();
        for note in events(&observed.status, &new) {
            self.log.push(format!("!{}", note.reason));
        }
        let written = new != observed.status;
        self.object.status = Some(new);
        (plan, written)
    }

    /// A reconcile whose operator is killed after so many writes.
    pub(crate) fn reconcile_until_killed(&mut self, writes: usize) {
        self.look_at_certificates();
        let plan = self.plan();
        plan.actions.iter().take(writes).for_each(|action| self.apply(action));
    }

    fn apply(&mut self, action: &Action) {
        self.serial += 1;
        match action {
            Action::ApplyService(service) => {
                self.services.retain(|there| there.metadata.name != service.metadata.name);
                self.services.push(service.as_ref().clone());
            }
            Action::CreateConfigMap(map) => {
                let mut map = map.as_ref().clone();
                let name = map.metadata.name.clone();
                assert!(!self.config_maps.iter().any(|there| there.metadata.name == name), "name is taken");
                map.metadata.uid = Some(format!("uid-{}", self.serial));
                map.metadata.resource_version = Some(self.serial.to_string());
                self.config_maps.push(map);
            }
            Action::ApplyConfigMap(map) => {
                let is_same = |there: &&mut ConfigMap| there.metadata.uid == map.metadata.uid;
                let there = self.config_maps.iter_mut().find(is_same).expect("applies what is there");
                let version = |map: &ConfigMap| {
                    let seen = ObservedExperts::of(map.clone(), "5e1f").and_then(|seen| seen.map);
                    seen.map_or(0, |map| map.version())
                };
                assert!(version(there) <= version(map), "a map is followed by an older one");
                *there = map.as_ref().clone();
                there.metadata.resource_version = Some(self.serial.to_string());
            }
            Action::DeleteConfigMap(deletion) => {
                let before = self.config_maps.len();
                self.config_maps.retain(|there| there.metadata.uid.as_ref() != Some(&deletion.uid));
                assert_eq!(self.config_maps.len() + 1, before, "deletes what is there");
            }
            Action::ChangeCertificates(change) => {
                use CertificateStep::{Announce, Make, MakeAnew, Switch};
                self.certificates = match (change.step, &self.certificates) {
                    (Make(valid) | MakeAnew(valid), _) => {
                        ObservedCertificates::Ours { valid: Some(valid), next: None }
                    }
                    (Announce(next), ObservedCertificates::Ours { valid, .. }) => {
                        ObservedCertificates::Ours { valid: *valid, next: Some(next) }
                    }
                    (Switch(next), _) => ObservedCertificates::Ours { valid: Some(next), next: None },
                    (step, there) => panic!("{step:?} of {there:?}"),
                };
            }
            Action::Annotate(annotation) => {
                let index = self.index(&annotation.pod);
                let pod = self.touch(index);
                assert_eq!(pod.metadata.uid.as_ref(), Some(&annotation.uid));
                pod.metadata.labels.get_or_insert_default().extend(annotation.labels.clone());
                let annotations = pod.metadata.annotations.get_or_insert_default();
                for (key, value) in annotation.annotations.clone() {
                    match value {
                        Some(value) => _ = annotations.insert(key, value),
                        None => _ = annotations.remove(&key),
                    }
                }
            }
            Action::CreatePod(pod) => {
                let mut pod = pod.as_ref().clone();
                self.log.push(format!("+{}", pod.metadata.name.as_deref().unwrap()));
                assert!(
                    !self.pods.iter().any(|there| there.metadata.name == pod.metadata.name),
                    "name is taken"
                );
                pod.metadata.uid = Some(format!("uid-{}", self.serial));
                pod.metadata.resource_version = Some(self.serial.to_string());
                pod.metadata.creation_timestamp = Some(Time(self.now));
                pod.status = Some(PodStatus { phase: Some("Pending".into()), ..Default::default() });
                self.pods.push(pod);
            }
            Action::DeletePod(deletion) => {
                self.log.push(format!("-{}", deletion.name));
                let index = self.index(&deletion.name);
                let pod = &self.pods[index];
                assert_eq!(pod.metadata.uid.as_ref(), Some(&deletion.uid));
                assert_eq!(pod.metadata.resource_version.as_ref(), Some(&deletion.resource_version));
                if deletion.grace_seconds == Some(0) { self.remove(index) } else { self.delete(index) }
            }
        }
    }

    pub(crate) fn index(&self, name: &str) -> usize {
        self.pods.iter().position(|pod| pod.metadata.name.as_deref() == Some(name)).expect("no such pod")
    }

    /// A pod that has ended is gone at once; another one has its grace period.
    pub(crate) fn delete(&mut self, index: usize) {
        let phase = self.status(index).phase.clone();
        if matches!(phase.as_deref(), Some("Failed" | "Succeeded")) {
            self.pods.remove(index);
            return;
        }
        let grace = self.pods[index].spec.as_ref().unwrap().termination_grace_period_seconds.unwrap();
        let end = self.now + SignedDuration::from_secs(grace);
        self.touch(index).metadata.deletion_timestamp.get_or_insert(Time(end));
    }

    pub(crate) fn remove(&mut self, index: usize) {
        self.pods.remove(index);
    }

    fn touch(&mut self, index: usize) -> &mut Pod {
        self.serial += 1;
        let pod = &mut self.pods[index];
        pod.metadata.resource_version = Some(self.serial.to_string());
        pod
    }

    fn status(&mut self, index: usize) -> &mut PodStatus {
        self.touch(index).status.as_mut().unwrap()
    }

    pub(crate) fn set_ready(&mut self, index: usize, ready: bool) {
        self.pods[index].spec.as_mut().unwrap().node_name = Some("worker-1".into());
        let condition = PodCondition {
            type_: "Ready".into(),
            status: if ready { "True" } else { "False" }.into(),
            ..Default::default()
        };
        let status = self.status(index);
        status.phase = Some("Running".into());
        status.conditions = Some(vec![condition]);
        if ready && let Some(container) = status.container_statuses.as_mut().and_then(|list| list.first_mut())
        {
            container.state = None;
        }
    }

    /// Its process ends and waits for the kubelet to start it again.
    pub(crate) fn crash(&mut self, index: usize, exit_code: i32, message: &str) {
        self.set_ready(index, false);
        let finished = Time(self.now);
        let status = self.status(index);
        let restarts = status.container_statuses.as_ref().map_or(0, |list| list[0].restart_count);
        let mut container = container(name::CONTAINER_RANK, restarts + 1);
        container.state = Some(waiting("CrashLoopBackOff", "back-off 10s restarting failed container"));
        container.last_state = Some(terminated(exit_code, message, finished));
        status.container_statuses = Some(vec![container]);
    }

    /// The node throws it out.
    pub(crate) fn evict(&mut self, index: usize) {
        let status = self.status(index);
        status.phase = Some("Failed".into());
        status.reason = Some("Evicted".into());
        status.message = Some("The node was low on resource: memory.".into());
        status.conditions = None;
    }

    pub(crate) fn wait_for(&mut self, index: usize, reason: &str, message: &str) {
        let mut container = container(name::CONTAINER_RANK, 0);
        if ObservedPod::from(&self.pods[index]).role == Some(Role::Inspect) {
            container.name = name::CONTAINER_INSPECT.into();
        }
        container.state = Some(waiting(reason, message));
        self.status(index).container_statuses = Some(vec![container]);
    }

    pub(crate) fn unschedulable(&mut self, index: usize, message: &str) {
        let condition = PodCondition {
            type_: "PodScheduled".into(),
            status: "False".into(),
            reason: Some("Unschedulable".into()),
            message: Some(message.into()),
            ..Default::default()
        };
        self.status(index).conditions = Some(vec![condition]);
    }

    pub(crate) fn end_inspection(&mut self, index: usize) {
        let (exit_code, message) = self.verdict.clone();
        let finished = Time(self.now);
        let status = self.status(index);
        status.phase = Some(if exit_code == 0 { "Succeeded" } else { "Failed" }.into());
        let mut container = container(name::CONTAINER_INSPECT, 0);
        container.state = Some(terminated(exit_code, &message, finished));
        status.container_statuses = Some(vec![container]);
    }

    /// Everything that the cluster would do by itself within a minute. Whether it did anything.
    pub(crate) fn let_live(&mut self) -> bool {
        let mut changed = false;
        for index in (0..self.pods.len()).rev() {
            let pod = ObservedPod::from(&self.pods[index]);
            let args = self.pods[index].spec.as_ref().unwrap().containers[0].args.clone().unwrap_or_default();
            let is_broken = self.broken.is_some_and(|flag| args.join(" ").contains(flag));
            let has_ended = self.pods[index].status.as_ref().unwrap().phase.as_deref() == Some("Failed")
                || self.pods[index].status.as_ref().unwrap().phase.as_deref() == Some("Succeeded");
            if pod.terminating.is_some() {
                self.remove(index);
            } else if has_ended {
                continue;
            } else if pod.role == Some(Role::Inspect) {
                self.end_inspection(index);
            } else if !pod.ready && !is_broken {
                self.set_ready(index, true);
            } else if is_broken && pod.node.is_none() {
                self.set_ready(index, false);
            } else if !(pod.ready && self.follow_map(index)) {
                continue;
            }
            changed = true;
        }
        changed
    }

    /// Reconciles until there is nothing to do and nothing to write.
    pub(crate) fn quiesce(&mut self, mut check: impl FnMut(&World, &Plan)) -> Plan {
        for _ in 0..1000 {
            check(self, &self.plan());
            let (plan, written) = self.reconcile();
            if plan.actions.is_empty() && !written {
                return plan;
            }
        }
        panic!("reconciles forever: {:?}", self.log);
    }

    /// Lets the cluster live, and time pass, until nothing happens any more.
    pub(crate) fn settle(&mut self, mut check: impl FnMut(&World, &Plan)) -> Plan {
        for _ in 0..1000 {
            let plan = self.quiesce(&mut check);
            if self.let_live() {
                self.now += SignedDuration::from_secs(1);
            } else if let Some(after) = plan.look_again_after.filter(|after| *after < DAY) {
                // Certificates would go on for ever.
                self.now += after;
                if self.broken.is_some() || self.verdict.0 != 0 || self.claim == Some(ClaimState::Missing) {
                    return plan;
                }
            } else {
                return plan;
            }
        }
        panic!("never settles: {:?}", self.log);
    }

    /// What was made and deleted since the last call.
    pub(crate) fn done(&mut self) -> String {
        let log = std::mem::take(&mut self.log);
        log.into_iter().filter(|entry| !entry.starts_with('!')).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn condition(&self, kind: &str) -> (String, String, String) {
        let status = self.object.status.as_ref().unwrap();
        let condition = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        (condition.status.clone(), condition.reason.clone(), condition.message.clone())
    }
}

/// A world in which all replicas are ready, with an empty log.
pub(crate) fn settled(replicas: i32) -> World {
    settled_with(replicas, 1)
}

/// The same with several ranks a replica.
pub(crate) fn settled_with(replicas: i32, ranks: u32) -> World {
    let mut world = World::new(replicas);
    world.object.spec.ranks = Some(ranks);
    world.settle(|_, _| {});
    world.log.clear();
    world
}

pub(crate) fn rank_name(replica: u32) -> String {
    objects::rank_pod_name("smol", replica, None)
}

fn container(name: &str, restarts: i32) -> ContainerStatus {
    ContainerStatus { name: name.into(), restart_count: restarts, ..Default::default() }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.into()), message: Some(message.into()) };
    ContainerState { waiting: Some(waiting), ..Default::default() }
}

fn terminated(exit_code: i32, message: &str, finished: Time) -> ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code,
        message: Some(message.into()),
        reason: Some(if exit_code == 0 { "Completed" } else { "Error" }.into()),
        finished_at: Some(finished),
        ..Default::default()
    };
    ContainerState { terminated: Some(terminated), ..Default::default() }
}
