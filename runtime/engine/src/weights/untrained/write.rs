//! Random weights as files: a model folder to load, where none is at hand.

use super::{Untrained, made};
use crate::load_error::LoadError;
use crate::model;
use crate::model::config::Config;
use crate::weights::Tensors;
use crate::weights::shard::SINGLE;
use coterie_kernels::cpu::random;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Values that a thread makes at once.
const PIECE: usize = 1 << 20;

/// Writes `model.safetensors` with the random weights of the model that `dir/config.json` describes, on `threads` threads.
/// Gives its size, bytes.
pub fn write(dir: &Path, threads: usize) -> Result<usize, LoadError> {
    let untrained = Untrained::new(dir)?;
    model::weigh(&untrained as &dyn Tensors, &Config::read(dir)?)?;
    let tensors = untrained.asked();
    let mut at = 0;
    let mut listed = BTreeMap::new();
    for (name, shape) in &tensors {
        let end = at + 2 * shape.iter().product::<usize>();
        let entry = serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [at, end]});
        listed.insert(name, entry);
        at = end;
    }
    let path = dir.join(SINGLE);
    let failed = |source| LoadError::Write { path: path.clone(), source };
    let mut json = serde_json::to_vec(&listed).map_err(|error| failed(error.into()))?;
    // Values begin at a multiple of 8.
    json.resize(json.len().next_multiple_of(8), b' ');
    let header = [&(json.len() as u64).to_le_bytes()[..], &json].concat();
    // Under another name until it is whole.
    let part = dir.join("model.safetensors.part");
    let file = File::create(&part).map_err(failed)?;
    file.write_all_at(&header, 0).map_err(failed)?;
    file.set_len((header.len() + at) as u64).map_err(failed)?;

    let mut pieces = Vec::new();
    let mut begin = header.len();
    for (name, shape) in &tensors {
        let count: usize = shape.iter().product();
        pieces.extend((0..count).step_by(PIECE).map(|first| (name, shape, begin, first, count)));
        begin += 2 * count;
    }
    let (next, broken) = (AtomicUsize::new(0), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mut bytes = Vec::with_capacity(2 * PIECE);
                while let Some(&(name, shape, begin, first, count)) =
                    pieces.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let made = made(name, shape);
                    bytes.clear();
                    for number in first..count.min(first + PIECE) {
                        bytes.extend(random::value(made.seed, number as u64, made.scale).to_le_bytes());
                    }
                    if let Err(error) = file.write_all_at(&bytes, (begin + 2 * first) as u64) {
                        *broken.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                        return;
                    }
                }
            });
        }
    });
    if let Some(error) = broken.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(failed(error));
    }
    std::fs::rename(&part, &path).map_err(failed)?;
    Ok(header.len() + at)
}
