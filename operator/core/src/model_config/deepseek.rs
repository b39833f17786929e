//! DeepSeek-V2, V3 and R1: latent attention, dense first layers, shared experts; V3 chooses experts with a bias.

use super::Shape;
use super::keys::{Keys, NoSizes};
use super::latent::{self, Differences};

pub(super) fn read_v3(keys: &Keys) -> Result<Shape, NoSizes> {
    latent::read(keys, Differences { norms: 2, gate_bias: true })
}

pub(super) fn read_v2(keys: &Keys) -> Result<Shape, NoSizes> {
    latent::read(keys, Differences { norms: 2, gate_bias: false })
}
