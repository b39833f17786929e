//! One test's own part of the API server.

use crate::api_server::{ApiServer, OPERATOR_NAMESPACE};
use crate::kubelet::{Kubelet, inspection, inspects, serves};
use crate::wire::Wire;
use anyhow::{Context, Result, bail};
use coterie_api::deployment::ModelDeployment;
use coterie_operator::options::Options;
use futures::future::BoxFuture;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Container, Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

/// How long [`eventually`] waits; long, because other tests use the same two cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

static WORLDS: AtomicU32 = AtomicU32::new(0);

/// A namespace, and nodes that only its pods fit.
pub struct World {
    /// The namespace; also the value of the label `world` of its nodes.
    pub namespace: String,
    /// A client that may do everything.
    pub client: Client,
    server: &'static ApiServer,
}

impl World {
    /// An empty namespace whose name begins with `subject`.
    pub async fn new(subject: &str) -> Result<Self> {
        show_logs();
        let server = ApiServer::shared()?;
        let client = Client::try_from(server.admin())?;
        let namespace = format!("{subject}-{}", WORLDS.fetch_add(1, Ordering::Relaxed));
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.patch(&namespace, &PatchParams::apply("tests"), &Patch::Apply(object)).await?;
        Ok(Self { namespace, client, server })
    }

    /// [`World::new`] with one large node `a`.
    pub async fn with_node(subject: &str) -> Result<Self> {
        let world = Self::new(subject).await?;
        world.node("a", "16Gi").await?;
        Ok(world)
    }

