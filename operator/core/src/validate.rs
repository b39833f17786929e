//! ModelDeployment → [`Deployment`]: parse, don't validate. After this step no field can be wrong.
//!
//! CEL refuses most of what is refused here already at admission; an object may be older than a rule, and quantities of
//! other resources than cpu and memory are compared only here.

mod scaling;

pub use scaling::Scaling;

use crate::observed::quantity;
use coterie_api::deployment::scaling::{
    QUEUE_TARGET_LIMIT, REPLICAS_LIMIT, SLO_MILLISECONDS_LIMIT, WAIT_SECONDS_LIMIT,
};
use coterie_api::deployment::{
    DRAIN_SECONDS_LIMIT, DeviceChoice, ExpertsSpec, ModelDeployment, NAME_LIMIT, PullPolicy, Resources,
    SourceSpec, TemplateSpec,
};
use coterie_api::expert_map::{EXPERTS_LIMIT, RANKS_LIMIT};
use coterie_api::launch::{Device, Quantization, Speculate};
use coterie_api::name::{ANNOTATION_RESTART, GPU_RESOURCE};
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;

/// A ModelDeployment whose every field makes sense, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// metadata.name; a DNS label of at most [`coterie_api::deployment::NAME_LIMIT`] characters.
    pub name: String,
    /// metadata.namespace.
    pub namespace: String,
    /// metadata.uid.
    pub uid: String,
    /// metadata.generation.
    pub generation: i64,
    /// The reference that makes the garbage collector delete our objects with it.
    pub owner: OwnerReference,
    /// What clients put into `model`.
    pub served_name: String,
    /// Where the weights are.
    pub source: Source,
    /// Longest request in tokens, if it was asked for.
    pub context_length: Option<u32>,
    /// How the weights are held, if it was asked for.
    pub quantization: Option<Quantization>,
    /// Where guesses come from, if it was asked for.
    pub speculate: Option<Speculate>,
    /// What to compute on.
    pub device: DeviceChoice,
    /// GPUs of one rank, if it was asked for; counts when the device is a GPU.
    pub gpus_per_rank: Option<u32>,
    /// The ResourceClaimTemplate by which a rank claims its GPUs, if it does.
    pub claim_template: Option<String>,
    /// Whole copies of the model; what `scaling` starts from, if that is there.
    pub replicas: usize,
    /// How many replicas there are by demand, if that was asked for.
    pub scaling: Option<Scaling>,
    /// Pods of one replica, if it was asked for; at least 1.
    pub ranks: Option<u32>,
    /// How the experts of a replica are spread over its ranks.
    pub experts: ExpertsSpec,
    /// How long a rank may go on with running requests after it was told to end.
    pub drain_seconds: u32,
    /// What the pods look like to the cluster.
    pub template: Template,
    /// Value of the restart annotation: another one replaces every pod.
    pub restart: Option<String>,
}

impl Deployment {
    /// How long a token may take after the one before it, milliseconds, where `scaling` says it.
    pub fn itl_milliseconds(&self) -> Option<u32> {
        let itl = self.scaling.as_ref()?.itl.as_millis();
        u32::try_from(itl).ok()
    }
}

/// Where the weights are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An OCI image or artifact.
    Image {
        /// As for a container image.
        reference: String,
        /// When nodes ask the registry.
        pull_policy: Option<PullPolicy>,
    },
    /// A PersistentVolumeClaim in the same namespace.
    Claim {
        /// Its name.
        name: String,
        /// Folder inside it; relative, without `..`, without leading or trailing slash.
        path: Option<String>,
    },
}

/// What the pods look like to the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template {
    /// Further labels.
    pub labels: BTreeMap<String, String>,
    /// Further annotations.
    pub annotations: BTreeMap<String, String>,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that do not keep the pods away.
    pub tolerations: Vec<Toleration>,
    /// As written.
    pub requests: BTreeMap<String, Quantity>,
    /// As written.
    pub limits: BTreeMap<String, Quantity>,
    /// Memory request, bytes.
    pub memory_request: Option<u64>,
    /// Memory limit, bytes.
    pub memory_limit: Option<u64>,
    /// CPU that a node must have free, thousandths of a core.
    pub cpu_request: Option<u64>,
    /// Priority class.
    pub priority_class_name: Option<String>,
    /// Names of pull secrets.
    pub image_pull_secrets: Vec<String>,
}

