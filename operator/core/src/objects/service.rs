//! Services: one for clients, one headless for the ranks' DNS names.

use super::{metadata, rank_selector};
use crate::fingerprint::fingerprint;
use crate::validate::Deployment;
use coterie_api::name;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// Names of the two Services: the one that clients use, and the headless one.
pub fn service_names(name: &str) -> [String; 2] {
    [name.to_owned(), format!("{name}-ranks")]
}

/// The Service that clients use. It selects by labels alone: one takes a cordoned rank out of it, readiness one that ends.
pub fn client_service(deployment: &Deployment) -> Service {
    let [name, _] = service_names(&deployment.name);
    let mut selector = rank_selector(deployment);
    selector.insert(name::LABEL_SERVING.to_owned(), "true".to_owned());
    let spec = ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        ports: Some(vec![port(name::SERVICE_PORT)]),
        selector: Some(selector),
        ..Default::default()
    };
    service(deployment, name, spec)
}

/// The headless Service: every rank has a DNS name from its start on, ready or not.
pub fn ranks_service(deployment: &Deployment) -> Service {
    let [_, name] = service_names(&deployment.name);
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        publish_not_ready_addresses: Some(true),
        ports: Some(vec![port(name::HTTP_PORT)]),
        selector: Some(rank_selector(deployment)),
        ..Default::default()
    };
    service(deployment, name, spec)
}

/// Whether everything that `wanted` sets is so in `seen`. What others add is theirs, as a mesh's annotation or one more
/// port; but not to the selector, which any further label could empty.
pub fn shows(seen: &Service, wanted: &Service) -> bool {
    let (Some(spec), Some(wanted_spec)) = (&seen.spec, &wanted.spec) else { return false };
    let port = |seen: &ServicePort, wanted: &ServicePort| {
        (&seen.name, seen.port, &seen.protocol, &seen.target_port)
            == (&wanted.name, wanted.port, &wanted.protocol, &wanted.target_port)
    };
    let ports = |spec: &ServiceSpec| spec.ports.clone().unwrap_or_default();
    let seen_ports = ports(spec);
    holds(&seen.metadata.labels, &wanted.metadata.labels)
        && holds(&seen.metadata.annotations, &wanted.metadata.annotations)
        && spec.selector == wanted_spec.selector
        && ports(wanted_spec).iter().all(|wanted| seen_ports.iter().any(|seen| port(seen, wanted)))
        && is_set(&spec.type_, &wanted_spec.type_)
        && is_set(&spec.cluster_ip, &wanted_spec.cluster_ip)
        && is_set(&spec.publish_not_ready_addresses, &wanted_spec.publish_not_ready_addresses)
}

fn holds(seen: &Option<BTreeMap<String, String>>, wanted: &Option<BTreeMap<String, String>>) -> bool {
    let has = |(key, value)| seen.as_ref().and_then(|seen| seen.get(key)) == Some(value);
    wanted.iter().flatten().all(has)
}

fn is_set<T: PartialEq>(seen: &Option<T>, wanted: &Option<T>) -> bool {
    wanted.is_none() || seen == wanted
}

/// With the hash of itself: a field that another version of the operator set, and this one does not, is given up by
/// applying anew.
fn service(deployment: &Deployment, name: String, spec: ServiceSpec) -> Service {
    let mut service =
        Service { metadata: metadata(deployment, name, "service"), spec: Some(spec), status: None };
    let hash = fingerprint(&service, 12);
    service.metadata.annotations = Some(BTreeMap::from([(name::ANNOTATION_APPLIED.to_owned(), hash)]));
    service
}

fn port(port: u16) -> ServicePort {
    ServicePort {
        name: Some(name::PORT_HTTP.to_owned()),
        port: port.into(),
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name::PORT_HTTP.to_owned())),
        ..Default::default()
    }
}
