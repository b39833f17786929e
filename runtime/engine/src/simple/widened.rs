//! Weights in f32.

use crate::weights::quantize::to_f32;
use crate::weights::shard::TensorView;
use crate::weights::{Role, Storage};
use coterie_api::launch::Quantization;

/// Holds every matrix as its rows one behind the other, each value widened exactly.
pub struct Widened;

impl Storage for Widened {
    type Matrix = Vec<f32>;
    type Vector = Vec<f32>;

    fn matrix(&self, view: TensorView, _: Role, _: Quantization) -> Vec<f32> {
        to_f32(&view)
    }

    fn vector(&self, view: TensorView) -> Vec<f32> {
        to_f32(&view)
    }
}
