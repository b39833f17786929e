//! Several ranks: what each needs, how many are taken, and what would fit instead.

use super::*;

/// Of 4 GiB in bf16 and 2 GiB in int8, experts are 3.5 and 1.75 GiB.
fn split() -> WeightsStatus {
    let mut weights = weights();
    weights.inspection.expert_bytes = Some(WeightBytes { none: 7 * GIB / 2, int8: 7 * GIB / 4, int4: None });
    weights
}

fn planned(nodes: &[u64], change: impl FnOnce(&mut ModelDeployment, &mut Observed)) -> CapacityPlan {
    let (mut object, mut observed) = (object(1), Observed::default());
    observed.nodes = nodes.iter().enumerate().map(|(n, memory)| node(&format!("n{n}"), *memory)).collect();
    change(&mut object, &mut observed);
    plan(&validate(&object).unwrap(), &split(), &observed)
}

#[test]
fn a_rank_has_everything_but_the_experts_and_its_share_of_those() {
    let parts = |ranks, redundant| {
        Layout { ranks, redundant, ..layout(Quantization::None, 8192) }.parts(&split().inspection)
    };
    let whole = parts(1, 0);
    assert_eq!((whole.weights, whole.experts), (GIB / 2, 7 * GIB / 2));
    assert_eq!((whole.kv_cache, whole.working, whole.state), (GIB / 2, GIB / 4, 0));
    // 8 experts: 4 on each of two ranks, 3 on each of three, and with 4 more slots 4 again.
    assert_eq!(parts(2, 0), CapacityParts { experts: 7 * GIB / 4, ..whole });
    assert_eq!(parts(3, 0).experts, (7 * GIB / 2 * 3).div_ceil(8));
    assert_eq!(parts(3, 4).experts, 7 * GIB / 4);
    assert_eq!(parts(3, 100).experts, 7 * GIB / 2, "no rank holds an expert twice");
}

#[test]
fn without_the_split_every_rank_is_planned_to_have_all_weights() {
    let whole = layout(Quantization::None, 8192);
    let several = Layout { ranks: 4, ..whole };
    assert_eq!(several.needed(&inspection()), whole.needed(&inspection()));
}

#[test]
fn one_rank_is_taken_where_a_node_holds_it_and_else_the_fewest() {
    let one = planned(&[16 * GIB; 4], |_, _| {});
    assert_eq!((one.ranks, one.quantization, one.unplaceable), (1, Quantization::None, None));
    let int8 = planned(&[3 * GIB; 4], |_, _| {});
    assert_eq!((int8.ranks, int8.quantization), (1, Quantization::Int8), "fewer ranks before better weights");
    // int8: 2.89 GiB for one rank, 1.97 GiB for each of two, 1.74 GiB for each of three.
    let two = planned(&[2 * GIB; 4], |_, _| {});
    assert_eq!((two.ranks, two.quantization, two.slots), (2, Quantization::Int8, 4));
    assert_eq!(two.unplaceable, None);
    // One node that takes two is as good as two nodes.
    assert_eq!(planned(&[5 * GIB], |_, _| {}).ranks, 1);
    let three = planned(&[19 * GIB / 10; 3], |_, _| {});
    assert_eq!((three.ranks, three.room, three.unplaceable), (3, 3, None));
}

#[test]
fn redundant_experts_ask_for_ranks_that_can_hold_them() {
    let plan = planned(&[16 * GIB; 4], |object, _| object.spec.experts.redundant = 4);
    assert_eq!((plan.ranks, plan.slots, plan.invalid), (2, 6, None));
    assert_eq!(planned(&[16 * GIB; 4], |object, _| object.spec.experts.redundant = 9).ranks, 3);
}

#[test]
fn more_ranks_than_experts_are_invalid() {
    let plan = planned(&[64 * GIB], |object, _| object.spec.ranks = Some(9));
    let finding = plan.invalid.as_ref().unwrap();
    assert_eq!(finding.reason, reason::TOO_MANY_RANKS);
    assert!(finding.message.contains("has 8 experts a layer; set at most that many"), "{}", finding.message);
    assert!(plan.is_hopeless());
}

#[test]
fn more_copies_than_ranks_can_hold_are_invalid() {
    let asked = |redundant| {
        planned(&[64 * GIB], |object, _| {
            object.spec.ranks = Some(3);
            object.spec.experts.redundant = redundant;
        })
    };
    assert_eq!(asked(16).invalid, None);
    let finding = asked(17).invalid.unwrap();
    assert_eq!(finding.reason, reason::TOO_MANY_COPIES);
    assert!(finding.message.contains("3 ranks can hold 16 copies of 8 experts"), "{}", finding.message);
}

