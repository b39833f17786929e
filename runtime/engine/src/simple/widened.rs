//! Weights in f32.

use crate::load_error::LoadError;
use crate::weights::written::Written;
use crate::weights::{Role, Storage};
use coterie_api::launch::Quantization;

/// Holds every matrix as its rows one behind the other, each value widened exactly.
pub struct Widened;

impl Storage for Widened {
    type Matrix = Vec<f32>;
    type Vector = Vec<f32>;

    fn matrix(&self, written: Written, _: Role, _: Quantization) -> Result<Vec<f32>, LoadError> {
        Ok(written.to_f32())
    }

    fn vector(&self, written: Written, _: Role) -> Result<Vec<f32>, LoadError> {
        Ok(written.to_f32())
    }
}
