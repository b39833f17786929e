//! A namespace of a test's own, and the ModelDeployments and pods in it.

use crate::wait::until;
use anyhow::{Context, Result};
use coterie_api::name;
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod, Service};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;

/// A namespace that a test made and takes away again.
pub struct Namespace {
    /// The cluster.
    pub client: Client,
    /// The namespace's name.
    pub name: String,
}

impl Namespace {
    /// Makes a namespace with a name that starts with `prefix`.
    pub async fn create(prefix: &str) -> Result<Self> {
        let client = Client::try_default().await.context("no cluster: run `cargo xtask test`")?;
        let object = NamespaceObject {
            metadata: kube::api::ObjectMeta {
                generate_name: Some(format!("{prefix}-")),
                ..Default::default()
            },
            ..Default::default()
        };
        let made = Api::all(client.clone()).create(&PostParams::default(), &object).await?;
        Ok(Self { client, name: made.name_any() })
    }

    /// Deletes the ModelDeployments, waits until their pods have drained, and deletes the namespace. A failed test
    /// leaves all of it to be looked at.
    pub async fn delete(self) -> Result<()> {
        // Not by the namespace alone: its controller would wait half of each pod's grace period before it looks again.
        self.deployments().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        until("the pods to drain", Duration::from_secs(150), || async {
            let left = self.pods().list(&ListParams::default()).await?.items.len();
            Ok(if left == 0 { Ok(()) } else { Err(format!("{left} pods")) })
        })
        .await?;
        let api: Api<NamespaceObject> = Api::all(self.client.clone());
        api.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// The ModelDeployments of this namespace, as JSON: the tests know no type of the operator's.
    pub fn deployments(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk(name::GROUP, "v1alpha1", "ModelDeployment");
        let resource = ApiResource::from_gvk(&kind);
        Api::namespaced_with(self.client.clone(), &self.name, &resource)
    }

    /// The pods of this namespace.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Applies a ModelDeployment as `kubectl apply --server-side` would.
    pub async fn apply(&self, deployment: &str, spec: Value) -> kube::Result<DynamicObject> {
        let object = json!({
            "apiVersion": format!("{}/v1alpha1", name::GROUP),
            "kind": "ModelDeployment",
            "metadata": {"name": deployment},
            "spec": spec,
        });
        self.deployments().patch(deployment, &PatchParams::apply("e2e").force(), &Patch::Apply(object)).await
    }

    /// Merges `patch` into a ModelDeployment, as `kubectl patch --type=merge` would.
    pub async fn patch(&self, deployment: &str, patch: Value) -> kube::Result<DynamicObject> {
        self.deployments().patch(deployment, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    /// `kubectl scale --replicas`: through the scale subresource.
    pub async fn scale(&self, deployment: &str, replicas: i32) -> Result<()> {
        let patch = json!({"spec": {"replicas": replicas}});
        self.deployments().patch_scale(deployment, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Waits until a condition of a ModelDeployment, of its newest generation, has this status; gives the condition.
    pub async fn condition(
        &self,
        deployment: &str,
        kind: &str,
        status: &str,
        limit: Duration,
    ) -> Result<Value> {
        self.condition_where(deployment, kind, limit, &format!("status {status}"), |c| c["status"] == status)
            .await
    }

    /// Waits until a condition has this reason; gives the condition.
    pub async fn reason(&self, deployment: &str, kind: &str, reason: &str, limit: Duration) -> Result<Value> {
        self.condition_where(deployment, kind, limit, &format!("reason {reason}"), |c| c["reason"] == reason)
            .await
    }

    async fn condition_where(
        &self,
        deployment: &str,
        kind: &str,
        limit: Duration,
        wanted: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let api = self.deployments();
        until(&format!("{deployment}: condition {kind} with {wanted}"), limit, || async {
            let object = api.get(deployment).await?;
            let status = &object.data["status"];
            let current = status["observedGeneration"].as_i64() == object.metadata.generation;
            let found = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind);
            Ok(match found {
                Some(condition) if current && holds(condition) => Ok(condition.clone()),
                _ => Err(format!("generation {:?}, status {status}", object.metadata.generation)),
            })
        })
        .await
    }

    /// The rank pods of a ModelDeployment that nobody is deleting, by name.
    pub async fn ranks(&self, deployment: &str) -> Result<Vec<Pod>> {
        let selector =
            format!("{}={deployment},{}={}", name::LABEL_DEPLOYMENT, name::LABEL_ROLE, name::ROLE_RANK);
        let mut pods = self.pods().list(&ListParams::default().labels(&selector)).await?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods.sort_by_key(ResourceExt::name_any);
        Ok(pods)
    }

    /// Waits until exactly `count` rank pods live and all of them are Ready.
    pub async fn ready_ranks(&self, deployment: &str, count: usize, limit: Duration) -> Result<Vec<Pod>> {
        until(&format!("{deployment}: {count} ready pods"), limit, || async {
            let pods = self.ranks(deployment).await?;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            let fits = pods.len() == count && ready == count;
            Ok(if fits { Ok(pods) } else { Err(format!("{} pods, {ready} of them ready", pods.len())) })
        })
        .await
    }

    /// `http://ADDRESS:PORT` of a ModelDeployment's Service, once connections to it are taken: kube-proxy learns of a
    /// ready pod about a second after the pod's status says so.
    pub async fn endpoint(&self, deployment: &str) -> Result<String> {
        let service: Service = Api::namespaced(self.client.clone(), &self.name).get(deployment).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no address")?;
        let address = format!("{address}:{}", name::SERVICE_PORT);
        until(&format!("{address} to take connections"), Duration::from_secs(10), || async {
            Ok(TcpStream::connect(&address).await.map(drop).map_err(|error| error.to_string()))
        })
        .await?;
        Ok(format!("http://{address}"))
    }
}

/// Whether a pod's Ready condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}