#[test]
fn the_ranks_that_were_chosen_are_kept() {
    let first = planned(&[2 * GIB; 2], |_, _| {});
    assert_eq!((first.ranks, first.quantization), (2, Quantization::Int8));
    let remember = |seen: &mut Observed| {
        seen.status.capacity = Some(first.status(false));
        seen.status.quantization = Some(first.quantization);
        seen.pods.push(crate::observed::ObservedPod {
            role: Some(Role::Rank),
            node: Some("n0".into()),
            ..Default::default()
        });
    };
    let grown = planned(&[64 * GIB; 2], |_, seen| remember(seen));
    assert_eq!(
        (grown.ranks, grown.quantization),
        (2, Quantization::Int8),
        "a node that comes restarts nobody"
    );
    let shrunk = planned(&[GIB], |_, seen| remember(seen));
    assert_eq!(shrunk.ranks, 2, "nor does one that goes");
    let wider = planned(&[64 * GIB; 2], |object, seen| {
        remember(seen);
        object.spec.ranks = Some(3);
        object.spec.experts.redundant = 2;
    });
    assert_eq!((wider.ranks, wider.redundant, wider.quantization), (3, 2, Quantization::Int8));
    assert_eq!(wider.basis, first.basis);
    let single = planned(&[64 * GIB; 2], |object, seen| {
        remember(seen);
        object.spec.ranks = Some(1);
    });
    assert_eq!((single.ranks, single.quantization), (1, Quantization::None), "one rank is chosen for anew");
}

#[test]
fn ranks_that_fit_in_part_are_told_what_is_missing() {
    let plan = planned(&[2 * GIB, GIB], |object, _| object.spec.ranks = Some(2));
    let message = refused(&plan, reason::NODE_TOO_SMALL);
    assert_eq!(
        message,
        "each of 2 ranks needs 1.9 GiB (quantization Int8, context 8192), and the nodes hold 1 of these ranks when \
         empty; add nodes that each have at least 1.9 GiB or a node like n0 (then ranks: 2)"
    );
    assert_eq!(plan.room, 1);
}

#[test]
fn more_ranks_are_suggested_where_they_help() {
    let plan = planned(&[16 * GIB; 2], |object, _| {
        limit(object, "2Gi");
        object.spec.ranks = Some(1);
    });
    let message = refused(&plan, reason::MEMORY_LIMIT_TOO_SMALL);
    assert!(message.contains("set ranks: 2 (needs 1.9 GiB), or raise the limit"), "{message}");
}

#[test]
fn fewer_copies_are_suggested_where_they_help() {
    // 8 experts of 224 MiB; two ranks of 4 slots take 1.97 GiB each, of 6 slots 2.43 GiB.
    let asked = |redundant| {
        planned(&[23 * GIB / 10; 2], |object, _| {
            object.spec.ranks = Some(2);
            object.spec.experts.redundant = redundant;
            object.spec.model.quantization = Some(Quantization::Int8);
        })
    };
    assert_eq!(asked(2).unplaceable, None);
    let message = refused(&asked(4), reason::NODE_TOO_SMALL);
    assert!(
        message.contains("set model.contextLength: ") && message.contains(" or experts.redundant: 2 (needs")
    );
}

