//! The ConfigMap by which the ranks of one replica share its experts.

use super::{metadata, rank_pod_name, service_names};
use crate::fingerprint::fingerprint;
use crate::observed::Moved;
use crate::validate::Deployment;
use coterie_api::expert_map::ExpertMap;
use coterie_api::name;
use coterie_api::peers::{Peer, Peers};
use k8s_openapi::api::core::v1::ConfigMap;
use std::collections::{BTreeMap, BTreeSet};

/// The API server takes a ConfigMap of 1 MiB; map and peers have to fit, the table for people may stay away.
const TABLE_LIMIT: usize = 400 << 10;

/// Its name.
pub fn experts_name(name: &str, replica: u32) -> String {
    format!("{name}-{replica}-experts")
}

/// What it is made from.
#[derive(Clone, Debug)]
pub struct ExpertsConfig {
    /// The map.
    pub map: ExpertMap,
    /// How it came about, if it is not the first.
    pub moved: Option<Moved>,
    /// The redundant slots a layer that were asked for when it was made.
    pub redundant: usize,
}

/// The map, also as a table for people, how it came about, and where the ranks with these numbers are reached.
pub fn experts_config_map(
    deployment: &Deployment,
    replica: u32,
    config: &ExpertsConfig,
    ranks: &BTreeSet<u32>,
) -> ConfigMap {
    let ExpertsConfig { map, moved, redundant } = config;
    let table = Some(map.table()).filter(|table| table.len() <= TABLE_LIMIT);
    let table = table.unwrap_or_else(|| "too large for a table: see map.json\n".to_owned());
    // Neither can fail: a map has string keys, and every address below has a host and a port.
    let json = |value: serde_json::Result<String>| value.unwrap_or_default();
    let contents = [
        (name::EXPERT_MAP_FILE, json(serde_json::to_string(map))),
        (name::PEERS_FILE, json(serde_json::to_string(&peers(deployment, replica, ranks)))),
        (name::EXPERT_TABLE_FILE, table),
    ];
    let contents: BTreeMap<String, String> =
        contents.into_iter().map(|(key, text)| (key.to_owned(), text)).collect();
    let mut metadata = metadata(deployment, experts_name(&deployment.name, replica), "experts");
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(name::LABEL_REPLICA.to_owned(), replica.to_string());
    let told = format!("{}-{}", map.version(), fingerprint(&contents, 8));
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(name::ANNOTATION_APPLIED.to_owned(), told);
    annotations.insert(name::ANNOTATION_REDUNDANT.to_owned(), redundant.to_string());
    if let Some(moved) = moved {
        annotations.insert(name::ANNOTATION_MOVED.to_owned(), json(serde_json::to_string(moved)));
    }
    ConfigMap { metadata, data: Some(contents), ..Default::default() }
}

/// Whether everything that `wanted` sets is so in `seen`, and nothing else is among its contents.
pub fn config_map_shows(seen: &ConfigMap, wanted: &ConfigMap) -> bool {
    let holds = |seen: &Option<BTreeMap<String, String>>, wanted: &Option<BTreeMap<String, String>>| {
        let has = |(key, value)| seen.as_ref().and_then(|seen| seen.get(key)) == Some(value);
        wanted.iter().flatten().all(has)
    };
    seen.data == wanted.data
        && holds(&seen.metadata.labels, &wanted.metadata.labels)
        && holds(&seen.metadata.annotations, &wanted.metadata.annotations)
}

/// Every rank by its name in DNS, which it has from its start on, ready or not.
fn peers(deployment: &Deployment, replica: u32, ranks: &BTreeSet<u32>) -> Peers {
    let [_, service] = service_names(&deployment.name);
    let peer = |rank: &u32| {
        let pod = rank_pod_name(&deployment.name, replica, Some(*rank));
        let address = format!("{pod}.{service}.{}.svc:{}", deployment.namespace, name::EXCHANGE_PORT);
        Some(Peer { rank: u16::try_from(*rank).ok()?, address })
    };
    // Numbers of a set are there once, and the addresses have a port.
    Peers::new(ranks.iter().filter_map(peer).collect()).unwrap_or_default()
}