    /// The kind `K` in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes or changes the node `name` of this world: 8 CPUs, `memory`. Returns its full name.
    pub async fn node(&self, name: &str, memory: &str) -> Result<String> {
        let full = self.node_name(name);
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": full, "labels": {"world": self.namespace, "kubernetes.io/hostname": full}}
        });
        nodes.patch(&full, &PatchParams::apply("tests"), &Patch::Apply(node)).await?;
        let room = json!({"cpu": "8", "memory": memory, "pods": "110"});
        let ready = json!({
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"
        });
        let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
        nodes.patch_status(&full, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(full)
    }

    /// The full name of the node `name` of this world.
    pub fn node_name(&self, name: &str) -> String {
        format!("{}-{name}", self.namespace)
    }

    /// A ModelDeployment that takes its weights from an image and stays on this world's nodes.
    pub fn deployment(&self, name: &str) -> Value {
        json!({
            "apiVersion": "coterie.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": name},
            "spec": {
                "model": {"source": {"image": {"reference": "models/tiny:1"}}, "quantization": "None"},
                "rollout": {"drainSeconds": 5},
                "template": {"nodeSelector": {"world": self.namespace}}
            }
        })
    }

    /// Applies `deployment` as a user would.
    pub async fn apply(&self, deployment: &Value) -> kube::Result<ModelDeployment> {
        let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
        let params = PatchParams::apply("kubectl").force();
        self.api::<ModelDeployment>().patch(name, &params, &Patch::Apply(deployment)).await
    }

    /// Changes a ModelDeployment by a merge patch, as `kubectl edit` would.
    pub async fn change(&self, name: &str, patch: Value) -> kube::Result<ModelDeployment> {
        self.api::<ModelDeployment>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    /// The ModelDeployment `name` as it is now.
    pub async fn read(&self, name: &str) -> kube::Result<ModelDeployment> {
        self.api::<ModelDeployment>().get(name).await
    }

    /// All pods of this world, by name.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let mut pods = self.api::<Pod>().list(&ListParams::default()).await?.items;
        pods.sort_by_key(ResourceExt::name_any);
        Ok(pods)
    }

    /// The pods that serve, and are not asked to end, by name.
    pub async fn ranks(&self) -> Result<Vec<Pod>> {
        let mut pods = self.pods().await?;
        pods.retain(|pod| serves(pod) && pod.meta().deletion_timestamp.is_none());
        Ok(pods)
    }

    /// Deletes a pod at once, as a lost node or `kubectl delete --force` would.
    pub async fn destroy(&self, pod: &str) -> Result<()> {
        self.api::<Pod>().delete(pod, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// The fake scheduler and kubelet of this world.
    pub fn kubelet(&self) -> Kubelet {
        Kubelet::new(self)
    }

    /// Starts an operator for this namespace behind a wire of its own, without leader election.
    pub fn operator(&self) -> Result<Operator> {
        self.operator_on(Wire::default(), self.options())
    }

    /// Starts an operator behind `wire`.
    pub fn operator_on(&self, wire: Wire, options: Options) -> Result<Operator> {
        let client = wire.client(self.server.operator())?;
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(coterie_operator::run(client, options, async {
            let _ = stopped.await;
        }));
        Ok(Operator { wire, task, stop: Some(stop) })
    }

    /// A client with the rights of the front door.
    pub fn front_door(&self) -> Result<Client> {
        Ok(Client::try_from(self.server.front_door())?)
    }

    /// The options of [`World::operator`].
    pub fn options(&self) -> Options {
        Options {
            namespace: Some(self.namespace.clone()),
            gpu_runtime_image: None,
            runtime_image: "coterie:test".to_owned(),
            image_pull_policy: "Never".to_owned(),
            http_port: 0,
            lease_namespace: OPERATOR_NAMESPACE.to_owned(),
            identity: format!("operator-of-{}", self.namespace),
            pod_uid: None,
            resync_seconds: 600,
            certificate_seconds: 30 * 86_400,
            expert_window_seconds: 60,
            no_leader_election: true,
        }
    }

    /// Waits for the inspect pod and returns its name.
    pub async fn inspect_pod(&self) -> Result<String> {
        eventually("an inspect pod", || {
            Box::pin(async {
                let pods = self.pods().await?;
                let live = |pod: &&Pod| inspects(pod) && pod.meta().deletion_timestamp.is_none();
                Ok(pods.iter().find(live).map(ResourceExt::name_any))
            })
        })
        .await
    }

    /// Waits until the names of the serving pods are `names`.
    pub async fn ranks_are(&self, names: &[&str]) -> Result<Vec<Pod>> {
        eventually(&format!("the ranks {names:?}"), || {
            Box::pin(async {
                let ranks = self.ranks().await?;
                let same = ranks.iter().map(ResourceExt::name_any).eq(names.iter().map(ToString::to_string));
                Ok(same.then_some(ranks))
            })
        })
        .await
    }

    /// Waits until the condition `kind` has `status`, and `reason` if that is given.
    pub async fn condition(
        &self,
        name: &str,
        kind: &str,
        status: &str,
        reason: Option<&str>,
    ) -> Result<Condition> {
        let wanted = format!("{kind}={status} {}", reason.unwrap_or_default());
        let found = eventually(&wanted, || {
            Box::pin(async {
                let condition = condition(&self.read(name).await?, kind);
                Ok(condition
                    .filter(|it| it.status == status && reason.is_none_or(|reason| it.reason == reason)))
            })
        });
        match found.await {
            Ok(condition) => Ok(condition),
            Err(error) => {
                let status = serde_json::to_string_pretty(&self.read(name).await?.status)?;
                let pods = serde_json::to_string_pretty(&self.pods().await?)?;
                Err(error.context(format!("the status is {status}, the pods are {pods}")))
            }
        }
    }

    /// Applies `deployment` and brings it to one Ready rank on node `a`, step by step. Returns the rank's name.
    pub async fn serve(&self, deployment: &Value) -> Result<String> {
        let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
        self.apply(deployment).await?;
        let pod = self.inspect_pod().await?;
        self.kubelet().bind(&pod, &self.node_name("a")).await?;
        self.kubelet().inspected(&pod, &inspection()).await?;
        let rank = self.new_rank(&[]).await?;
        self.kubelet().bind(&rank, &self.node_name("a")).await?;
        self.kubelet().ready(&rank).await?;
        self.condition(name, "Ready", "True", None).await?;
        Ok(rank)
    }

    /// Waits for a serving pod that is none of `known`.
    pub async fn new_rank(&self, known: &[&str]) -> Result<String> {
        eventually(&format!("a rank that is none of {known:?}"), || {
            Box::pin(async {
                let ranks = self.ranks().await?;
                let names = ranks.iter().map(ResourceExt::name_any);
                Ok(names.into_iter().find(|name| !known.contains(&name.as_str())))
            })
        })
        .await
    }
}

/// An operator inside this process; killed when dropped.
pub struct Operator {
    /// Its wire to the API server.
    pub wire: Wire,
    task: JoinHandle<Result<(), coterie_operator::Error>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Operator {
    /// Asks it to end, as SIGTERM would, and waits for that.
    pub async fn stop(mut self) -> Result<()> {
        self.stop.take();
        let ended =
            tokio::time::timeout(PATIENCE, &mut self.task).await.context("the operator does not end")?;
        Ok(ended??)
    }

    /// Ends it at once, as SIGKILL would.
    pub async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Waits for its `nth` request for a new pod, counted from 0, and says how long after `start` that was sent.
    pub async fn pod_made_after(&self, nth: usize, start: Instant) -> Result<Duration> {
        eventually("the creation of a pod", || {
            Box::pin(async move {
                let calls = self.wire.calls();
                Ok(calls.iter().filter(|call| call.makes_pod()).nth(nth).map(|call| call.at - start))
            })
        })
        .await
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// With RUST_LOG set, the operators' log lines are part of a test's output.
fn show_logs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

/// What an operator answers on its HTTP port, head and all.
pub async fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The only container of `pod`.
pub fn container(pod: &Pod) -> Result<&Container> {
    pod.spec.as_ref().and_then(|spec| spec.containers.first()).context("a pod without containers")
}

/// The condition `kind` of `deployment`.
pub fn condition(deployment: &ModelDeployment, kind: &str) -> Option<Condition> {
    let status = deployment.status.as_ref()?;
    status.conditions.iter().find(|condition| condition.type_ == kind).cloned()
}

/// Asks `probe` again and again until it returns something; fails after [`PATIENCE`].
pub async fn eventually<'a, T>(
    what: &str,
    probe: impl Fn() -> BoxFuture<'a, Result<Option<T>>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe().await? {
            return Ok(found);
        }
        if start.elapsed() > PATIENCE {
            bail!("{what} did not come within {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
