//! Small JSON files of a model folder.

use crate::load_error::LoadError;
use serde::de::DeserializeOwned;
use std::path::Path;

/// The largest real index (MiniMax-Text-01, 8243 tensors) has under 1 MiB.
const JSON_LIMIT: u64 = 64 << 20;

/// Reads a JSON file of bounded size.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, LoadError> {
    let metadata = std::fs::metadata(path).map_err(|e| LoadError::of_open(path, e))?;
    if !metadata.is_file() {
        return Err(LoadError::NotAFile { path: path.to_owned() });
    }
    if metadata.len() > JSON_LIMIT {
        return Err(LoadError::FileTooLarge {
            path: path.to_owned(),
            bytes: metadata.len(),
            limit: JSON_LIMIT,
        });
    }
    let bytes = std::fs::read(path).map_err(|e| LoadError::of_open(path, e))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| LoadError::Json { path: path.to_owned(), message: e.to_string() })
}
