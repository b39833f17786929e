//! What a ModelDeployment tells: is it ready, why not, what would fit, which weights are these.

use super::scaling::ScalingStatus;
use super::schema;
use crate::launch::{Device, Inspection, Quantization};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

/// Written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentStatus {
    /// Ready, Valid, Placed, WeightsLoaded, Serving, RolledOut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Replicas that exist and are not being removed, of any revision.
    #[serde(default)]
    pub replicas: i32,
    /// Replicas that answer, of any revision.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Ready and asked for, e.g. `1/2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_of_desired: Option<String>,
    /// Ranks of one replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranks: Option<i32>,
    /// Label selector of the pods, for autoscalers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// URL of the Service inside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How the weights are held in memory.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
    /// Longest request in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u32>,
    /// What one rank needs and what nodes offer.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub capacity: Option<CapacityStatus>,
    /// What was found in the weights.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightsStatus>,
    /// Where the replacement of pods stands.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Where the experts are and how they are loaded; only of replicas of several ranks.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub experts: Option<ExpertsStatus>,
    /// What is asked for and how many replicas that takes; only with `scaling`.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
    /// The last time that a rank ended or was lost without being asked to.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Failure>,
    /// The last time that weights could not be inspected; gone once they could.
    #[serde(default, deserialize_with = "if_readable", skip_serializing_if = "Option::is_none")]
    pub last_inspect_failure: Option<Failure>,
}

/// What one rank needs and what nodes offer. Bytes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacityStatus {
    /// Hash of what the choice of device and quantization was made from; the choice is kept while it stays the same.
    pub basis: String,
    /// What the ranks compute on.
    pub device: Device,
    /// Pods of one replica.
    #[serde(default = "one_rank")]
    pub ranks: u32,
    /// GPUs of one rank; absent on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus_per_rank: Option<u32>,
    /// Memory of one rank as chosen, all its GPUs together: the parts and 5 % headroom.
    pub needed: u64,
    /// What that is for; absent where an older operator wrote this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<CapacityParts>,
    /// Memory of one rank for every quantization, best quality first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<CapacityOption>,
    /// The memory limit of the template, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Memory for pods, or of the GPUs, of the largest node that the template may use, when empty; 0 without such a
    /// node.
    pub largest_node: u64,
    /// Largest such memory that is free on one such node; only while a rank waits for room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<u64>,
    /// What could be asked for instead, or which nodes are missing, when what is asked for does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_fit: Option<String>,
}

/// What the memory of one rank is for. Bytes, without headroom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacityParts {
    /// Weights that every rank has: attention, embeddings, gates, shared experts.
    pub weights: u64,
    /// Its share of the experts.
    pub experts: u64,
    /// KV cache of one longest request.
    pub kv_cache: u64,
    /// State of one request that does not grow with its length.
    pub state: u64,
    /// Everything else: activations, tokenizer, the process itself; on every GPU of its own.
    pub working: u64,
}

/// One quantization and its price.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacityOption {
    /// How the weights would be held.
    pub quantization: Quantization,
    /// Memory of one rank, bytes.
    pub needed: u64,
    /// All ranks of a replica are within the memory limit, and within the nodes when those are empty.
    pub fits: bool,
    /// Longest context with which they would be, tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest_context: Option<u32>,
}

fn one_rank() -> u32 {
    1
}

/// What `coterie inspect` found, kept so that a restarted operator does not look again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WeightsStatus {
    /// Hash of the `model.source` (and restart annotation) that was inspected.
    pub source_hash: String,
    /// What was found.
    #[serde(flatten)]
    pub inspection: Inspection,
}

/// Where the replacement of pods stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Hash of the spec fields that pods are made from, now; absent while the weights are unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Replicas of that revision that are ready.
    pub updated: i32,
    /// What happens next: Complete, Create, Surge, WaitForReady, Drain, WaitForDrain,
    /// WaitForInspection, ScaleDown, HandOver, BackOff or Blocked.
    pub step: String,
    /// Why it does not go on by itself, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_reason: Option<String>,
}

