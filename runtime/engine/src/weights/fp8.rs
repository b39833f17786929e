//! Fp8 checkpoints as DeepSeek-V3 has them: matrices of e4m3 codes, each with a matrix of scales, one for every block
//! of `weight_block_size` values. What config.json says about activations is of no account: they are never fp8 here.

use crate::load_error::LoadError;
use crate::model::config::ConfigRule;
use crate::weights::json::read_json;
use crate::weights::quantize::to_f32;
use crate::weights::shard::TensorView;
use coterie_kernels::cpu::fp8::{self, Fp8View};
use coterie_kernels::cpu::pool::Pool;
use half::bf16;
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;

/// No block is larger than the largest matrix.
const LARGEST_BLOCK: u64 = 1 << 20;

#[derive(Deserialize)]
struct Written {
    quantization_config: Option<QuantizationConfig>,
}

#[derive(Deserialize)]
struct QuantizationConfig {
    weight_block_size: Option<[u64; 2]>,
}

/// Rows and columns of a block, as `dir/config.json` has them.
pub(super) fn block_size(dir: &Path) -> Result<Option<[usize; 2]>, LoadError> {
    let path = dir.join("config.json");
    let written: Written = read_json(&path)?;
    let Some(sizes) = written.quantization_config.and_then(|config| config.weight_block_size) else {
        return Ok(None);
    };
    if let Some(&value) = sizes.iter().find(|size| !(1..=LARGEST_BLOCK).contains(size)) {
        let rule = ConfigRule::OutOfRange { key: "weight_block_size", value, limit: LARGEST_BLOCK };
        return Err(LoadError::Config { path, rule });
    }
    Ok(Some(sizes.map(|size| size as usize)))
}

/// The scales of a matrix, and which of its rows are meant. They are read when they are needed: who only looks at
/// headers reads none.
#[derive(Clone, Debug)]
pub(super) struct BlockScales {
    /// `[ceil(rows / block rows), ceil(columns / block columns)]` of the whole matrix.
    view: Arc<TensorView>,
    block: [usize; 2],
    columns: usize,
    first_row: usize,
}

/// The scales of rows that begin where a block begins.
pub(crate) struct Fp8Blocks {
    /// Rows and columns of a block.
    pub(crate) size: [usize; 2],
    /// `[ceil(rows / block rows), ceil(columns / block columns)]`
    pub(crate) scales: Vec<f32>,
}

impl BlockScales {
    /// Of all rows.
    pub(super) fn new(view: TensorView, block: [usize; 2], columns: usize) -> Self {
        BlockScales { view: Arc::new(view), block, columns, first_row: 0 }
    }

    /// Of these rows from `row` on.
    pub(super) fn behind(self, row: usize) -> Self {
        BlockScales { first_row: self.first_row + row, ..self }
    }

    /// The scales of these rows, `rows` of them, if they begin where a block begins.
    pub(super) fn blocks(&self, rows: usize) -> Option<Fp8Blocks> {
        let BlockScales { ref view, block: size, first_row, .. } = *self;
        let row = view.shape()[1];
        let first = first_row / size[0] * row;
        let scales = || to_f32(view)[first..first + rows.div_ceil(size[0]) * row].to_vec();
        first_row.is_multiple_of(size[0]).then(|| Fp8Blocks { size, scales: scales() })
    }

    /// The values of these rows, whose codes are given.
    pub(super) fn to_bf16(&self, pool: &Pool, codes: &[u8]) -> Vec<bf16> {
        let BlockScales { ref view, block, columns, first_row } = *self;
        fp8::to_bf16(pool, Fp8View { codes, columns, scales: &to_f32(view), block, first_row })
    }
}
