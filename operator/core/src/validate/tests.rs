//! One good fixture; one test per variant of [`Invalid`], each made by breaking one field of it.

use super::*;
use coterie_api::deployment::scaling::QueueTarget;
use coterie_api::deployment::{ClaimSource, ImageSource, ModelDeploymentSpec, ModelSpec, ScalingSpec};
use coterie_api::launch::Quantization;
use jiff::SignedDuration;
use std::iter;

fn good() -> ModelDeployment {
    let source = SourceSpec {
        image: Some(ImageSource { reference: "localhost/weights:1".into(), pull_policy: None }),
        persistent_volume_claim: None,
    };
    let spec = ModelDeploymentSpec {
        model: ModelSpec { source, ..Default::default() },
        replicas: 2,
        ..Default::default()
    };
    let mut object = ModelDeployment::new("smol-moe", spec);
    object.metadata.namespace = Some("chat".into());
    object.metadata.uid = Some("5e1f".into());
    object.metadata.generation = Some(7);
    object
}

fn claim(path: Option<&str>) -> SourceSpec {
    SourceSpec {
        image: None,
        persistent_volume_claim: Some(ClaimSource {
            claim_name: "weights".into(),
            path: path.map(str::to_owned),
        }),
    }
}

#[track_caller]
fn refused(change: impl FnOnce(&mut ModelDeployment), expected: Invalid) {
    let mut object = good();
    change(&mut object);
    assert_eq!(validate(&object), Err(expected));
}

#[test]
fn defaults_are_filled_in() {
    let deployment = validate(&good()).unwrap();
    assert_eq!(deployment.served_name, "smol-moe");
    assert_eq!((deployment.replicas, deployment.drain_seconds, deployment.gpus_per_rank), (2, 600, None));
    assert_eq!((deployment.ranks, deployment.experts.redundant), (None, 0));
    assert_eq!(deployment.device, DeviceChoice::Auto);
    assert_eq!(deployment.owner.kind, "ModelDeployment");
    assert_eq!(deployment.owner.api_version, "coterie.dev/v1alpha1");
    assert_eq!(deployment.owner.controller, Some(true));
}

#[test]
fn amounts_of_the_template_are_read() {
    let mut object = good();
    let resources = &mut object.spec.template.resources;
    resources.requests.insert("memory".into(), Quantity("1Gi".into()));
    resources.limits.insert("memory".into(), Quantity("2Gi".into()));
    resources.limits.insert("cpu".into(), Quantity("1500m".into()));
    let template = validate(&object).unwrap().template;
    assert_eq!((template.memory_request, template.memory_limit), (Some(1 << 30), Some(2 << 30)));
    assert_eq!(template.cpu_request, Some(1500), "a limit alone is a request too");
}

#[test]
fn a_claims_path_loses_its_trailing_slash() {
    let mut object = good();
    object.spec.model.source = claim(Some("models/mixtral/"));
    let expected = Source::Claim { name: "weights".into(), path: Some("models/mixtral".into()) };
    assert_eq!(validate(&object).unwrap().source, expected);
}

#[test]
fn err_claim_path() {
    for path in ["/models", "..", "a/../../b", "a/..", "/", ""] {
        refused(|o| o.spec.model.source = claim(Some(path)), Invalid::ClaimPath(path.into()));
    }
}

#[test]
fn err_claim_name() {
    let change = |o: &mut ModelDeployment| {
        o.spec.model.source = claim(None);
        o.spec.model.source.persistent_volume_claim.as_mut().unwrap().claim_name = "My_Claim".into();
    };
    refused(change, Invalid::ClaimName("My_Claim".into()));
}

#[test]
fn err_context_length() {
    refused(|o| o.spec.model.context_length = Some(0), Invalid::ContextLength);
}

#[test]
fn err_drain_seconds() {
    refused(|o| o.spec.rollout.drain_seconds = 86_401, Invalid::DrainSeconds(86_401));
}

#[test]
fn err_gpus_in_template() {
    let gpus = || iter::once(("nvidia.com/gpu".to_owned(), Quantity("1".into()))).collect();
    refused(|o| o.spec.template.resources.limits = gpus(), Invalid::GpusInTemplate);
    refused(|o| o.spec.template.resources.requests = gpus(), Invalid::GpusInTemplate);
}

#[test]
fn err_image_reference() {
    for reference in ["", "a b", "a\n"] {
        let change = |o: &mut ModelDeployment| {
            o.spec.model.source.image.as_mut().unwrap().reference = reference.into();
        };
        refused(change, Invalid::ImageReference(reference.into()));
    }
}

#[test]
fn err_metadata() {
    refused(|o| o.metadata.name = None, Invalid::Metadata("name"));
    refused(|o| o.metadata.namespace = None, Invalid::Metadata("namespace"));
    refused(|o| o.metadata.uid = Some(String::new()), Invalid::Metadata("uid"));
}

#[test]
fn err_name() {
    for name in ["9lives", "Smol", "a.b", "-a", "a-", &"a".repeat(41)] {
        refused(|o| o.metadata.name = Some(name.into()), Invalid::Name(name.into()));
    }
}

#[test]
fn err_per_rank() {
    refused(|o| o.spec.accelerator.per_rank = Some(0), Invalid::PerRank(0));
    refused(|o| o.spec.accelerator.per_rank = Some(17), Invalid::PerRank(17));
}

#[test]
fn err_per_rank_on_cpu() {
    let change = |o: &mut ModelDeployment| {
        o.spec.accelerator.device = DeviceChoice::Cpu;
        o.spec.accelerator.per_rank = Some(2);
    };
    refused(change, Invalid::PerRankOnCpu);
}