/// Where the experts are and how they are loaded. The maps are in ConfigMaps named NAME-REPLICA-experts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExpertsStatus {
    /// The balance of the replica that has the worst, e.g. `1.08`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<String>,
    /// Each replica of the current revision, the first hundred.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["replica"]))]
    pub replicas: Vec<ReplicaExpertsStatus>,
}

/// The experts of one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaExpertsStatus {
    /// Number of the replica.
    pub replica: i32,
    /// Version of its expert map.
    pub version: i64,
    /// Ranks that have a share in that map.
    pub ranks: i32,
    /// Ranks that report to hold what that map gives them.
    pub loaded: i32,
    /// Ranks that report to send tokens by that map.
    pub routing: i32,
    /// Whether all its ranks were ready at the same time, once; before that nothing of it counts as lost.
    #[serde(default)]
    pub started: bool,
    /// Slots beyond one for every expert, all layers together.
    pub copies: i32,
    /// How many copies `experts.redundant` asks for and why these are fewer, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fewer_copies: Option<String>,
    /// Tokens of the busiest rank over the mean of all, in the last stretch of time with requests, e.g. `1.08`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<String>,
    /// Experts, all layers together, that the map gives to no rank that is ready; 0 until the replica has started.
    pub lost: i32,
    /// Experts, all layers together, that ranks took over from lost ones.
    pub adopted: i32,
    /// What keeps a rank from loading what the map gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// How the present map came about, if it is not the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_move: Option<ExpertMove>,
}

/// A change of the expert map.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExpertMove {
    /// When it began.
    #[schemars(schema_with = "schema::time")]
    pub time: Time,
    /// Slots that had to be loaded.
    pub slots: i32,
    /// Why, for people.
    pub why: String,
    /// What became of it.
    pub outcome: MoveOutcome,
    /// The balance before it, if it was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance_before: Option<String>,
}

/// What became of a change of the expert map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum MoveOutcome {
    /// Ranks load, or do not send tokens by the new map yet.
    Moving,
    /// A rank cannot load what it is to hold; tokens go by the map before.
    Troubled,
    /// Every ready rank sends tokens by it.
    Done,
}

/// A pod that ended without being asked to.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub pod_uid: String,
    /// Why, for programs: the runtime's own reason, or that of Kubernetes (OOMKilled, Evicted, Error, …).
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// When it was seen.
    #[schemars(schema_with = "schema::time")]
    pub time: Time,
    /// How many such failures came in a row; for a process that is restarted in its pod, its restarts.
    pub count: i32,
    /// When another pod may take its place; absent for a process that is restarted in its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub retry_after: Option<Time>,
}

/// A part of the status that another version of the operator wrote and that cannot be read is derived anew. Without
/// this, one such object would keep the operator from reading any.
fn if_readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_another_version_wrote_is_left_out_and_the_rest_is_read() {
        let status: ModelDeploymentStatus = serde_json::from_value(json!({
            "replicas": 2,
            "quantization": "Int2",
            "capacity": { "basis": "b" },
            "rollout": { "updated": 1, "step": "Complete", "later": true },
        }))
        .unwrap();
        assert_eq!((status.replicas, status.quantization, status.capacity), (2, None, None));
        assert_eq!(status.rollout.map(|rollout| rollout.updated), Some(1));
    }

    #[test]
    fn a_choice_that_an_older_operator_kept_is_read_as_one_rank() {
        let status: ModelDeploymentStatus = serde_json::from_value(json!({
            "capacity": {
                "basis": "b", "device": "Cpu", "needed": 5, "largestNode": 9,
                "options": [{ "quantization": "None", "needed": 5, "fits": true }],
            },
        }))
        .unwrap();
        let capacity = status.capacity.unwrap();
        assert_eq!((capacity.ranks, capacity.gpus_per_rank, capacity.parts), (1, None, None));
        assert_eq!(capacity.options.len(), 1);
    }
}