/// Why a ModelDeployment cannot be served as it is written; one variant per rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A path that leaves the claim.
    #[error(
        "model.source.persistentVolumeClaim.path {0:?} leaves the claim: write it relative to the claim's root and \
         without .., like models/mixtral"
    )]
    ClaimPath(String),
    /// No name of a claim.
    #[error(
        "model.source.persistentVolumeClaim.claimName {0:?} is no name that a claim can have: see kubectl get pvc"
    )]
    ClaimName(String),
    /// Zero tokens.
    #[error(
        "model.contextLength is 0: set the longest request in tokens, or leave it out for the model's own"
    )]
    ContextLength,
    /// Longer than a day.
    #[error("rollout.drainSeconds is {0}: set at most {DRAIN_SECONDS_LIMIT}, which is a day")]
    DrainSeconds(u32),
    /// GPUs in the pod template.
    #[error(
        "template.resources names nvidia.com/gpu: ask for GPUs by accelerator: {{device: Gpu, perRank: N}}"
    )]
    GpusInTemplate,
    /// No image reference.
    #[error(
        "model.source.image.reference {0:?} is empty or has white space: write it as for a container image, e.g. \
         registry.example.com/models/mixtral:1"
    )]
    ImageReference(String),
    /// The object did not come from an API server.
    #[error("metadata.{0} is missing: read the object from the API server")]
    Metadata(&'static str),
    /// A name that Services and pods cannot be named after.
    #[error(
        "the name {0:?} becomes part of Service and pod names: use at most {NAME_LIMIT} lower-case letters, digits \
         and dashes, starting with a letter"
    )]
    Name(String),
    /// No GPU, or more than a node can have.
    #[error("accelerator.perRank is {0}: set 1 to {GPUS_LIMIT}")]
    PerRank(u32),
    /// GPUs on a CPU.
    #[error("accelerator.perRank counts GPUs: leave it out with device Cpu, or set device to Gpu")]
    PerRankOnCpu,
    /// Weights that no CPU computes with.
    #[error(
        "model.quantization Int4 is for GPUs only: set it to Int8 or leave it out with accelerator.device Cpu, or set device \
         to Gpu"
    )]
    QuantizationOnCpu,
    /// A claim without GPUs.
    #[error("accelerator.claimTemplate needs device: Gpu, and in perRank how many GPUs one claim holds")]
    ClaimTemplate,
    /// Not a quantity.
    #[error("template.resources.{field} is {text:?}: write a quantity like 500m or 4Gi")]
    Quantity {
        /// e.g. `limits.memory`.
        field: String,
        /// As written.
        text: String,
    },
    /// No rank, or more than an expert map can name.
    #[error("ranks is {0}: set 1 to {RANKS_LIMIT}, or leave it out for what the nodes can hold")]
    Ranks(u32),
    /// More copies than an expert map can name.
    #[error("experts.redundant is {0}: set at most {EXPERTS_LIMIT}")]
    Redundant(u32),
    /// Copies for ranks that are not there.
    #[error(
        "experts.redundant asks for {0} copies on other ranks, and ranks is 1: set ranks to 2 or more, or leave \
         experts.redundant out"
    )]
    RedundantOnOneRank(u32),
    /// A number that the scaler cannot work with.
    #[error("scaling.{field} is {value}: set {least} to {most}")]
    ScalingRange {
        /// e.g. `idleSeconds`.
        field: &'static str,
        /// As written.
        value: i64,
        /// May be written.
        least: i64,
        /// May be written.
        most: i64,
    },
    /// The fewest are more than the most.
    #[error("scaling.minReplicas is {least}, and maxReplicas {most}: lower the one or raise the other")]
    ScalingBounds {
        /// minReplicas.
        least: i32,
        /// maxReplicas.
        most: i32,
    },
    /// Two that decide how many replicas there are.
    #[error(
        "scaling decides how many replicas there are, and replicas is {0}: leave replicas out, or remove scaling to set \
         replicas by hand"
    )]
    ReplicasBesideScaling(i32),
    /// Less than nothing.
    #[error("replicas is {0}: set 0 or more")]
    Replicas(i32),
    /// More asked for than allowed.
    #[error("template.resources.requests.{0} is more than limits.{0}: lower the request or raise the limit")]
    RequestOverLimit(String),
    /// A key that belongs to the operator.
    #[error(
        "template.{field} holds {key}: keys under coterie.dev/ belong to the operator, use a prefix of your own"
    )]
    ReservedKey {
        /// `labels` or `annotations`.
        field: &'static str,
        /// The key.
        key: String,
    },
    /// A name that cannot stand in a request or on a command line.
    #[error(
        "model.servedName {0:?} may hold letters, digits and . _ / : - and must start and end with a letter or digit: \
         choose a name like mixtral-8x7b or org/model"
    )]
    ServedName(String),
    /// None or several sources.
    #[error("set exactly one of model.source.image and model.source.persistentVolumeClaim; {0} are set")]
    SourceCount(usize),
}

