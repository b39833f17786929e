//! ModelDeployment: what a platform team asks for ([`ModelDeploymentSpec`]) and what it is told
//! ([`status::ModelDeploymentStatus`]).
//!
//! CEL rules and schema limits stand beside the fields, so the API server refuses what cannot work. The operator
//! checks the same rules again, because an object may be older than a rule.

mod resource_definition;
pub mod scaling;
pub mod schema;
pub mod status;

pub use resource_definition::crd;
pub use scaling::ScalingSpec;
pub use status::ModelDeploymentStatus;

use crate::launch::{Activations, Quantization, Speculate};
use k8s_openapi::api::core::v1::{LocalObjectReference, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest name of a ModelDeployment. Pods and Services add suffixes to it, and all of them are DNS labels of at
/// most 63 characters.
pub const NAME_LIMIT: usize = 40;
/// Longest drain, seconds: one day.
pub const DRAIN_SECONDS_LIMIT: u32 = 86_400;

/// What is served, on what, how often.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "coterie.dev",
    version = "v1alpha1",
    kind = "ModelDeployment",
    plural = "modeldeployments",
    namespaced,
    shortname = "mdep",
    category = "all",
    category = "ai",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Mixture-of-Experts model, served behind one OpenAI-compatible endpoint.",
    status = "ModelDeploymentStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether everything that was asked for is in effect"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "What is missing first"
    ),
    printcolumn(
        name = "Replicas",
        type_ = "string",
        json_path = ".status.readyOfDesired",
        description = "Replicas that answer, of those asked for"
    ),
    printcolumn(
        name = "Ranks",
        type_ = "integer",
        json_path = ".status.ranks",
        description = "Ranks of one replica"
    ),
    printcolumn(
        name = "Experts",
        type_ = "string",
        json_path = ".status.experts.balance",
        description = "Balance: tokens of the busiest rank over the mean of all; of the replica with the worst"
    ),
    printcolumn(
        name = "Queue",
        type_ = "integer",
        json_path = ".status.scaling.queueDepth",
        description = "Requests that wait, at routers and ranks; with scaling"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Model",
        type_ = "string",
        json_path = ".status.weights.architecture",
        priority = 1,
        description = "Architecture found in the weights"
    ),
    printcolumn(
        name = "Quantization",
        type_ = "string",
        json_path = ".status.quantization",
        priority = 1,
        description = "How the weights are held in memory"
    ),
    printcolumn(
        name = "Context",
        type_ = "integer",
        json_path = ".status.contextLength",
        priority = 1,
        description = "Longest request in tokens, prompt and answer together"
    ),
    printcolumn(
        name = "Digest",
        type_ = "string",
        json_path = ".status.weights.digest",
        priority = 1,
        description = "Digest of the weights"
    ),
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name becomes part of Service and pod names: use at most 40 lower-case letters, digits and dashes, starting with a letter"),
    validation = Rule::new("!has(self.spec.ranks) || self.spec.ranks > 1 || !has(self.spec.experts) || self.spec.experts.redundant == 0")
        .message("experts.redundant asks for copies on other ranks, and ranks is 1: set ranks to 2 or more, or leave experts.redundant out"),
    validation = Rule::new("!has(self.spec.model.quantization) || self.spec.model.quantization != 'Int4' || !has(self.spec.accelerator) || !has(self.spec.accelerator.device) || self.spec.accelerator.device != 'Cpu'")
        .message("model.quantization Int4 is for GPUs only: set it to Int8 or leave it out with accelerator.device Cpu, or set device to Gpu"),
    validation = Rule::new("!has(self.spec.scaling) || self.spec.replicas == 1")
        .message("scaling decides how many replicas there are: set scaling.minReplicas and scaling.maxReplicas and leave replicas out (or at its default, 1), or remove scaling to set replicas by hand, with kubectl scale or by an autoscaler")
)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentSpec {
    /// What is served.
    pub model: ModelSpec,
    /// What it is computed on.
    #[serde(default)]
    pub accelerator: AcceleratorSpec,
    /// Whole copies of the model. The scale subresource (`kubectl scale`, autoscalers) writes this. With `scaling` it says
    /// nothing and must be left at its default.
    #[serde(default = "one_replica")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// How many replicas there are by demand, in place of `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingSpec>,
    /// Pods of one replica: each serves requests and holds a share of the experts. A change between two numbers above
    /// 1 leaves the ranks that stay running. Default: 1 where a node can hold a whole replica, else the fewest that the
    /// nodes can hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub ranks: Option<u32>,
    /// How the experts of a replica are spread over its ranks; counts only with several.
    #[serde(default, skip_serializing_if = "ExpertsSpec::is_default")]
    pub experts: ExpertsSpec,
    /// How pods are replaced.
    #[serde(default)]
    pub rollout: RolloutSpec,
    /// What the pods look like to the cluster.
    #[serde(default)]
    pub template: TemplateSpec,
}

/// How the experts of a replica are spread over its ranks.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpertsSpec {
    /// Slots of each layer beyond one for every expert, all ranks together: the busiest experts are held several
    /// times, and the rank that holds one alone may be lost only where it can be loaded again.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4096))]
    pub redundant: u32,
    /// Whether experts are moved when their load calls for it.
    #[serde(default)]
    pub rebalance: Rebalance,
    /// How activations travel between ranks.
    #[serde(default)]
    pub activations: Activations,
}

impl ExpertsSpec {
    /// Nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == ExpertsSpec::default()
    }
}