#[test]
fn what_is_advised_can_be_asked_for_and_fits() {
    let mut checked = 0;
    for (memory, count) in [(GIB, 2), (19 * GIB / 10, 2), (2 * GIB, 4), (3 * GIB, 3)] {
        for ranks in [None, Some(1), Some(2), Some(4)] {
            for redundant in [0, 1, 4, 9].into_iter().filter(|copies| ranks != Some(1) || *copies == 0) {
                let nodes = vec![memory; count];
                let ask = |object: &mut ModelDeployment| {
                    object.spec.ranks = ranks;
                    object.spec.experts.redundant = redundant;
                };
                let first = planned(&nodes, |object, _| ask(object));
                let Some(advice) = first.would_fit.filter(|advice| !advice.starts_with("add")) else {
                    continue;
                };
                for way in advice.split(" or ") {
                    let plan = planned(&nodes, |object, _| {
                        ask(object);
                        follow(object, way.split(" (needs").next().unwrap());
                    });
                    assert_eq!((&plan.invalid, &plan.unplaceable), (&None, &None), "{way}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 10, "{checked}");
}

/// Sets what an advice says.
fn follow(object: &mut ModelDeployment, way: &str) {
    for setting in way.split(" with ") {
        let (key, value) = setting.split_once(": ").unwrap();
        let number = || value.parse::<u32>().unwrap();
        match key {
            "model.quantization" => {
                object.spec.model.quantization =
                    Quantization::BEST_FIRST.into_iter().find(|it| it.to_string() == value)
            }
            "model.contextLength" => object.spec.model.context_length = Some(number()),
            "ranks" => object.spec.ranks = Some(number()),
            "experts.redundant" => object.spec.experts.redundant = number(),
            "accelerator.perRank" => object.spec.accelerator.per_rank = Some(number()),
            other => panic!("{other}"),
        }
    }
}

mod on_gpus {
    use super::*;

    /// Experts of 430 GiB and 22 GiB of other weights in int8, with 40 KiB of cache a token.
    fn large() -> WeightsStatus {
        let mut weights = weights();
        let inspection = &mut weights.inspection;
        inspection.devices = vec![Device::Cpu, Device::Gpu];
        (inspection.experts, inspection.context_length) = (32, 10_240_000);
        inspection.weight_bytes = WeightBytes { none: 850 * GIB, int8: 452 * GIB, int4: None };
        inspection.expert_bytes = Some(WeightBytes { none: 810 * GIB, int8: 430 * GIB, int4: None });
        inspection.kv_bytes_per_token = 40 << 10;
        inspection.working_bytes = GIB;
        weights
    }

    fn planned(nodes: &[u64], change: impl FnOnce(&mut ModelDeployment)) -> CapacityPlan {
        let mut object = object(1);
        object.spec.model.context_length = Some(1 << 20);
        change(&mut object);
        let with_gpus = |(n, gpus): (usize, &u64)| {
            let mut node = node(&format!("gpu-{n}"), 1024 * GIB);
            (node.allocatable.gpus, node.gpu_memory) = (*gpus, 80 * GIB);
            node
        };
        let nodes = nodes.iter().enumerate().map(with_gpus).collect();
        let observed = Observed { nodes, settings: for_gpus(), ..Default::default() };
        plan(&validate(&object).unwrap(), &large(), &observed)
    }

    #[test]
    fn eight_gpus_hold_a_million_tokens_between_them() {
        let plan = planned(&[8], |_| {});
        assert_eq!((plan.device, plan.ranks, plan.gpus), (Device::Gpu, 1, 8));
        assert_eq!((plan.quantization, plan.unplaceable.as_ref()), (Quantization::Int8, None));
        assert_eq!(plan.parts.kv_cache, 40 * GIB);
        assert_eq!(plan.largest_node, 640 * GIB);
        assert!(plan.options[1].longest_context.unwrap() > 3 << 20, "{:?}", plan.options);
    }

    #[test]
    fn four_gpus_do_not_and_the_nodes_that_would_are_named() {
        let plan = planned(&[4], |_| {});
        let message = refused(&plan, reason::NODE_TOO_SMALL);
        assert_eq!(
            message,
            "one rank needs 520.8 GiB on 4 GPUs of 130.2 GiB (quantization Int8, context 1048576), and the largest \
             node, gpu-0, has 4 GPUs of 80.0 GiB for pods; add a node with 8 GPUs of 80.0 GiB (then ranks: 1 with \
             accelerator.perRank: 8) or a node like gpu-0 (then ranks: 2 with accelerator.perRank: 4)"
        );
        assert!(plan.would_fit.unwrap().starts_with("add a node with 8 GPUs"));
        assert_eq!(planned(&[4, 4], |_| {}).ranks, 2);
    }

    #[test]
    fn one_rank_for_copies_is_advised_without_them() {
        let plan = planned(&[8], |object| {
            object.spec.ranks = Some(2);
            object.spec.experts.redundant = 4;
        });
        let message = refused(&plan, reason::NODE_TOO_SMALL);
        let alone = "(then ranks: 1 with accelerator.perRank: 16 with experts.redundant: 0)";
        assert!(message.contains(alone), "{message}");
    }

    #[test]
    fn fewer_gpus_than_were_asked_for_are_suggested_only_where_they_are_enough() {
        let plan = planned(&[4], |object| {
            object.spec.accelerator.device = DeviceChoice::Gpu;
            object.spec.accelerator.per_rank = Some(8);
        });
        let message = refused(&plan, reason::TOO_FEW_GPUS);
        assert!(!message.contains("at most"), "four would not do: {message}");
        assert!(message.contains("or add a node with 8 GPUs of 80.0 GiB (then ranks: 1"), "{message}");
    }

    #[test]
    fn each_of_eight_ranks_needs_the_whole_context_for_itself() {
        let plan = planned(&[8], |object| {
            object.spec.ranks = Some(8);
            object.spec.accelerator.per_rank = Some(1);
        });
        let message = refused(&plan, reason::NODE_TOO_SMALL);
        assert!(message.contains("each of 8 ranks needs 122.5 GiB on 1 GPU of 122.5 GiB"), "{message}");
        assert!(message.contains("ranks: 1 with accelerator.perRank: 8 (needs"), "{message}");
    }
}
