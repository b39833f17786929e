//! Pangu Ultra MoE: DeepSeek's form with a norm before and after each half of a layer.

use super::Shape;
use super::keys::{Keys, NoSizes};
use super::latent::{self, Differences};

pub(super) fn read(keys: &Keys) -> Result<Shape, NoSizes> {
    let gate_bias = keys.flag("router_enable_expert_bias")?;
    latent::read(keys, Differences { norms: 4, gate_bias })
}