/// Whether experts are moved when their load calls for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Rebalance {
    /// When the gain exceeds the cost of moving.
    #[default]
    Auto,
    /// Only when ranks come or go.
    Never,
}

/// What is served.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// What clients put into `model`. Default: metadata.name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9._/:-]*[A-Za-z0-9])?$')")
        .message("servedName may hold letters, digits and . _ / : - and must start and end with a letter or digit: choose a name like mixtral-8x7b or org/model"))]
    pub served_name: Option<String>,
    /// Where the weights are.
    pub source: SourceSpec,
    /// Longest request in tokens, prompt and answer together. Default: the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub context_length: Option<u32>,
    /// How the weights are held in memory; Int4 on GPUs only. Default: the best that fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
    /// Where the guesses of speculative decoding come from, which change no answer: None; Lookup (what followed the same
    /// words before); Mtp (the checkpoint's draft module, which takes memory). Default: Lookup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speculate: Option<Speculate>,
}

/// Where the weights are: exactly one of the fields.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.image) != has(self.persistentVolumeClaim)")
    .message("set exactly one of model.source.image and model.source.persistentVolumeClaim"))]
pub struct SourceSpec {
    /// An OCI image or artifact whose files are the model folder; mounted as a read-only image volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,
    /// A claim in the same namespace that holds the model folder; mounted read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSource>,
}

/// Weights as an OCI image or artifact.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// Reference as for a container image, e.g. `registry.example.com/models/mixtral:1`.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[^ \\\\t\\\\r\\\\n]+$')")
        .message("reference must not contain white space: write it as for a container image, e.g. registry.example.com/models/mixtral:1"))]
    pub reference: String,
    /// When a node asks the registry. Default: Always for the tag `latest`, else IfNotPresent, as for containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
}

/// When a node asks the registry for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum PullPolicy {
    /// Before every start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

impl PullPolicy {
    /// As Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        }
    }
}

/// Weights in a claim.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSource {
    /// Name of a PersistentVolumeClaim in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')")
        .message("claimName is no name that a PersistentVolumeClaim can have: use the one that kubectl get pvc shows"))]
    pub claim_name: String,
    /// Folder of the model inside the claim. Default: its root.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')")
        .message("path must be relative to the claim's root and must not contain ..: write it like models/mixtral"))]
    pub path: Option<String>,
}

/// What a rank computes on.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.device != 'Cpu' || !has(self.perRank) || self.perRank == 1")
    .message("perRank counts GPUs: leave it out with device Cpu, or set device to Gpu"))]
#[x_kube(validation = Rule::new("!has(self.claimTemplate) || self.device == 'Gpu' && has(self.perRank)")
    .message("claimTemplate needs device: Gpu, and in perRank how many GPUs one claim holds"))]
pub struct AcceleratorSpec {
    /// Auto takes GPUs where nodes have them and the runtime can use them, else the CPU.
    #[serde(default)]
    pub device: DeviceChoice,
    /// GPUs of one rank, which hold its weights and its KV cache between them; only counts when the device is a GPU.
    /// Default: the fewest that are enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub per_rank: Option<u32>,
    /// Name of a ResourceClaimTemplate of this namespace, by which every rank claims its GPUs (Dynamic Resource
    /// Allocation, Kubernetes 1.34 and later) where nodes do not offer nvidia.com/gpu; perRank says how many one claim
    /// holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub claim_template: Option<String>,
}

/// What to compute on, or to leave it to the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum DeviceChoice {
    /// GPUs where nodes have them and the runtime can use them, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// NVIDIA GPUs.
    Gpu,
}

/// How pods are replaced: one more at a time, and an old one is only drained when the new one is ready.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// How long a rank that is taken out of service may go on with its running requests.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 0, max = 86_400))]
    pub drain_seconds: u32,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self { drain_seconds: ten_minutes() }
    }
}

/// What the pods look like to the cluster.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateSpec {
    /// Further labels of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('coterie.dev/'))")
        .message("labels under coterie.dev/ belong to the operator: use a prefix of your own"))]
    pub labels: BTreeMap<String, String>,
    /// Further annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('coterie.dev/'))")
        .message("annotations under coterie.dev/ belong to the operator: use a prefix of your own"))]
    pub annotations: BTreeMap<String, String>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that do not keep the pods away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// Resources of one rank. Memory that is not requested is requested by what the model needs.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// Priority class of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Secrets with which images (weights and runtime) are pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::image_pull_secrets")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

/// Resources of one rank.
// Only the two resources that every rank has: to compare all keys would cost more than the API server allows a rule.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.requests) || !has(self.limits) || ['cpu', 'memory'].all(k, !(k in self.requests) || !(k in self.limits) || quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)")
    .message("a request is more than its limit: lower template.resources.requests or raise template.resources.limits"))]
pub struct Resources {
    /// What the node must have free.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    #[x_kube(validation = Rule::new("!('nvidia.com/gpu' in self)")
        .message("GPUs are asked for by accelerator: {device: Gpu, perRank: N}"))]
    pub requests: BTreeMap<String, Quantity>,
    /// What the rank may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    #[x_kube(validation = Rule::new("!('nvidia.com/gpu' in self)")
        .message("GPUs are asked for by accelerator: {device: Gpu, perRank: N}"))]
    pub limits: BTreeMap<String, Quantity>,
}

impl Resources {
    /// Neither requests nor limits.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.limits.is_empty()
    }
}

fn one_replica() -> i32 {
    1
}

fn ten_minutes() -> u32 {
    600
}
