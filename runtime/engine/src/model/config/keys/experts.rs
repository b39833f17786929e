//! The keys of experts and their gates.

use super::{Keys, divides, float, number, width};
use crate::model::config::plan::{Activation, LayerPlan, Mixer, Mlp, MoePlan, Residual, SharedPlan};
use crate::model::config::rule::ConfigRule;
use coterie_kernels::gate::{Groups, Rule, Scores, Worth};
use std::collections::HashSet;

impl Keys {
    /// Experts of the given width with a gate that does nothing but choose.
    pub fn moe(&self, intermediate: usize, scores: Scores, renormalise: bool) -> Result<MoePlan, ConfigRule> {
        let experts = self.num_local_experts.or(self.num_experts).or(self.n_routed_experts);
        let experts = number("num_local_experts", experts, 1 << 14)?;
        let per_token = self.num_experts_per_tok.or(self.experts_per_token);
        let per_token = number("num_experts_per_tok", per_token, 1 << 14)?;
        if per_token > experts {
            return Err(ConfigRule::ExpertsPerToken { per_token, experts });
        }
        Ok(MoePlan {
            experts,
            intermediate,
            activation: Activation::Silu,
            biases: false,
            rule: Rule { per_token, scores, groups: None, renormalise, factor: 1.0 },
            correction: false,
            shared: None,
        })
    }

    /// Width of an expert where dense layers have another.
    pub fn expert_width(&self) -> Result<usize, ConfigRule> {
        width("moe_intermediate_size", self.moe_intermediate_size)
    }

    /// As many experts of the given width as every token uses, which are one; none where nothing is written.
    pub fn shared_experts(&self, width: usize) -> Result<Option<SharedPlan>, ConfigRule> {
        let Some(written) = self.n_shared_experts.filter(|count| *count > 0) else { return Ok(None) };
        let count = number("n_shared_experts", Some(written), 1 << 10)?;
        Ok(Some(SharedPlan { intermediate: count * width, gated: false }))
    }

    /// What every weight is multiplied with at last.
    pub fn routed_scaling_factor(&self, default: Option<f64>) -> Result<f32, ConfigRule> {
        let key = "routed_scaling_factor";
        let written = self.routed_scaling_factor.or(default).ok_or(ConfigRule::Missing { key })?;
        float(key, Some(written), written, f64::MIN_POSITIVE..f64::from(f32::MAX), "a positive number")
    }

    /// The groups of `experts` experts, `per_token` of which a token uses; none if it may use all of them.
    pub fn groups(
        &self,
        experts: usize,
        per_token: usize,
        worth: Worth,
    ) -> Result<Option<Groups>, ConfigRule> {
        let count = number("n_group", Some(self.n_group.unwrap_or(1)), experts as u64)?;
        let size = divides(("n_routed_experts", experts), ("n_group", count))?;
        let kept = number("topk_group", Some(self.topk_group.unwrap_or(1)), count as u64)?;
        if kept == count {
            return Ok(None);
        }
        if per_token > kept * size {
            return Err(ConfigRule::ExpertsPerToken { per_token, experts: kept * size });
        }
        if worth == Worth::TwoBest && size < 2 {
            return Err(ConfigRule::OutOfRange {
                key: "n_group",
                value: count as u64,
                limit: experts as u64 / 2,
            });
        }
        Ok(Some(Groups { count, kept, worth }))
    }

    /// Equal layers with experts, but for the first few, which are dense.
    pub fn layers_from_first_sparse(&self, mixer: Mixer, moe: MoePlan) -> Result<Vec<LayerPlan>, ConfigRule> {
        let dense = self.first_k_dense_replace.unwrap_or(0);
        self.layers_where(mixer, moe, |l| l >= dense)
    }

    /// Equal layers with experts, but for those between steps or on a list, which are dense.
    pub fn layers_by_sparse_step(&self, mixer: Mixer, moe: MoePlan) -> Result<Vec<LayerPlan>, ConfigRule> {
        let step =
            number("decoder_sparse_step", Some(self.decoder_sparse_step.unwrap_or(1)), u64::MAX)? as u64;
        let listed: HashSet<u64> = self.mlp_only_layers.iter().flatten().copied().collect();
        self.layers_where(mixer, moe, |l| (l + 1).is_multiple_of(step) && !listed.contains(&l))
    }

    fn layers_where(
        &self,
        mixer: Mixer,
        moe: MoePlan,
        sparse: impl Fn(u64) -> bool,
    ) -> Result<Vec<LayerPlan>, ConfigRule> {
        let mlp = |l| match sparse(l) {
            true => Ok(Mlp::Moe(moe.clone())),
            false => Ok(Mlp::Dense { intermediate: self.intermediate()? }),
        };
        let layer = |l| Ok(LayerPlan { mixer: mixer.clone(), mlp: mlp(l)?, residual: Residual::Plain });
        (0..self.layers()? as u64).map(layer).collect()
    }
}
