//! Replicas by demand: what a user may ask for ([`ScalingSpec`]) and what the scaler tells ([`ScalingStatus`]).

use super::schema;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Most replicas.
pub const REPLICAS_LIMIT: i32 = 1000;
/// Most requests that may wait for each replica, where the user says how many.
pub const QUEUE_TARGET_LIMIT: u32 = 100_000;
/// Longest quiet window and longest time without a request, seconds: one day.
pub const WAIT_SECONDS_LIMIT: u32 = 86_400;
/// Longest time to first token and between tokens that may be aimed at, milliseconds: ten minutes.
pub const SLO_MILLISECONDS_LIMIT: u32 = 600_000;
/// How many decisions a status keeps.
pub const DECISIONS_KEPT: usize = 10;

/// How many replicas there are by demand.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas")
    .message("scaling.minReplicas is more than scaling.maxReplicas: lower the one or raise the other"))]
pub struct ScalingSpec {
    /// Fewest replicas. With 0 all of them go after idleSeconds without a request, and the next request brings one back.
    #[serde(default = "one_replica")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: i32,
    /// Most replicas.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// How many requests may wait.
    #[serde(default)]
    pub queue_depth: QueueDepthSpec,
    /// What a request may expect; the scaler has as many replicas as that takes.
    #[serde(default)]
    pub slo: SloSpec,
    /// Time without a request after which no replica is left; only counts with minReplicas 0.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 86_400))]
    pub idle_seconds: u32,
    /// Replicas go only when the demand of all this time would have been met without them. Left out: four times as long as a
    /// replica takes to Ready, 60 to 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub quiet_seconds: Option<u32>,
}

impl Default for ScalingSpec {
    fn default() -> Self {
        Self {
            min_replicas: 1,
            max_replicas: 1,
            queue_depth: QueueDepthSpec::default(),
            slo: SloSpec::default(),
            idle_seconds: ten_minutes(),
            quiet_seconds: None,
        }
    }
}

/// How many requests may wait.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueDepthSpec {
    /// Requests that may wait for each replica before there are more replicas; Auto: as many as get their first token in
    /// time, by the rates that were measured.
    #[serde(default)]
    #[schemars(schema_with = "schema::queue_target")]
    #[x_kube(validation = Rule::new("type(self) == string ? self in ['Auto', 'auto'] : self >= 1 && self <= 100000")
        .message("queueDepth.target is a number of requests for each replica, 1 to 100000, or Auto: leave it out for Auto"))]
    pub target: QueueTarget,
}

/// How many requests may wait for each replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueTarget {
    /// As many as get their first token in time.
    #[default]
    Auto,
    /// So many.
    Requests(u32),
}

impl Serialize for QueueTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            QueueTarget::Auto => serializer.serialize_str("Auto"),
            QueueTarget::Requests(count) => serializer.serialize_u32(*count),
        }
    }
}

impl<'de> Deserialize<'de> for QueueTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Count(u32),
            Word(String),
        }
        match Written::deserialize(deserializer) {
            Ok(Written::Count(count)) => Ok(QueueTarget::Requests(count)),
            Ok(Written::Word(word)) if word.eq_ignore_ascii_case("auto") => Ok(QueueTarget::Auto),
            _ => Err(de::Error::custom("queueDepth.target is neither a number of requests nor Auto")),
        }
    }
}

/// What a request may expect.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SloSpec {
    /// Time to the first token, milliseconds. While not all can be served in time, the front door serves those first that
    /// have waited for less than half of it.
    #[serde(default = "two_seconds")]
    #[schemars(range(min = 1, max = 600_000))]
    pub ttft_milliseconds: u32,
    /// Time from one token to the next, milliseconds. Where a replica with nothing else to do takes over half of it, twice
    /// what that replica takes. Ranks make their chunks of prompts so large that steps take about as long; another value
    /// replaces their pods.
    #[serde(default = "fifty")]
    #[schemars(range(min = 1, max = 600_000))]
    pub itl_milliseconds: u32,
}

impl Default for SloSpec {
    fn default() -> Self {
        Self { ttft_milliseconds: two_seconds(), itl_milliseconds: fifty() }
    }
}

/// What is asked for, what is decided, and why.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// When the numbers below were seen. They are written with each decision, and else at most every ten seconds.
    #[schemars(schema_with = "schema::time")]
    pub time: Time,
    /// Requests that wait, at routers and ranks.
    pub queue_depth: i64,
    /// Those of them that wait at ranks.
    pub waiting: i64,
    /// Requests that are being answered.
    pub running: i64,
    /// Replicas that there should be.
    pub desired: i32,
    /// Why so many.
    pub why: String,
    /// What was measured of a replica; absent until one has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredStatus>,
    /// The last ten changes of `desired`, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 10))]
    pub decisions: Vec<ScalingDecision>,
}

/// What one replica does, and how long it takes to come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeasuredStatus {
    /// Prompt tokens a second that one rank computes when it does nothing else.
    pub prefill_tokens_per_second: i64,
    /// What a step of the engine takes however many requests are in it, microseconds.
    pub step_microseconds: i64,
    /// What each request in a step adds to it, microseconds.
    pub token_microseconds: i64,
    /// Prompt tokens of a request that are not in the prefix cache, the mean.
    pub prompt_tokens: i64,
    /// Tokens of an answer, the mean.
    pub output_tokens: i64,
    /// Requests in one batch of a rank at most.
    pub max_running: i64,
    /// From the making of a replica to Ready, seconds; absent until one has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_seconds: Option<i64>,
}

/// A change of the number of replicas.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingDecision {
    /// When.
    #[schemars(schema_with = "schema::time")]
    pub time: Time,
    /// Replicas before.
    pub from: i32,
    /// Replicas after.
    pub to: i32,
    /// Why, for people.
    pub why: String,
}

fn one_replica() -> i32 {
    1
}

fn two_seconds() -> u32 {
    2_000
}

fn fifty() -> u32 {
    50
}

fn ten_minutes() -> u32 {
    600
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_target_is_a_number_or_auto() {
        let read = |value| serde_json::from_value::<QueueDepthSpec>(json!({ "target": value }));
        assert_eq!(read(json!(8)).unwrap().target, QueueTarget::Requests(8));
        for auto in ["Auto", "auto"] {
            assert_eq!(read(json!(auto)).unwrap().target, QueueTarget::Auto);
        }
        for wrong in [json!("8"), json!(-1), json!(1.5), json!(null), json!({})] {
            let told = read(wrong).unwrap_err().to_string();
            assert!(told.contains("neither a number of requests nor Auto"), "{told}");
        }
        assert_eq!(serde_json::to_value(QueueTarget::Auto).unwrap(), json!("Auto"));
        assert_eq!(serde_json::to_value(QueueTarget::Requests(3)).unwrap(), json!(3));
    }

    #[test]
    fn all_but_the_most_replicas_has_a_default() {
        let spec: ScalingSpec = serde_json::from_value(json!({ "maxReplicas": 4 })).unwrap();
        assert_eq!(spec, ScalingSpec { max_replicas: 4, ..ScalingSpec::default() });
        assert_eq!((spec.min_replicas, spec.idle_seconds, spec.quiet_seconds), (1, 600, None));
        assert_eq!((spec.slo.ttft_milliseconds, spec.slo.itl_milliseconds), (2_000, 50));
    }
}
