//! What is seen of the experts of a replica: its ConfigMap, what its ranks report, and what was asked of its experts.

use super::pod::controller_uid;
use coterie_api::expert_map::ExpertMap;
use coterie_api::expert_report::ExpertReport;
use coterie_api::name;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};

/// The ConfigMap of a replica.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedExperts {
    /// Number of the replica.
    pub replica: u32,
    /// Whether the ModelDeployment controls it.
    pub owned: bool,
    /// As it is now.
    pub object: ConfigMap,
    /// The map in it, if that can be read.
    pub map: Option<ExpertMap>,
    /// How that map came about, if it is not the first.
    pub moved: Option<Moved>,
    /// The redundant slots a layer that were asked for when it was made.
    pub redundant: Option<usize>,
}

/// The change that led to an expert map; written beside the map, so that who takes over knows it too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// When.
    pub time: Timestamp,
    /// Slots that had to be loaded.
    pub slots: usize,
    /// Why, for people.
    pub why: String,
    /// Tokens of the busiest rank over the mean of all before it, if known: two digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<String>,
}

impl ObservedExperts {
    /// Of a ConfigMap with the label of a replica; `uid` is the ModelDeployment's.
    pub fn of(object: ConfigMap, uid: &str) -> Option<Self> {
        let metadata = &object.metadata;
        let replica = metadata.labels.as_ref()?.get(name::LABEL_REPLICA)?.parse().ok()?;
        let text = object.data.as_ref().and_then(|entries| entries.get(name::EXPERT_MAP_FILE));
        let annotation = |key| metadata.annotations.as_ref().and_then(|all| all.get(key));
        Some(Self {
            replica,
            owned: controller_uid(metadata) == Some(uid),
            map: text.and_then(|text| serde_json::from_str(text).ok()),
            moved: annotation(name::ANNOTATION_MOVED).and_then(|text| serde_json::from_str(text).ok()),
            redundant: annotation(name::ANNOTATION_REDUNDANT).and_then(|text| text.parse().ok()),
            object,
        })
    }

    /// What tells this content from others; ranks are told by it that there is something new.
    pub fn content(&self) -> &str {
        let annotations = self.object.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(name::ANNOTATION_APPLIED)).map_or("", String::as_str)
    }
}

/// The expert map that a content tells of.
pub fn version_of(content: &str) -> u64 {
    content.split('-').next().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// What a rank reported last, as far as decisions depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RankReport {
    /// Newest map that it has read.
    pub read: u64,
    /// Newest map of which it holds all that is its own.
    pub loaded: u64,
    /// The map by which it sends tokens.
    pub routing: u64,
    /// Experts that it took over from lost ranks.
    pub adopted: u32,
    /// What keeps it from loading the newest map.
    pub trouble: Option<String>,
}

impl From<&ExpertReport> for RankReport {
    fn from(report: &ExpertReport) -> Self {
        Self {
            read: report.read_version,
            loaded: report.loaded_version,
            routing: report.routing_version,
            adopted: report.adopted,
            trouble: report.trouble.clone(),
        }
    }
}

/// What the requests of a replica asked of its experts in a stretch of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpertLoad {
    /// When it ended.
    pub ended: Timestamp,
    /// The map by which all ranks routed all the time; 0 if that changed.
    pub version: u64,
    /// `[layer][expert]`: tokens.
    pub tokens: Vec<Vec<u64>>,
}
