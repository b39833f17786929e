//! What one step must move through memory at least: the bound of decoding, whatever computes it.

use crate::model;
use crate::model::config::Config;
use crate::weights::tally::Tally;
use coterie_api::launch::{Device, Quantization};

/// Bytes that a step reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepBytes {
    /// Of weights.
    pub weights: f64,
    /// Of keys, values and states that earlier tokens left.
    pub cache: f64,
}

/// How a step looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Rows of it.
    pub rows: usize,
    /// Sequences that they are of.
    pub sequences: usize,
    /// Tokens before each sequence's rows.
    pub context: usize,
}

/// What is read in a step of the model that `config` describes, of which `tally` counted the weights. Experts are taken to be
/// chosen evenly and independently: of E, k a row, rows choose E · (1 - (1 - k / E)^rows).
pub fn of_step(
    config: &Config,
    tally: &Tally,
    quantization: Quantization,
    device: Device,
    step: Step,
) -> StepBytes {
    let [all, experts] = tally.held(quantization).map(|bytes| bytes as f64);
    // Of an embedding that is not the head as well, only the rows of tokens are read.
    let embedding = match config.tied_embeddings {
        true => 0.0,
        false => (config.vocabulary * config.hidden * size_of::<half::bf16>()) as f64,
    };
    let [count, per_token] = config.experts().map(|number| number.max(1) as f64);
    let chosen = 1.0 - (1.0 - per_token / count).powi(step.rows as i32);
    // Caches are f32 on CPUs, bf16 on GPUs; states are f32 on both.
    let of_token = model::state_bytes_per_token(config) as f64;
    let of_token = if device == Device::Gpu { of_token / 2.0 } else { of_token };
    let of_sequence = step.context as f64 * of_token + model::running_state_bytes(config) as f64;
    StepBytes {
        weights: all - experts - embedding + experts * chosen,
        cache: step.sequences as f64 * of_sequence,
    }
}
