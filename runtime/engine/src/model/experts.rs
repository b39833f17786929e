//! A layer's gate and experts as checkpoints have them: a tensor for each matrix of each expert, or one tensor for all
//! experts, as newer code holds them in memory.

use crate::load_error::LoadError;
use crate::model::config::Config;
use crate::model::config::plan::{Fused, MoePlan, Names, SharedPlan};
use crate::moe::expert::{Expert, LayerExperts};
use crate::moe::gate::Gate;
use crate::moe::{Moe, SharedExpert};
use crate::weights::written::{Packed, Written};
use crate::weights::{Loader, Role, Storage};
use coterie_kernels::cpu::mxfp4;
use std::sync::Arc;

/// Loads the gate of layer `l`, the `number`-th with experts, and those of its experts that the loader wants.
pub fn load_moe<S: Storage>(
    loader: &Loader<'_, S>,
    config: &Config,
    plan: &MoePlan,
    l: usize,
    number: usize,
) -> Result<Moe<S>, LoadError> {
    let moe = match loader.has(&fused(l, "gate_up_proj")) {
        true => "mlp",
        false => config.names.moe,
    };
    let block = format!("model.layers.{l}.{moe}");
    let expert = |e| match loader.wants(number, e) {
        true => load_expert(loader, config, plan, l, e).map(Some),
        false => loader.skip(|loader| load_expert(loader, config, plan, l, e)).map(|()| None),
    };
    Ok(Moe {
        gate: load_gate(loader, config, plan, &block)?,
        experts: Arc::new(LayerExperts::new((0..plan.experts).map(expert).collect::<Result<_, _>>()?)),
        shared: plan.shared.as_ref().map(|plan| load_shared(loader, config, plan, &block)).transpose()?,
    })
}

fn load_gate<S: Storage>(
    loader: &Loader<'_, S>,
    config: &Config,
    plan: &MoePlan,
    block: &str,
) -> Result<Gate<S>, LoadError> {
    let Names { gate, correction, .. } = config.names;
    let vector = |there: bool, name: &str| {
        there.then(|| loader.vector(&format!("{block}.{name}"), plan.experts)).transpose()
    };
    let shape = [plan.experts, config.hidden];
    Ok(Gate {
        weight: loader.matrix(&format!("{block}.{gate}.weight"), shape, Role::Gate)?,
        bias: vector(plan.biases, &format!("{gate}.bias"))?,
        correction: vector(plan.correction, correction)?,
        rule: plan.rule,
    })
}

fn load_shared<S: Storage>(
    loader: &Loader<'_, S>,
    config: &Config,
    plan: &SharedPlan,
    block: &str,
) -> Result<SharedExpert<S>, LoadError> {
    let (hidden, shared) = (config.hidden, format!("{block}.{}", config.names.shared));
    let gate = || loader.matrix(&format!("{shared}_gate.weight"), [1, hidden], Role::Gate);
    let shape = [plan.intermediate, hidden];
    Ok(SharedExpert {
        expert: Expert::load(loader, &shared, Names::USUAL.expert, shape, Role::Dense)?,
        gate: plan.gated.then(gate).transpose()?,
    })
}

/// Layer `l`'s expert `e`.
pub fn load_expert<S: Storage>(
    loader: &Loader<'_, S>,
    config: &Config,
    plan: &MoePlan,
    l: usize,
    e: usize,
) -> Result<Expert<S>, LoadError> {
    let shape = [plan.intermediate, config.hidden];
    if config.names.fused == Fused::Alternating {
        return load_alternating(loader, plan, shape, l, e);
    }
    if loader.has(&fused(l, "gate_up_proj")) {
        return load_halves(loader, plan, shape, l, e);
    }
    let prefix = format!("model.layers.{l}.{}.experts.{e}", config.names.moe);
    Expert::load(loader, &prefix, config.names.expert, shape, Role::Expert)
}

/// Of tensors for all experts, w1 above w3.
fn load_halves<S: Storage>(
    loader: &Loader<'_, S>,
    plan: &MoePlan,
    [intermediate, hidden]: [usize; 2],
    l: usize,
    e: usize,
) -> Result<Expert<S>, LoadError> {
    let experts = plan.experts;
    let both = loader
        .tensor(&fused(l, "gate_up_proj"), &[experts, 2 * intermediate, hidden])?
        .rows(0..experts, &[experts * 2 * intermediate, hidden]);
    let down = loader.tensor(&fused(l, "down_proj"), &[experts, hidden, intermediate])?;
    let half = |number: usize| {
        let rows = number * intermediate..(number + 1) * intermediate;
        loader.hold(Written::Rows(both.rows(rows, &[intermediate, hidden])), Role::Expert)
    };
    let down = down.rows(e..e + 1, &[hidden, intermediate]);
    Ok(Expert {
        w1: half(2 * e)?,
        w2: loader.hold(Written::Rows(down), Role::Expert)?,
        w3: half(2 * e + 1)?,
        biases: None,
        activation: plan.activation,
    })
}

/// Of tensors for all experts, w1 and w3 by turns, with biases.
fn load_alternating<S: Storage>(
    loader: &Loader<'_, S>,
    plan: &MoePlan,
    [intermediate, hidden]: [usize; 2],
    l: usize,
    e: usize,
) -> Result<Expert<S>, LoadError> {
    // Of `[outputs, inputs]` the outputs from `first` on, `step` apart.
    let matrix = |name: &str, [outputs, inputs]: [usize; 2], first, step| {
        let all = outputs * step;
        let (groups, whole) = (inputs / mxfp4::GROUP, inputs.is_multiple_of(mxfp4::GROUP));
        let written = if whole && loader.has(&fused(l, &format!("{name}_blocks"))) {
            let (blocks, scales) =
                ([plan.experts, all, groups, mxfp4::GROUP / 2], [plan.experts, all, groups]);
            let blocks = loader.packed(&fused(l, &format!("{name}_blocks")), &blocks)?;
            let scales = loader.packed(&fused(l, &format!("{name}_scales")), &scales)?;
            let blocks = blocks.rows(e..e + 1, &[all, groups, mxfp4::GROUP / 2]);
            let scales = scales.rows(e..e + 1, &[all, groups]);
            Written::Mxfp4(Packed { blocks, scales, outputs, first, step })
        } else {
            let view = loader.tensor(&fused(l, name), &[plan.experts, inputs, all])?;
            Written::Columns { view: view.rows(e..e + 1, &[inputs, all]), outputs, first, step }
        };
        loader.hold(written, Role::Expert)
    };
    let bias = |name: &str, outputs: usize, first, step| {
        let view = loader.tensor(&fused(l, name), &[plan.experts, outputs * step])?;
        let view = view.rows(e..e + 1, &[1, outputs * step]);
        loader.hold_vector(Written::Columns { view, outputs, first, step }, Role::Expert)
    };
    let (up, down) = ([intermediate, hidden], [hidden, intermediate]);
    Ok(Expert {
        w1: matrix("gate_up_proj", up, 0, 2)?,
        w2: matrix("down_proj", down, 0, 1)?,
        w3: matrix("gate_up_proj", up, 1, 2)?,
        biases: Some([
            bias("gate_up_proj_bias", intermediate, 0, 2)?,
            bias("down_proj_bias", hidden, 0, 1)?,
            bias("gate_up_proj_bias", intermediate, 1, 2)?,
        ]),
        activation: plan.activation,
    })
}

/// The name of a tensor for all experts of layer `l`; the same in every family.
fn fused(l: usize, name: &str) -> String {
    format!("model.layers.{l}.mlp.experts.{name}")
}
