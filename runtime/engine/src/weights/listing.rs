//! A checkpoint of which only the index is there: what it names, beside what a model needs.

use crate::load_error::LoadError;
use crate::weights::Tensors;
use crate::weights::fp8::{self, BlockScales};
use crate::weights::json::read_json;
use crate::weights::safetensors::Dtype;
use crate::weights::shard::{INDEX, Index, SINGLE, Shard, TensorView, shard_path};
use crate::weights::unique::Pairs;
use serde::Deserialize;
use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tensors that may be missing before nobody wants to know which: the index is of another model.
const MISSING_LIMIT: usize = 10_000;

/// The names of an index. A tensor that is asked for has the shape it is asked for with, and the number format that
/// config.json names: an index has neither.
#[derive(Debug)]
pub struct Listing {
    path: PathBuf,
    names: HashSet<String>,
    /// How many files hold them.
    pub files: usize,
    /// Bytes of all tensors, as the index has it.
    pub total_bytes: Option<u64>,
    dtype: Dtype,
    fp8_block: Option<[usize; 2]>,
    nothing: Arc<Shard>,
    asked: RefCell<HashSet<String>>,
    missing: RefCell<Vec<String>>,
}

/// How config.json calls the number format, in newer and in older files.
#[derive(Deserialize)]
struct Written {
    dtype: Option<String>,
    torch_dtype: Option<String>,
}

impl Listing {
    /// Reads the index in `dir`; none where there is no index, or any of the weights.
    pub fn read(dir: &Path) -> Result<Option<Listing>, LoadError> {
        let path = dir.join(INDEX);
        if !path.exists() || dir.join(SINGLE).exists() {
            return Ok(None);
        }
        let Index { weight_map: Pairs(pairs), metadata } = read_json(&path)?;
        let (mut names, mut files) = (HashSet::with_capacity(pairs.len()), HashSet::new());
        for (tensor, file) in pairs {
            if !files.contains(&file) {
                if shard_path(dir, &path, &file, &tensor)?.exists() {
                    return Ok(None);
                }
                files.insert(file);
            }
            if let Some(tensor) = names.replace(tensor) {
                return Err(LoadError::ListedTwice { path, tensor });
            }
        }
        Ok(Some(Listing {
            names,
            files: files.len(),
            total_bytes: metadata.get("total_size").and_then(|size| size.as_u64()),
            dtype: dtype(dir)?,
            fp8_block: fp8::block_size(dir)?,
            nothing: Arc::new(Shard::none(path.clone())?),
            asked: RefCell::default(),
            missing: RefCell::default(),
            path,
        }))
    }

    /// How many tensors it names.
    pub fn tensors(&self) -> usize {
        self.names.len()
    }

    /// Tensors that were asked for and are not named, in that order.
    pub fn missing(&self) -> Vec<String> {
        self.missing.borrow().clone()
    }

    /// Tensors that are named and were not asked for, by name.
    pub fn not_asked_for(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.difference(&self.asked.borrow()).cloned().collect();
        names.sort_unstable();
        names
    }

    fn ask(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<TensorView, LoadError> {
        if self.asked.borrow_mut().insert(name.to_owned()) && !self.has(name) {
            let mut missing = self.missing.borrow_mut();
            if missing.len() == MISSING_LIMIT {
                return Err(LoadError::MissingTensor { path: self.path.clone(), tensor: name.to_owned() });
            }
            missing.push(name.to_owned());
        }
        Ok(TensorView::unread(&self.nothing, name, dtype, shape))
    }
}

impl Tensors for Listing {
    fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView, LoadError> {
        let scales = format!("{name}_scale_inv");
        match (self.fp8_block, shape) {
            (Some(block), &[rows, columns]) if self.has(&scales) => {
                let blocks = [rows.div_ceil(block[0]), columns.div_ceil(block[1])];
                let scales = BlockScales::new(self.ask(&scales, Dtype::F32, &blocks)?, block, columns);
                Ok(self.ask(name, Dtype::Fp8, shape)?.scaled(scales))
            }
            _ => self.ask(name, self.dtype, shape),
        }
    }

    fn packed(&self, name: &str, shape: &[usize]) -> Result<TensorView, LoadError> {
        self.ask(name, Dtype::Other("U8", 8), shape)
    }

    fn bytes(&self) -> usize {
        0
    }
}

/// The number format of a checkpoint: bf16, unless config.json names another.
fn dtype(dir: &Path) -> Result<Dtype, LoadError> {
    let written: Written = read_json(&dir.join("config.json"))?;
    Ok(match written.dtype.or(written.torch_dtype).as_deref() {
        Some("float32") => Dtype::F32,
        Some("float16") => Dtype::F16,
        _ => Dtype::Bf16,
    })
}