/// Most GPUs of one rank.
pub const GPUS_LIMIT: u32 = 16;
const SERVED_NAME_LIMIT: usize = 128;

/// Checks every rule and fills in every default.
pub fn validate(object: &ModelDeployment) -> Result<Deployment, Invalid> {
    let spec = &object.spec;
    let name = present(&object.metadata.name, "name")?;
    if name.len() > NAME_LIMIT || !is_label(&name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(Invalid::Name(name));
    }
    let uid = present(&object.metadata.uid, "uid")?;
    let served_name = spec.model.served_name.clone().unwrap_or_else(|| name.clone());
    if !is_served_name(&served_name) {
        return Err(Invalid::ServedName(served_name));
    }
    if spec.model.context_length == Some(0) {
        return Err(Invalid::ContextLength);
    }
    let gpus_per_rank = spec.accelerator.per_rank;
    if let Some(gpus) = gpus_per_rank.filter(|gpus| !(1..=GPUS_LIMIT).contains(gpus)) {
        return Err(Invalid::PerRank(gpus));
    }
    if spec.accelerator.device == DeviceChoice::Cpu && gpus_per_rank.is_some_and(|gpus| gpus != 1) {
        return Err(Invalid::PerRankOnCpu);
    }
    let quantization = spec.model.quantization;
    if spec.accelerator.device == DeviceChoice::Cpu && quantization.is_some_and(|it| !it.runs_on(Device::Cpu))
    {
        return Err(Invalid::QuantizationOnCpu);
    }
    let claim_template = spec.accelerator.claim_template.clone();
    if claim_template.is_some() && (spec.accelerator.device != DeviceChoice::Gpu || gpus_per_rank.is_none()) {
        return Err(Invalid::ClaimTemplate);
    }
    if let Some(ranks) = spec.ranks.filter(|ranks| !(1..=RANKS_LIMIT as u32).contains(ranks)) {
        return Err(Invalid::Ranks(ranks));
    }
    let redundant = spec.experts.redundant;
    if redundant > EXPERTS_LIMIT as u32 {
        return Err(Invalid::Redundant(redundant));
    }
    if redundant > 0 && spec.ranks == Some(1) {
        return Err(Invalid::RedundantOnOneRank(redundant));
    }
    if spec.rollout.drain_seconds > DRAIN_SECONDS_LIMIT {
        return Err(Invalid::DrainSeconds(spec.rollout.drain_seconds));
    }
    Ok(Deployment {
        namespace: present(&object.metadata.namespace, "namespace")?,
        generation: object.metadata.generation.unwrap_or_default(),
        owner: OwnerReference {
            api_version: ModelDeployment::api_version(&()).into_owned(),
            kind: ModelDeployment::kind(&()).into_owned(),
            name: name.clone(),
            uid: uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        },
        served_name,
        source: source(&spec.model.source)?,
        context_length: spec.model.context_length,
        quantization: spec.model.quantization,
        speculate: spec.model.speculate,
        device: spec.accelerator.device,
        gpus_per_rank,
        claim_template,
        replicas: usize::try_from(spec.replicas).map_err(|_| Invalid::Replicas(spec.replicas))?,
        scaling: spec.scaling.as_ref().map(|scaling| scaling::scaling(scaling, spec.replicas)).transpose()?,
        ranks: spec.ranks,
        experts: spec.experts.clone(),
        drain_seconds: spec.rollout.drain_seconds,
        template: template(&spec.template)?,
        restart: object.annotations().get(ANNOTATION_RESTART).cloned(),
        name,
        uid,
    })
}

