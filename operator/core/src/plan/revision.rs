//! The revision: a hash of what a pod is made from. Another revision means another pod.
//!
//! The operator's version and the image of the runtime are no part of it: upgrading the operator leaves every pod as
//! it is (docs/design/010-revision.md). So a field may be added to [`Made`] only if its default is not serialized;
//! a test pins the hash of a fixture.

use super::capacity::CapacityPlan;
use crate::fingerprint::fingerprint;
use crate::validate::{Deployment, Source};
use coterie_api::launch::{Activations, Device, Quantization, Speculate};
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Made<'a> {
    served_name: &'a str,
    source: [&'a str; 3],
    context_length: Option<u32>,
    quantization: Quantization,
    #[serde(skip_serializing_if = "Option::is_none")]
    speculate: Option<Speculate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    itl_milliseconds: Option<u32>,
    device: Device,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim_template: Option<&'a str>,
    /// Ranks that are alone in their replica and ranks that share its experts are started differently; how many there
    /// are, peers and expert map tell them while they run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    several: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    activations: Option<Activations>,
    drain_seconds: u32,
    labels: &'a BTreeMap<String, String>,
    annotations: &'a BTreeMap<String, String>,
    node_selector: &'a BTreeMap<String, String>,
    tolerations: &'a [Toleration],
    requests: &'a BTreeMap<String, Quantity>,
    limits: &'a BTreeMap<String, Quantity>,
    priority_class_name: Option<&'a str>,
    image_pull_secrets: &'a [String],
    restart: Option<&'a str>,
}

/// The revision of the pods that are wanted now.
pub fn revision(deployment: &Deployment, capacity: &CapacityPlan) -> String {
    let template = &deployment.template;
    let several = capacity.ranks > 1;
    let activations = Some(deployment.experts.activations).filter(|it| *it != Activations::default());
    let made = Made {
        served_name: &deployment.served_name,
        source: match &deployment.source {
            Source::Image { reference, pull_policy } => {
                ["image", reference, pull_policy.map_or("", |policy| policy.as_str())]
            }
            Source::Claim { name, path } => ["claim", name, path.as_deref().unwrap_or("")],
        },
        context_length: deployment.context_length,
        quantization: capacity.quantization,
        speculate: deployment.speculate,
        itl_milliseconds: deployment.itl_milliseconds(),
        device: capacity.device,
        gpus: (capacity.device == Device::Gpu).then_some(capacity.gpus),
        claim_template: deployment.claim_template.as_deref(),
        several,
        activations: activations.filter(|_| several),
        drain_seconds: deployment.drain_seconds,
        labels: &template.labels,
        annotations: &template.annotations,
        node_selector: &template.node_selector,
        tolerations: &template.tolerations,
        requests: &template.requests,
        limits: &template.limits,
        priority_class_name: template.priority_class_name.as_deref(),
        image_pull_secrets: &template.image_pull_secrets,
        restart: deployment.restart.as_deref(),
    };
    fingerprint(&made, 10)
}

#[cfg(test)]
mod tests {
    use crate::plan::Plan;
    use crate::world::{World, settled};
    use coterie_api::deployment::ModelDeployment;
    use coterie_api::launch::{Activations, Quantization};
    use k8s_openapi::api::core::v1::{LocalObjectReference, Toleration};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    fn revision(change: impl FnOnce(&mut ModelDeployment)) -> String {
        let mut world = settled(1);
        change(&mut world.object);
        let plan: Plan = world.plan();
        plan.rollout.revision.unwrap_or_default()
    }

    /// If this fails, upgrading the operator would replace every pod in the world: do not change the number, change
    /// the code.
    #[test]
    fn the_revision_of_a_spec_never_changes() {
        assert_eq!(revision(|_| {}), "506e7d3bb5");
        let full = |object: &mut ModelDeployment| {
            let template = &mut object.spec.template;
            template.labels = [("team".to_owned(), "a".to_owned())].into();
            template.resources.limits = [("memory".to_owned(), Quantity("8Gi".into()))].into();
            let key = Some("gpu".to_owned());
            template.tolerations =
                vec![Toleration { key, operator: Some("Exists".into()), ..Default::default() }];
            template.image_pull_secrets = vec![LocalObjectReference { name: "s".into() }];
            object.spec.model.context_length = Some(4096);
            object.metadata.annotations = Some([("coterie.dev/restart".to_owned(), "1".to_owned())].into());
        };
        let mut world = settled(1);
        full(&mut world.object);
        world.settle(|_, _| {});
        assert_eq!(world.plan().rollout.revision.as_deref(), Some("394c896b91"));
    }

    #[test]
    fn what_makes_no_pod_makes_no_revision() {
        let first = revision(|_| {});
        assert_eq!(revision(|object| object.spec.replicas = 5), first);
        assert_eq!(revision(|object| object.metadata.generation = Some(9)), first);
        let mut world: World = settled(1);
        world.settings.runtime_image = "localhost/coterie:2".into();
        assert_eq!(world.plan().rollout.revision, Some(first));
    }

    #[test]
    fn how_many_ranks_there_are_makes_no_revision_but_one_or_several_does() {
        let of = |ranks, redundant| {
            revision(|object| {
                object.spec.ranks = ranks;
                object.spec.experts.redundant = redundant;
            })
        };
        assert_eq!(of(Some(1), 0), of(None, 0));
        assert_ne!(of(Some(2), 0), of(None, 0));
        assert_eq!(of(Some(3), 0), of(Some(2), 0));
        assert_eq!(of(Some(3), 8), of(Some(2), 0));
        let int8 = |ranks| {
            revision(|object| {
                object.spec.ranks = ranks;
                object.spec.experts.activations = Activations::Int8;
            })
        };
        assert_eq!(int8(None), of(None, 0), "a rank that is alone sends nothing");
        assert_ne!(int8(Some(2)), of(Some(2), 0));
    }

    #[test]
    fn everything_else_does() {
        let pair = || [("a".to_owned(), "b".to_owned())].into();
        let one = || [("cpu".to_owned(), Quantity("1".into()))].into();
        let changes: [&dyn Fn(&mut ModelDeployment); 14] = [
            &|_| {},
            &|o| o.spec.model.served_name = Some("other".into()),
            &|o| o.spec.model.context_length = Some(4096),
            &|o| o.spec.model.quantization = Some(Quantization::Int8),
            &|o| o.spec.rollout.drain_seconds = 1,
            &|o| o.spec.template.labels = pair(),
            &|o| o.spec.template.annotations = pair(),
            &|o| o.spec.template.tolerations = vec![Toleration::default()],
            &|o| o.spec.template.resources.requests = one(),
            &|o| o.spec.template.resources.limits = one(),
            &|o| o.spec.template.priority_class_name = Some("high".into()),
            &|o| o.spec.template.image_pull_secrets = vec![LocalObjectReference { name: "s".into() }],
            &|o| o.spec.template.node_selector = pair(),
            &|o| {
                o.spec.model.source.image.as_mut().unwrap().pull_policy =
                    Some(coterie_api::deployment::PullPolicy::Never)
            },
        ];
        let mut seen: Vec<String> = changes.iter().map(|change| revision(change)).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), changes.len());
    }
}
