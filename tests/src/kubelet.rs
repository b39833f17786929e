//! What a kubelet and the scheduler would say about pods; said by the test.

use crate::world::World;
use anyhow::{Context, Result};
use coterie_api::launch::{Device, Inspection, Termination, TerminationReason, WeightBytes};
use coterie_api::name::{CONTAINER_INSPECT, CONTAINER_RANK, LABEL_ROLE, ROLE_INSPECT, ROLE_RANK};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use std::pin::pin;

/// A small model: 100 MB in bf16, 60 MB in int8.
pub fn inspection() -> Inspection {
    Inspection {
        architecture: "MixtralForCausalLM".to_owned(),
        parameters: 50_000_000,
        active_parameters: 20_000_000,
        layers: 4,
        expert_layers: None,
        experts: 8,
        experts_per_token: 2,
        context_length: 2048,
        weight_bytes: WeightBytes { none: 100_000_000, int8: 60_000_000, int4: None },
        expert_bytes: None,
        kv_bytes_per_token: 1024,
        state_bytes: 0,
        working_bytes: 50_000_000,
        spare_bytes: 0,
        draft_module: None,
        digest: "sha256:0123456789abcdef".to_owned(),
        devices: vec![Device::Cpu],
        most_gpus: 1,
    }
}

/// Why the runtime refuses a model that it does not know.
pub fn unknown_architecture() -> Termination {
    Termination {
        reason: TerminationReason::ModelRejected,
        message: "config.json names the architecture GPT2LMHeadModel, which this runtime does not know"
            .to_owned(),
    }
}

/// Whether it is the pod that looks at the weights.
pub fn inspects(pod: &Pod) -> bool {
    pod.labels().get(LABEL_ROLE).is_some_and(|role| role == ROLE_INSPECT)
}

/// Whether it is a pod that serves.
pub fn serves(pod: &Pod) -> bool {
    pod.labels().get(LABEL_ROLE).is_some_and(|role| role == ROLE_RANK)
}

/// The scheduler and the kubelet of one test's nodes.
#[derive(Clone)]
pub struct Kubelet {
    pods: Api<Pod>,
}

impl Kubelet {
    /// For the pods of `world`.
    pub fn new(world: &World) -> Self {
        Self { pods: world.api() }
    }

    /// The scheduler puts `pod` on `node`.
    pub async fn bind(&self, pod: &str, node: &str) -> Result<()> {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": pod},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node}
        });
        let bound: kube::Result<Value> =
            self.pods.create_subresource("binding", pod, &PostParams::default(), &binding).await;
        bound.with_context(|| format!("cannot bind {pod}"))?;
        Ok(())
    }

    /// The scheduler finds no node for `pod`.
    pub async fn unschedulable(&self, pod: &str, why: &str) -> Result<()> {
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why,
            "lastTransitionTime": now()
        });
        self.say(pod, json!({"phase": "Pending", "conditions": [condition]})).await
    }

    /// The inspect pod's container ends well with `inspection`.
    pub async fn inspected(&self, pod: &str, inspection: &Inspection) -> Result<()> {
        let message = serde_json::to_string(inspection)?;
        self.ended(pod, "Succeeded", CONTAINER_INSPECT, 0, "Completed", &message).await
    }

    /// The inspect pod's container ends with a refusal.
    pub async fn rejected(&self, pod: &str, termination: &Termination) -> Result<()> {
        let message = serde_json::to_string(termination)?;
        self.ended(pod, "Failed", CONTAINER_INSPECT, 1, "Error", &message).await
    }

    /// The rank runs and its readiness probe succeeds.
    pub async fn ready(&self, pod: &str) -> Result<()> {
        self.ready_at(pod, "10.0.0.1").await
    }

    /// The same at an address of the test's choice.
    pub async fn ready_at(&self, pod: &str, ip: &str) -> Result<()> {
        let running = json!({"running": {"startedAt": now()}});
        self.running(pod, ip, true, running, json!({}), 0).await
    }

    /// The rank runs and is not ready.
    pub async fn starting(&self, pod: &str) -> Result<()> {
        let running = json!({"running": {"startedAt": now()}});
        self.running(pod, "10.0.0.1", false, running, json!({}), 0).await
    }

    /// The rank's process has ended `restarts` times and waits for its next try.
    pub async fn crash_looping(&self, pod: &str, restarts: i32, termination: &Termination) -> Result<()> {
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}});
        let ended = json!({"terminated": {
            "exitCode": 1, "reason": "Error", "message": serde_json::to_string(termination)?,
            "startedAt": now(), "finishedAt": now()
        }});
        self.running(pod, "10.0.0.1", false, waiting, ended, restarts).await
    }

    /// The whole pod failed, e.g. it was evicted.
    pub async fn failed(&self, pod: &str, reason: &str, message: &str) -> Result<()> {
        self.say(pod, json!({"phase": "Failed", "reason": reason, "message": message})).await
    }

    /// The kubelet has stopped a pod that was asked to end.
    pub async fn gone(&self, pod: &str) -> Result<()> {
        match self.pods.delete(pod, &DeleteParams::default().grace_period(0)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Plays a healthy cluster until dropped: inspections succeed, ranks become ready on `node`, deleted pods go.
    pub async fn play(self, node: String) {
        let mut pods =
            pin!(watcher(self.pods.clone(), Config::default()).default_backoff().applied_objects());
        while let Some(event) = pods.next().await {
            let Ok(pod) = event else { continue };
            // A pod that is gone or changed in between is told about again.
            let _ = self.attend(&pod, &node).await;
        }
    }

    async fn attend(&self, pod: &Pod, node: &str) -> Result<()> {
        let name = pod.name_any();
        if pod.meta().deletion_timestamp.is_some() {
            return self.gone(&name).await;
        }
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()) {
            return self.bind(&name, node).await;
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        match phase {
            None | Some("Pending") if inspects(pod) => self.inspected(&name, &inspection()).await,
            None | Some("Pending") => self.ready(&name).await,
            _ => Ok(()),
        }
    }

    async fn running(
        &self,
        pod: &str,
        ip: &str,
        ready: bool,
        state: Value,
        last: Value,
        restarts: i32,
    ) -> Result<()> {
        let condition = |kind: &str, status: bool| json!({"type": kind, "status": if status { "True" } else { "False" }, "lastTransitionTime": now()});
        let conditions =
            [condition("PodScheduled", true), condition("ContainersReady", ready), condition("Ready", ready)];
        let container = json!({
            "name": CONTAINER_RANK, "image": "runtime", "imageID": "", "ready": ready, "started": true,
            "restartCount": restarts, "state": state, "lastState": last
        });
        let status = json!({
            "phase": "Running", "conditions": conditions, "containerStatuses": [container],
            "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now()
        });
        self.say(pod, status).await
    }

    async fn ended(
        &self,
        pod: &str,
        phase: &str,
        container: &str,
        code: i32,
        reason: &str,
        message: &str,
    ) -> Result<()> {
        let terminated = json!({
            "exitCode": code, "reason": reason, "message": message, "startedAt": now(), "finishedAt": now()
        });
        let container = json!({
            "name": container, "image": "runtime", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": terminated}
        });
        self.say(pod, json!({"phase": phase, "containerStatuses": [container]})).await
    }

    async fn say(&self, pod: &str, status: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"status": status}));
        let said = self.pods.patch_status(pod, &PatchParams::default(), &patch).await;
        said.with_context(|| format!("cannot set the status of {pod}"))?;
        Ok(())
    }
}

fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}
