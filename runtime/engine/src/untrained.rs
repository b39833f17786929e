//! Models that nobody has trained, for benchmarks: what a config.json alone tells of a model, and random weights for it.

use crate::inspect::inspection;
use crate::load_error::LoadError;
use crate::model;
use crate::model::config::Config;
use crate::traffic::{Step, StepBytes, of_step};
use crate::weights::tally::Tally;
use crate::weights::untrained::Untrained;
pub use crate::weights::untrained::write::write;
use coterie_api::launch::{Device, Inspection, Quantization};
use std::path::Path;

/// A model of which only config.json is there.
#[derive(Debug)]
pub struct Outline {
    config: Config,
    tally: Tally,
    /// What serving it takes.
    pub inspection: Inspection,
}

impl Outline {
    /// Reads `dir/config.json`.
    pub fn read(dir: &Path) -> Result<Outline, LoadError> {
        let config = Config::read(dir)?;
        let tally = model::weigh(&Untrained::new(dir)?, &config)?;
        let inspection = inspection(dir, &config, &tally, None)?;
        Ok(Outline { config, tally, inspection })
    }

    /// What a step reads at least.
    pub fn bytes_of(&self, quantization: Quantization, device: Device, step: Step) -> StepBytes {
        of_step(&self.config, &self.tally, quantization, device, step)
    }
}