fn present(field: &Option<String>, name: &'static str) -> Result<String, Invalid> {
    field.clone().filter(|value| !value.is_empty()).ok_or(Invalid::Metadata(name))
}

fn source(source: &SourceSpec) -> Result<Source, Invalid> {
    match (&source.image, &source.persistent_volume_claim) {
        (Some(image), None) => {
            if image.reference.is_empty() || image.reference.contains(char::is_whitespace) {
                return Err(Invalid::ImageReference(image.reference.clone()));
            }
            Ok(Source::Image { reference: image.reference.clone(), pull_policy: image.pull_policy })
        }
        (None, Some(claim)) => {
            if claim.claim_name.len() > 253 || !claim.claim_name.split('.').all(is_label) {
                return Err(Invalid::ClaimName(claim.claim_name.clone()));
            }
            Ok(Source::Claim {
                name: claim.claim_name.clone(),
                path: claim.path.as_deref().map(path).transpose()?,
            })
        }
        (None, None) => Err(Invalid::SourceCount(0)),
        (Some(_), Some(_)) => Err(Invalid::SourceCount(2)),
    }
}

fn path(path: &str) -> Result<String, Invalid> {
    let relative = path.trim_end_matches('/');
    if relative.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(Invalid::ClaimPath(path.to_owned()));
    }
    Ok(relative.to_owned())
}

fn template(template: &TemplateSpec) -> Result<Template, Invalid> {
    for (field, map) in [("labels", &template.labels), ("annotations", &template.annotations)] {
        if let Some(key) = map.keys().find(|key| key.starts_with("coterie.dev/")) {
            return Err(Invalid::ReservedKey { field, key: key.clone() });
        }
    }
    let Resources { requests, limits } = &template.resources;
    if requests.contains_key(GPU_RESOURCE) || limits.contains_key(GPU_RESOURCE) {
        return Err(Invalid::GpusInTemplate);
    }
    let request_amounts = amounts("requests", requests)?;
    let limit_amounts = amounts("limits", limits)?;
    let over =
        |(key, request): &(&String, &u64)| limit_amounts.get(*key).is_some_and(|limit| *request > limit);
    if let Some((key, _)) = request_amounts.iter().find(over) {
        return Err(Invalid::RequestOverLimit(key.clone()));
    }
    // A container that only has a limit requests as much.
    let cpu = request_amounts.get("cpu").or_else(|| limit_amounts.get("cpu"));
    let bytes = |thousandths: &u64| thousandths.div_ceil(1000);
    Ok(Template {
        labels: template.labels.clone(),
        annotations: template.annotations.clone(),
        node_selector: template.node_selector.clone(),
        tolerations: template.tolerations.clone(),
        requests: requests.clone(),
        limits: limits.clone(),
        memory_request: request_amounts.get("memory").map(bytes),
        memory_limit: limit_amounts.get("memory").map(bytes),
        cpu_request: cpu.copied(),
        priority_class_name: template.priority_class_name.clone(),
        image_pull_secrets: template.image_pull_secrets.iter().map(|secret| secret.name.clone()).collect(),
    })
}

/// Thousandths of every quantity.
fn amounts(field: &str, quantities: &BTreeMap<String, Quantity>) -> Result<BTreeMap<String, u64>, Invalid> {
    let parse = |(key, quantity): (&String, &Quantity)| match quantity::thousandths(quantity) {
        Some(amount) => Ok((key.clone(), amount)),
        None => Err(Invalid::Quantity { field: format!("{field}.{key}"), text: quantity.0.clone() }),
    };
    quantities.iter().map(parse).collect()
}

/// A DNS label: lower-case letters, digits and inner dashes.
fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_served_name(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.len() <= SERVED_NAME_LIMIT
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || "._/:-".contains(c))
}

#[cfg(test)]
mod tests;
