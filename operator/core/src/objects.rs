//! Builders of the objects that we own. They take parsed values, so they cannot fail.

mod config_map;
mod pod;
mod service;
mod share;

pub use config_map::{ExpertsConfig, config_map_shows, experts_config_map, experts_name};
pub(crate) use pod::model_dir;
pub use pod::{RankPod, inspect_pod, inspect_pod_name, inspect_revision, rank_pod, rank_pod_name};
pub use service::{client_service, ranks_service, service_names, shows};
pub(crate) use share::experts_launch;
pub use share::{Share, Told};

use crate::validate::Deployment;
use coterie_api::name;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// URL of the Service that clients use, inside the cluster.
pub fn endpoint(deployment: &Deployment) -> String {
    format!("http://{}.{}.svc", deployment.name, deployment.namespace)
}

/// Name of the Secret with the certificates of the exchange.
pub fn exchange_tls_name(name: &str) -> String {
    format!("{name}-exchange-tls")
}

/// Labels that select the ranks of a ModelDeployment; a draining rank has them too.
pub fn rank_selector(deployment: &Deployment) -> BTreeMap<String, String> {
    labels([(name::LABEL_DEPLOYMENT, deployment.name.as_str()), (name::LABEL_ROLE, name::ROLE_RANK)])
}

/// Metadata of an object of ours; labels of the template come first, so ours win.
fn metadata(deployment: &Deployment, name: String, component: &str) -> ObjectMeta {
    let ours = labels([
        ("app.kubernetes.io/name", "coterie"),
        ("app.kubernetes.io/instance", &deployment.name),
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/managed-by", name::FIELD_MANAGER),
        (name::LABEL_DEPLOYMENT, &deployment.name),
    ]);
    ObjectMeta {
        name: Some(name),
        namespace: Some(deployment.namespace.clone()),
        labels: Some(ours),
        owner_references: Some(vec![deployment.owner.clone()]),
        ..Default::default()
    }
}

fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests;
