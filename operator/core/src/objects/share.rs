//! What a rank's pod has when its replica has several: the mounted files by which the ranks share the experts, and its
//! place beside them.

use super::{exchange_tls_name, experts_name, labels, rank_selector};
use crate::validate::Deployment;
use coterie_api::launch::{Activations, ExpertsLaunch};
use coterie_api::name;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, KeyToPath, SecretVolumeSource, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

const EXPERTS_VOLUME: &str = "experts";
const EXCHANGE_TLS_VOLUME: &str = "exchange-tls";

/// A rank's part of a replica of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<'a> {
    /// Its number.
    pub rank: u32,
    /// What its mounted files say already.
    pub told: &'a Told,
}

/// What the mounted files of a rank say, as annotations of its pod: when they change, so does the pod, and the kubelet
/// delivers the files at once instead of after a minute or more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Which expert map and peers.
    pub experts: String,
    /// Which certificates.
    pub certificates: String,
}

impl Told {
    /// As a pod has them.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        labels([
            (name::ANNOTATION_EXPERTS, self.experts.as_str()),
            (name::ANNOTATION_CERTIFICATES, self.certificates.as_str()),
        ])
    }
}

/// What the exchange of a rank reads, beside its command line.
pub(crate) fn experts_launch(rank: u32, activations: Activations, adopt_limit: Option<u32>) -> ExpertsLaunch {
    ExpertsLaunch {
        // Validation knows no such wide replica.
        rank: u16::try_from(rank).unwrap_or(u16::MAX),
        expert_map: format!("{}/{}", name::EXPERTS_MOUNT, name::EXPERT_MAP_FILE),
        peers: format!("{}/{}", name::EXPERTS_MOUNT, name::PEERS_FILE),
        exchange_port: name::EXCHANGE_PORT,
        exchange_tls: Some(name::EXCHANGE_TLS_MOUNT.to_owned()),
        activations,
        adopt_limit,
    }
}

pub(super) fn mounts() -> [VolumeMount; 2] {
    let mount = |volume: &str, path: &str| VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..Default::default()
    };
    // Whole folders: a file mounted by subPath would never change.
    [mount(EXPERTS_VOLUME, name::EXPERTS_MOUNT), mount(EXCHANGE_TLS_VOLUME, name::EXCHANGE_TLS_MOUNT)]
}

pub(super) fn volumes(deployment: &str, replica: u32) -> [Volume; 2] {
    let items = |keys: &[&str]| {
        let item = |key: &&str| KeyToPath { key: (*key).into(), path: (*key).into(), ..Default::default() };
        Some(keys.iter().map(item).collect())
    };
    let map = ConfigMapVolumeSource {
        name: experts_name(deployment, replica),
        items: items(&[name::EXPERT_MAP_FILE, name::PEERS_FILE]),
        ..Default::default()
    };
    // What comes next is in the same Secret, and no business of a rank's.
    let tls = SecretVolumeSource {
        secret_name: Some(exchange_tls_name(deployment)),
        items: items(&[name::TLS_AUTHORITY_FILE, name::TLS_CERTIFICATE_FILE, name::TLS_KEY_FILE]),
        ..Default::default()
    };
    [
        Volume { name: EXPERTS_VOLUME.to_owned(), config_map: Some(map), ..Default::default() },
        Volume { name: EXCHANGE_TLS_VOLUME.to_owned(), secret: Some(tls), ..Default::default() },
    ]
}

/// The ranks of a replica on different nodes, where there are several: a lost node then takes one of them.
pub(super) fn apart(deployment: &Deployment, replica: &str) -> TopologySpreadConstraint {
    let mut ranks = rank_selector(deployment);
    ranks.insert(name::LABEL_REPLICA.to_owned(), replica.to_owned());
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector { match_labels: Some(ranks), ..Default::default() }),
        ..Default::default()
    }
}