#[test]
fn err_quantization_on_cpu() {
    let change = |o: &mut ModelDeployment| {
        o.spec.accelerator.device = DeviceChoice::Cpu;
        o.spec.model.quantization = Some(Quantization::Int4);
    };
    refused(change, Invalid::QuantizationOnCpu);
}

#[test]
fn err_quantity() {
    let memory = iter::once(("memory".to_owned(), Quantity("4GB".into()))).collect();
    let expected = Invalid::Quantity { field: "limits.memory".into(), text: "4GB".into() };
    refused(|o| o.spec.template.resources.limits = memory, expected);
}

#[test]
fn err_ranks() {
    for ranks in [0, 1025] {
        refused(|o| o.spec.ranks = Some(ranks), Invalid::Ranks(ranks));
    }
}

#[test]
fn err_redundant() {
    refused(|o| o.spec.experts.redundant = 4097, Invalid::Redundant(4097));
}

#[test]
fn err_redundant_on_one_rank() {
    let change = |o: &mut ModelDeployment| {
        o.spec.ranks = Some(1);
        o.spec.experts.redundant = 4;
    };
    refused(change, Invalid::RedundantOnOneRank(4));
}

#[test]
fn err_replicas() {
    refused(|o| o.spec.replicas = -1, Invalid::Replicas(-1));
}

fn scaled(change: impl FnOnce(&mut ScalingSpec)) -> impl FnOnce(&mut ModelDeployment) {
    move |object| {
        let mut scaling = ScalingSpec { max_replicas: 4, ..ScalingSpec::default() };
        change(&mut scaling);
        object.spec.replicas = 1;
        object.spec.scaling = Some(scaling);
    }
}

#[test]
fn scaling_is_read() {
    let mut object = good();
    scaled(|it| {
        it.queue_depth.target = QueueTarget::Requests(8);
        it.quiet_seconds = Some(90);
    })(&mut object);
    let scaling = validate(&object).unwrap().scaling.unwrap();
    assert_eq!((scaling.least, scaling.most, scaling.queue_target), (1, 4, Some(8)));
    assert_eq!((scaling.ttft, scaling.itl), (SignedDuration::from_secs(2), SignedDuration::from_millis(50)));
    assert_eq!(
        (scaling.idle, scaling.quiet),
        (SignedDuration::from_mins(10), Some(SignedDuration::from_secs(90)))
    );
    scaled(|_| {})(&mut object);
    let scaling = validate(&object).unwrap().scaling.unwrap();
    assert_eq!((scaling.queue_target, scaling.quiet), (None, None), "by what is measured");
}

#[test]
fn err_scaling_range() {
    type Change = fn(&mut ScalingSpec);
    let cases: [(&str, i64, i64, i64, Change); 8] = [
        ("minReplicas", -1, 0, 1000, |it| it.min_replicas = -1),
        ("maxReplicas", 0, 1, 1000, |it| it.max_replicas = 0),
        ("maxReplicas", 1001, 1, 1000, |it| it.max_replicas = 1001),
        ("queueDepth.target", 0, 1, 100_000, |it| it.queue_depth.target = QueueTarget::Requests(0)),
        ("slo.ttftMilliseconds", 0, 1, 600_000, |it| it.slo.ttft_milliseconds = 0),
        ("slo.itlMilliseconds", 600_001, 1, 600_000, |it| it.slo.itl_milliseconds = 600_001),
        ("idleSeconds", 0, 1, 86_400, |it| it.idle_seconds = 0),
        ("quietSeconds", 86_401, 0, 86_400, |it| it.quiet_seconds = Some(86_401)),
    ];
    for (field, value, least, most, change) in cases {
        refused(scaled(change), Invalid::ScalingRange { field, value, least, most });
    }
}

#[test]
fn err_scaling_bounds() {
    refused(scaled(|it| it.min_replicas = 5), Invalid::ScalingBounds { least: 5, most: 4 });
}

#[test]
fn err_replicas_beside_scaling() {
    let change = |object: &mut ModelDeployment| {
        scaled(|_| {})(object);
        object.spec.replicas = 2;
    };
    refused(change, Invalid::ReplicasBesideScaling(2));
}

#[test]
fn err_request_over_limit() {
    let change = |o: &mut ModelDeployment| {
        let resources = &mut o.spec.template.resources;
        resources.requests.insert("memory".into(), Quantity("1Gi".into()));
        resources.limits.insert("memory".into(), Quantity("1G".into()));
    };
    refused(change, Invalid::RequestOverLimit("memory".into()));
}

#[test]
fn err_reserved_key() {
    let map = || iter::once(("coterie.dev/role".to_owned(), "rank".to_owned())).collect();
    let expected = |field| Invalid::ReservedKey { field, key: "coterie.dev/role".into() };
    refused(|o| o.spec.template.labels = map(), expected("labels"));
    refused(|o| o.spec.template.annotations = map(), expected("annotations"));
}

#[test]
fn err_served_name() {
    for name in ["", "a b", "-a", "a/", "modèle", &"a".repeat(129)] {
        refused(|o| o.spec.model.served_name = Some(name.into()), Invalid::ServedName(name.into()));
    }
}

#[test]
fn err_source_count() {
    refused(|o| o.spec.model.source = SourceSpec::default(), Invalid::SourceCount(0));
    let both = |o: &mut ModelDeployment| {
        o.spec.model.source.persistent_volume_claim = claim(None).persistent_volume_claim;
    };
    refused(both, Invalid::SourceCount(2));
}

#[test]
fn every_message_tells_what_to_do() {
    let text = Invalid::ReservedKey { field: "labels", key: "coterie.dev/x".into() }.to_string();
    assert!(text.contains("template.labels") && text.contains("use a prefix of your own"), "{text}");
}
