//! Random weights instead of a checkpoint, for benchmarks: what config.json describes is there, under whatever name.

pub mod write;

use crate::load_error::LoadError;
use crate::weights::Tensors;
use crate::weights::shard::{Made, Shard, TensorView};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Tensors of random values, whose names were never written down anywhere. All are bf16, and none is packed or fused.
#[derive(Debug)]
pub struct Untrained {
    nothing: Arc<Shard>,
    asked: Mutex<BTreeMap<String, Vec<usize>>>,
}

impl Untrained {
    /// For the model of the folder `dir`, of which only config.json is looked at.
    pub fn new(dir: &Path) -> Result<Untrained, LoadError> {
        Ok(Untrained { nothing: Arc::new(Shard::none(dir.join("config.json"))?), asked: Mutex::default() })
    }

    /// The shape of every tensor that was asked for, by name.
    pub fn asked(&self) -> BTreeMap<String, Vec<usize>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// FNV-1a (Fowler, Noll and Vo), 64 bits: another seed for each name.
fn seed(name: &str) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}

/// How values are made so that what flows through a model keeps its size: a matrix's have a variance of 1 / inputs, a norm's
/// of 1. Biases are small: one that is large would send every token to the same experts.
fn made(name: &str, shape: &[usize]) -> Made {
    let deviation = match shape {
        [.., inputs] if shape.len() > 1 => 1.0 / (*inputs as f32).sqrt(),
        _ if name.contains("norm") => 1.0,
        _ => 0.01,
    };
    // Of values spread evenly over ±a the variance is a² / 3.
    Made { seed: seed(name), scale: deviation * 3f32.sqrt() / (1 << 23) as f32 }
}

impl Tensors for Untrained {
    /// Of what a checkpoint may have or not, this has nothing.
    fn has(&self, _: &str) -> bool {
        false
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView, LoadError> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.insert(name.to_owned(), shape.to_vec());
        Ok(TensorView::made(&self.nothing, name, shape, made(name, shape)))
    }

    fn packed(&self, name: &str, _: &[usize]) -> Result<TensorView, LoadError> {
        Err(LoadError::MissingTensor { path: self.nothing.path().to_owned(), tensor: name.to_owned() })
    }

    fn bytes(&self) -> usize {
        0
    }
}
