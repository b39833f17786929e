//! A layer's gate and experts as checkpoints have them: a tensor for each matrix of each expert, or one tensor for all
//! experts, as newer code holds them in memory.

use crate::load_error::LoadError;
use crate::model::config::Config;
use crate::model::config::plan::MoePlan;
use crate::moe::Moe;
use crate::moe::expert::{Expert, LayerExperts};
use crate::moe::gate::Gate;
use crate::weights::{Loader, Role, Storage};
use std::sync::Arc;

/// Loads the gate of layer `l`, the `number`-th with experts, and those of its experts that the loader wants.
pub fn load_moe<S: Storage>(
    loader: &Loader<'_, S>,
    config: &Config,
    plan: &MoePlan,
    l: usize,
    number: usize,
) -> Result<Moe<S>, LoadError> {
    let block = match loader.has(&fused(l, "gate_up_proj")) {
        true => "mlp",
        false => config.names.moe,
    };
    let gate = format!("model.layers.{l}.{block}.gate.weight");
    let gate = Gate {
        weight: loader.matrix(&gate, [plan.experts, config.hidden], Role::Kept)?,
        experts_per_token: plan.per_token,
        renormalise: plan.renormalise,
    };
    let expert = |e| match loader.wants(number, e) {
        true => load_expert(loader, config, plan, l, e).map(Some),
        false => loader.skip(|loader| load_expert(loader, config, plan, l, e)).map(|()| None),
    };
    let experts = (0..plan.experts).map(expert).collect::<Result<_, _>>()?;
    Ok(Moe { gate, experts: Arc::new(LayerExperts::new(experts)) })
}

/// Layer `l`'s expert `e`.
pub fn load_expert<S: Storage>(
    loader: &Loader<'_, S>,
    config: &Config,
    plan: &MoePlan,
    l: usize,
    e: usize,
) -> Result<Expert<S>, LoadError> {
    let (hidden, &MoePlan { intermediate, experts, .. }) = (config.hidden, plan);
    if !loader.has(&fused(l, "gate_up_proj")) {
        let prefix = format!("model.layers.{l}.{}.experts.{e}", config.names.moe);
        return Expert::load(loader, &prefix, config.names.expert, [intermediate, hidden], Role::Expert);
    }
    // Of each expert, w1 above w3.
    let both = loader
        .tensor(&fused(l, "gate_up_proj"), &[experts, 2 * intermediate, hidden])?
        .rows(0..experts, &[experts * 2 * intermediate, hidden]);
    let down = loader.tensor(&fused(l, "down_proj"), &[experts, hidden, intermediate])?;
    let half = |number: usize| {
        let rows = number * intermediate..(number + 1) * intermediate;
        loader.hold(both.rows(rows, &[intermediate, hidden]), Role::Expert)
    };
    Ok(Expert {
        w1: half(2 * e),
        w2: loader.hold(down.rows(e..e + 1, &[hidden, intermediate]), Role::Expert),
        w3: half(2 * e + 1),
    })
}

/// The name of a tensor for all experts of layer `l`; the same in every family.
fn fused(l: usize, name: &str) -> String {
    format!("model.layers.{l}.mlp.experts.{name}")
}
