mod ranks;

use super::*;
use crate::observed::{Observed, Settings};
use crate::plan::State;
use crate::validate::validate;
use crate::world::{GIB, inspection, node, object};
use coterie_api::condition::reason;
use coterie_api::deployment::ModelDeployment;
use coterie_api::launch::{DraftModule, WeightBytes};
use k8s_openapi::api::core::v1::{Taint, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

fn weights() -> WeightsStatus {
    WeightsStatus { source_hash: "hash".to_owned(), inspection: inspection() }
}

fn planned(change: impl FnOnce(&mut ModelDeployment, &mut Observed)) -> CapacityPlan {
    let (mut object, mut observed) = (object(1), Observed::default());
    observed.nodes = vec![node("small", 2 * GIB), node("large", 16 * GIB)];
    change(&mut object, &mut observed);
    plan(&validate(&object).unwrap(), &weights(), &observed)
}

fn limit(object: &mut ModelDeployment, memory: &str) {
    object.spec.template.resources.limits.insert("memory".into(), Quantity(memory.into()));
}

#[track_caller]
fn refused(plan: &CapacityPlan, reason: &str) -> String {
    let finding = plan.unplaceable.as_ref().expect("an obstacle");
    assert_eq!((finding.state, finding.reason), (State::False, reason));
    finding.message.clone()
}

fn layout(quantization: Quantization, context_length: u32) -> Layout {
    Layout { device: Device::Cpu, quantization, context_length, ranks: 1, redundant: 0, gpus: 0 }
}

#[test]
fn what_is_spare_is_shared_by_the_gpus_of_a_rank() {
    let mut inspection = inspection();
    (inspection.working_bytes, inspection.spare_bytes) = (3 * GIB, 2 * GIB);
    let on_cpu = layout(Quantization::None, 1024);
    let on_gpus = Layout { device: Device::Gpu, gpus: 4, ..on_cpu };
    assert_eq!(on_cpu.parts(&inspection).working, 3 * GIB);
    assert_eq!(on_gpus.parts(&inspection).working, 4 * GIB + 2 * GIB);
    assert_eq!(on_gpus.demand(&inspection).request.memory, 1076 << 20);
    // A status may say anything.
    inspection.spare_bytes = u64::MAX;
    assert_eq!(on_gpus.parts(&inspection).working, 3 * GIB);
}

/// (4 GiB + 0.5 GiB of cache + 0.25 GiB) × 1.05, in MiB.
#[test]
fn need_is_weights_cache_and_working_memory_with_headroom() {
    let needed = |quantization, context| layout(quantization, context).needed(&inspection());
    assert_eq!(needed(Quantization::None, 8192), 5108 << 20);
    assert_eq!(needed(Quantization::Int8, 8192), 2957 << 20);
    assert_eq!(needed(Quantization::None, 1), 4570 << 20);
}

#[test]
fn absurd_models_do_not_overflow() {
    let mut inspection = inspection();
    inspection.kv_bytes_per_token = u64::MAX;
    inspection.weight_bytes.none = u64::MAX;
    inspection.expert_bytes = Some(WeightBytes { none: u64::MAX, int8: u64::MAX, int4: None });
    (inspection.state_bytes, inspection.working_bytes, inspection.experts) = (u64::MAX, u64::MAX, u32::MAX);
    for ranks in [1, 2, u32::MAX] {
        let layout = Layout { ranks, redundant: u32::MAX, ..layout(Quantization::None, u32::MAX) };
        assert!(layout.needed(&inspection) > u64::MAX / 2);
        let on_gpus = Layout { device: Device::Gpu, gpus: u32::MAX, ..layout };
        assert!(on_gpus.demand(&inspection).request.memory > u64::MAX / 2);
    }
    let weights = WeightsStatus { source_hash: "hash".to_owned(), inspection };
    let observed = Observed { nodes: vec![node("large", u64::MAX / 2)], ..Default::default() };
    let plan = plan(&validate(&object(1)).unwrap(), &weights, &observed);
    assert!(plan.options.iter().all(|option| option.longest_context.is_none()), "{plan:?}");
}

#[test]
fn the_longest_context_that_fits_is_exact() {
    let longest = |memory: u64| {
        let plan = planned(|_, seen| seen.nodes = vec![node("only", memory)]);
        plan.options.iter().find(|option| option.quantization == Quantization::Int8).unwrap().longest_context
    };
    let fits = |context| layout(Quantization::Int8, context).needed(&inspection()) <= 5 * GIB / 2;
    let found = longest(5 * GIB / 2).unwrap();
    assert!(found.is_multiple_of(256) && fits(found) && !fits(found + 256), "{found}");
    assert_eq!(longest(GIB), None);
    assert_eq!(longest(64 * GIB), Some(8192));
}

#[test]
fn the_best_quantization_that_fits_is_chosen() {
    let plan = planned(|_, _| {});
    assert_eq!(
        (plan.quantization, plan.device, plan.context_length),
        (Quantization::None, Device::Cpu, 8192)
    );
    assert_eq!((plan.largest_node, plan.unplaceable), (16 * GIB, None));
    assert_eq!(planned(|object, _| limit(object, "4Gi")).quantization, Quantization::Int8);
    assert_eq!(planned(|_, seen| seen.nodes[1] = node("large", 4 * GIB)).quantization, Quantization::Int8);
    let both = planned(|object, seen| {
        limit(object, "6Gi");
        seen.nodes[1] = node("large", 4 * GIB);
    });
    assert_eq!((both.quantization, both.unplaceable), (Quantization::Int8, None));
}

#[test]
fn a_choice_is_kept_while_what_it_was_made_from_stays_the_same() {
    let first = planned(|_, _| {});
    let remember = |seen: &mut Observed| {
        seen.status.capacity = Some(first.status(false));
        seen.status.quantization = Some(first.quantization);
    };
    let rank = crate::observed::ObservedPod {
        role: Some(Role::Rank),
        node: Some("large".into()),
        ..Default::default()
    };
    let shrunk = planned(|_, seen| {
        remember(seen);
        seen.pods.push(rank.clone());
        seen.nodes[1] = node("large", 4 * GIB);
    });
    assert_eq!(shrunk.quantization, Quantization::None, "a node that goes restarts no rank");
    let scaled = planned(|object, seen| {
        remember(seen);
        seen.pods.push(rank.clone());
        seen.nodes[1] = node("large", 4 * GIB);
        object.spec.replicas = 7;
        object.metadata.generation = Some(9);
    });
    assert_eq!(scaled.quantization, Quantization::None, "nor does a change of replicas");
    let unplaced = planned(|_, seen| {
        remember(seen);
        seen.nodes[1] = node("large", 4 * GIB);
    });
    assert_eq!(unplaced.quantization, Quantization::Int8, "nothing runs: chosen again");
    let limited = planned(|object, seen| {
        remember(seen);
        seen.pods.push(rank.clone());
        limit(object, "4Gi");
    });
    assert_eq!(limited.quantization, Quantization::Int8, "another limit, another choice");
}

#[test]
fn a_limit_that_is_too_small_names_what_fits_and_makes_no_rank() {
    let plan = planned(|object, _| {
        limit(object, "4Gi");
        object.spec.model.quantization = Some(Quantization::None);
    });
    let message = refused(&plan, reason::MEMORY_LIMIT_TOO_SMALL);
    assert_eq!(
        message,
        "one rank needs 4.9 GiB (quantization None, context 8192), and template.resources.limits.memory is 4.0 GiB; set \
         model.quantization: Int8 (needs 2.8 GiB), or raise the limit"
    );
    assert_eq!(plan.would_fit.as_deref(), Some("model.quantization: Int8 (needs 2.8 GiB)"));
    assert!(plan.is_hopeless());
}

#[test]
fn a_node_that_is_too_small_names_itself_and_what_fits_but_lets_ranks_wait_for_an_autoscaler() {
    let plan = planned(|_, seen| seen.nodes[1] = node("large", 5 * GIB / 2));
    let message = refused(&plan, reason::NODE_TOO_SMALL);
    assert!(message.contains("the largest node, large, has 2.5 GiB for pods"), "{message}");
    assert!(
        message.contains("; set model.contextLength: 2048, or add a node with at least 2.8 GiB"),
        "{message}"
    );
    assert!(!plan.is_hopeless());
    let tiny = planned(|_, seen| seen.nodes.truncate(1));
    let message = refused(&tiny, reason::NODE_TOO_SMALL);
    assert!(message.ends_with("; add a node with at least 2.8 GiB"), "{message}");
}

#[test]
fn both_changes_together_are_suggested_when_neither_alone_helps() {
    let plan = planned(|object, seen| {
        object.spec.model.quantization = Some(Quantization::None);
        seen.nodes[1] = node("large", 5 * GIB / 2);
    });
    let text = plan.would_fit.unwrap();
    assert_eq!(text, "model.quantization: Int8 with model.contextLength: 2048");
}

#[test]
fn a_memory_request_of_the_template_counts() {
    let plan = planned(|object, _| {
        object.spec.template.resources.requests.insert("memory".into(), Quantity("20Gi".into()));
    });
    assert_eq!((plan.demand.memory, plan.needed), (20 * GIB, 2957 << 20));
    let message = refused(&plan, reason::NODE_TOO_SMALL);
    assert!(message.contains("; lower template.resources.requests.memory, or add a node"), "{message}");
}

#[test]
fn more_cores_than_any_node_has() {
    let plan = planned(|object, _| {
        object.spec.template.resources.requests.insert("cpu".into(), Quantity("8500m".into()));
    });
    let message = refused(&plan, reason::NODE_TOO_SMALL);
    assert!(message.starts_with("one rank requests 9 CPUs, and no node has as many"), "{message}");
}

#[test]
fn a_device_that_the_runtime_cannot_use() {
    let plan = planned(|object, _| object.spec.accelerator.device = DeviceChoice::Gpu);
    let message = refused(&plan, reason::DEVICE_UNSUPPORTED);
    assert!(message.ends_with("set accelerator.device to Cpu or Auto"), "{message}");
    assert!(plan.is_hopeless());
}

fn for_gpus() -> Settings {
    Settings { gpu_runtime_image: Some("localhost/coterie:1-gpu".to_owned()), ..Default::default() }
}

#[test]
fn without_an_image_for_gpus_nothing_is_served_on_them() {
    let mut weights = weights();
    weights.inspection.devices = vec![Device::Cpu, Device::Gpu];
    let mut gpus = node("gpus", 16 * GIB);
    (gpus.allocatable.gpus, gpus.gpu_memory) = (8, 80 * GIB);
    let observed = Observed { nodes: vec![gpus], ..Default::default() };
    let planned = |device| {
        let mut object = object(1);
        object.spec.accelerator.device = device;
        plan(&validate(&object).unwrap(), &weights, &observed)
    };
    let message = refused(&planned(DeviceChoice::Gpu), reason::DEVICE_UNSUPPORTED);
    assert!(message.contains("set images.gpuRuntime among the chart's values"), "{message}");
    assert_eq!(planned(DeviceChoice::Auto).device, Device::Cpu);
    let observed = Observed { settings: for_gpus(), ..observed.clone() };
    let plan = plan(&validate(&object(1)).unwrap(), &weights, &observed);
    assert_eq!((plan.device, plan.unplaceable), (Device::Gpu, None));
}

fn planned_with_gpus(device: DeviceChoice, per_rank: Option<u32>, on_node: u64) -> CapacityPlan {
    let mut inspection = inspection();
    inspection.devices = vec![Device::Cpu, Device::Gpu];
    let mut object = object(1);
    object.spec.accelerator.device = device;
    object.spec.accelerator.per_rank = per_rank;
    let mut gpus = node("gpus", 16 * GIB);
    gpus.allocatable.gpus = on_node;
    gpus.gpu_memory = 4 * GIB;
    let observed = Observed { nodes: vec![gpus], settings: for_gpus(), ..Default::default() };
    plan(
        &validate(&object).unwrap(),
        &WeightsStatus { source_hash: "hash".to_owned(), inspection },
        &observed,
    )
}

#[test]
fn gpus_are_taken_where_nodes_have_enough() {
    let plan = planned_with_gpus(DeviceChoice::Auto, Some(2), 2);
    assert_eq!((plan.device, plan.demand.gpus, plan.unplaceable), (Device::Gpu, 2, None));
    assert_eq!(plan.demand.memory, 269 << 20, "of the node it needs the working memory");
    assert_eq!(planned_with_gpus(DeviceChoice::Auto, Some(2), 1).device, Device::Cpu);
}

#[test]
fn gpus_to_claim_are_those_that_labels_count() {
    let mut weights = weights();
    weights.inspection.devices = vec![Device::Cpu, Device::Gpu];
    let mut object = object(1);
    object.spec.accelerator.device = DeviceChoice::Gpu;
    object.spec.accelerator.per_rank = Some(2);
    let planned = |object: &ModelDeployment, label: Option<&str>| {
        let mut gpus = node("gpus", 16 * GIB);
        gpus.gpu_memory = 80 * GIB;
        gpus.labels.extend(label.map(|count| ("nvidia.com/gpu.count".to_owned(), count.to_owned())));
        let observed = Observed { nodes: vec![gpus], settings: for_gpus(), ..Default::default() };
        plan(&validate(object).unwrap(), &weights, &observed)
    };
    refused(&planned(&object, Some("4")), reason::TOO_FEW_GPUS);
    object.spec.accelerator.claim_template = Some("two-gpus".to_owned());
    let plan = planned(&object, Some("4"));
    assert_eq!((plan.unplaceable.as_ref(), plan.room), (None, 2));
    let message = refused(&planned(&object, Some("1")), reason::TOO_FEW_GPUS);
    assert!(message.starts_with("one rank asks for 2 GPUs, and no node has more than 1"), "{message}");
    let message = refused(&planned(&object, None), reason::TOO_FEW_GPUS);
    assert!(message.contains("label the nodes nvidia.com/gpu.count=NUMBER"), "{message}");
}

#[test]
fn a_rank_is_given_no_more_gpus_than_it_can_use() {
    let of = |asked| {
        let mut inspection = inspection();
        (inspection.devices, inspection.most_gpus) = (vec![Device::Gpu], 1);
        let mut object = object(1);
        (object.spec.accelerator.device, object.spec.accelerator.per_rank) = (DeviceChoice::Gpu, asked);
        let mut gpus = node("gpus", 16 * GIB);
        (gpus.allocatable.gpus, gpus.gpu_memory) = (8, 4 * GIB);
        let observed = Observed { nodes: vec![gpus], settings: for_gpus(), ..Default::default() };
        plan(
            &validate(&object).unwrap(),
            &WeightsStatus { source_hash: "hash".into(), inspection },
            &observed,
        )
    };
    // With two, all would fit as it is.
    let plan = of(None);
    assert_eq!((plan.gpus, plan.quantization), (1, Quantization::Int8));
    let message = refused(&of(Some(2)), reason::DEVICE_UNSUPPORTED);
    assert!(message.contains("one rank of this build of the runtime computes on 1 GPU at most"), "{message}");
}

#[test]
fn a_draft_module_is_counted_where_it_is_asked_for() {
    let mut weights = weights();
    weights.inspection.draft_module = Some(DraftModule {
        weight_bytes: WeightBytes { none: GIB, int8: GIB / 2, int4: None },
        kv_bytes_per_token: 1000,
        spare_bytes: 1 << 20,
    });
    let of = |weights: &WeightsStatus, speculate| {
        let mut object = object(1);
        object.spec.model.speculate = speculate;
        let observed = Observed { nodes: vec![node("large", 16 * GIB)], ..Default::default() };
        plan(&validate(&object).unwrap(), weights, &observed)
    };
    let without = of(&weights, None);
    assert_eq!(of(&weights, Some(Speculate::Lookup)).parts, without.parts);
    let with = of(&weights, Some(Speculate::Mtp));
    assert_ne!(with.basis, without.basis);
    assert_eq!(with.parts.weights, without.parts.weights + GIB);
    assert_eq!(with.parts.kv_cache, without.parts.kv_cache + 1000 * u64::from(with.context_length));
    assert_eq!(with.parts.working, without.parts.working + (1 << 20));

    weights.inspection.draft_module = None;
    let finding = of(&weights, Some(Speculate::Mtp)).invalid.unwrap();
    assert_eq!(finding.reason, reason::NO_DRAFT_MODULE);
    assert!(finding.message.ends_with("set Lookup, or leave it out"), "{}", finding.message);
}

#[test]
fn the_fewest_gpus_that_hold_a_rank_are_taken() {
    // 5.1 GiB in bf16 with working memory on each of two GPUs of 4 GiB.
    let plan = planned_with_gpus(DeviceChoice::Gpu, None, 8);
    assert_eq!((plan.gpus, plan.quantization, plan.unplaceable.as_ref()), (2, Quantization::None, None));
    assert_eq!(plan.parts.working, GIB / 2, "each has its own");
    assert!(plan.of_each_gpu() <= 4 * GIB && plan.largest_node == 32 * GIB);
    assert_eq!(planned_with_gpus(DeviceChoice::Gpu, None, 1).quantization, Quantization::Int8);
}

#[test]
fn gpus_whose_memory_nobody_tells_are_promised_nothing() {
    let mut weights = weights();
    weights.inspection.devices = vec![Device::Gpu];
    let mut object = object(1);
    object.spec.accelerator.device = DeviceChoice::Gpu;
    let mut gpus = node("gpus", 16 * GIB);
    gpus.allocatable.gpus = 8;
    let observed = Observed { nodes: vec![gpus], settings: for_gpus(), ..Default::default() };
    let plan = plan(&validate(&object).unwrap(), &weights, &observed);
    let message = refused(&plan, reason::NODE_TOO_SMALL);
    assert!(message.contains("label the nodes nvidia.com/gpu.memory=MIB"), "{message}");
    assert!(!plan.is_hopeless(), "the scheduler has the last word");
}

#[test]
fn more_gpus_than_any_node_has() {
    let message = refused(&planned_with_gpus(DeviceChoice::Gpu, Some(4), 2), reason::TOO_FEW_GPUS);
    assert!(message.contains("set accelerator.perRank to at most 2"), "{message}");
    let message = refused(&planned_with_gpus(DeviceChoice::Gpu, Some(4), 0), reason::TOO_FEW_GPUS);
    assert!(!message.contains("at most 0"), "{message}");
}

#[test]
fn a_context_longer_than_the_models_is_invalid() {
    let plan = planned(|object, _| object.spec.model.context_length = Some(8193));
    let finding = plan.invalid.as_ref().unwrap();
    assert_eq!(finding.reason, reason::CONTEXT_TOO_LONG);
    assert!(finding.message.contains("made for 8192 tokens; set at most that"), "{}", finding.message);
    assert!(plan.is_hopeless());
}

fn taint(key: &str, effect: &str) -> Taint {
    Taint { key: key.into(), effect: effect.into(), ..Default::default() }
}

#[test]
fn only_nodes_that_the_template_may_use_count() {
    let tainted = |object: &mut ModelDeployment, seen: &mut Observed, effect: &str, tolerated: bool| {
        seen.nodes.iter_mut().for_each(|node| node.taints.push(taint("team", effect)));
        if tolerated {
            let toleration = Toleration { operator: Some("Exists".into()), ..Default::default() };
            object.spec.template.tolerations.push(toleration);
        }
    };
    let plan = planned(|object, seen| tainted(object, seen, "NoSchedule", false));
    let message = refused(&plan, reason::NO_ELIGIBLE_NODE);
    assert!(message.starts_with("there is no node whose taints are tolerated; label or add"), "{message}");
    assert_eq!(planned(|object, seen| tainted(object, seen, "NoSchedule", true)).unplaceable, None);
    assert_eq!(planned(|object, seen| tainted(object, seen, "PreferNoSchedule", false)).unplaceable, None);
    let temporary = planned(|_, seen| {
        seen.nodes.iter_mut().for_each(|node| {
            node.schedulable = false;
            node.taints.push(taint("node.kubernetes.io/unschedulable", "NoSchedule"));
        });
    });
    assert_eq!((temporary.unplaceable, temporary.has_room), (None, false), "a cordon passes");
    let selected = planned(|object, _| {
        object.spec.template.node_selector.insert("pool".into(), "big".into());
    });
    assert!(refused(&selected, reason::NO_ELIGIBLE_NODE).contains("with label pool=big"));
}

/// Of 4 GiB in bf16, 2 in int8 and 1.25 in int4 on a node of 16 GiB with 2 GPUs of `gpu_memory`.
fn planned_with_int4(
    gpu_memory: u64,
    change: impl FnOnce(&mut ModelDeployment, &mut Observed),
) -> CapacityPlan {
    let mut inspection = inspection();
    inspection.weight_bytes.int4 = Some(5 * GIB / 4);
    (inspection.devices, inspection.most_gpus) = (vec![Device::Cpu, Device::Gpu], 1);
    let mut gpus = node("gpus", 16 * GIB);
    (gpus.allocatable.gpus, gpus.gpu_memory) = (2, gpu_memory);
    let mut observed = Observed { nodes: vec![gpus], settings: for_gpus(), ..Default::default() };
    let mut object = object(1);
    change(&mut object, &mut observed);
    let weights = WeightsStatus { source_hash: "hash".into(), inspection };
    plan(&validate(&object).unwrap(), &weights, &observed)
}

#[test]
fn int4_is_taken_on_gpus_that_hold_nothing_better_and_never_on_cpus() {
    let on = |device| {
        move |object: &mut ModelDeployment, _: &mut Observed| object.spec.accelerator.device = device
    };
    let chosen = |memory, device| {
        let plan = planned_with_int4(memory, on(device));
        (plan.quantization, plan.unplaceable)
    };
    assert_eq!(chosen(8 * GIB, DeviceChoice::Gpu), (Quantization::None, None));
    assert_eq!(chosen(3 * GIB, DeviceChoice::Gpu), (Quantization::Int8, None));
    assert_eq!(chosen(5 * GIB / 2, DeviceChoice::Gpu), (Quantization::Int4, None));
    let small = |object: &mut ModelDeployment, observed: &mut Observed| {
        object.spec.accelerator.device = DeviceChoice::Cpu;
        observed.nodes = vec![node("small", 5 * GIB / 2)];
    };
    let plan = planned_with_int4(0, small);
    assert_eq!((plan.quantization, plan.options.len()), (Quantization::Int8, 2));
    let message = plan.unplaceable.unwrap().message;
    assert!(!message.contains("Int4"), "{message}");
}

#[test]
fn who_asks_for_int4_asks_for_gpus() {
    let int4 = |object: &mut ModelDeployment| object.spec.model.quantization = Some(Quantization::Int4);
    let plan = planned_with_int4(8 * GIB, |object, _| int4(object));
    assert_eq!((plan.device, plan.quantization, plan.unplaceable), (Device::Gpu, Quantization::Int4, None));
    let without_gpus = planned_with_int4(0, |object, observed| {
        int4(object);
        observed.nodes = vec![node("large", 16 * GIB)];
    });
    assert_eq!(without_gpus.device, Device::Gpu, "also where there is none");
    let message = refused(&without_gpus, reason::TOO_FEW_GPUS);
    assert!(message.starts_with("one rank asks for 1 GPU, and no node has more than 0; "), "{message}");
    assert!(
        message.contains("; set model.quantization to Int8, as Int4 is for GPUs only, or add"),
        "{message}"
    );
    let on_gpus_alone = planned_with_int4(0, |object, observed| {
        int4(object);
        object.spec.accelerator.device = DeviceChoice::Gpu;
        observed.nodes = vec![node("large", 16 * GIB)];
    });
    let message = refused(&on_gpus_alone, reason::TOO_FEW_GPUS);
    assert!(message.contains("only, and accelerator.device to Cpu, or add a node with GPUs"), "{message}");
    let without_image = planned_with_int4(8 * GIB, |object, observed| {
        int4(object);
        observed.settings = Settings::default();
    });
    let message = refused(&without_image, reason::DEVICE_UNSUPPORTED);
    assert!(message.ends_with("or model.quantization to Int8, as Int4 is for GPUs only"), "{message}");
}
