//! Writes one safetensors file front to back: the header from the plan, then each tensor as it is made.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, json};

/// A safetensors file under way.
pub struct Shard {
    path: PathBuf,
    file: BufWriter<File>,
    /// Tensors not yet written: name and number of values.
    pending: VecDeque<(String, usize)>,
    bytes: u64,
}

impl Shard {
    /// Starts the file. `tensors` are names and shapes of bf16 tensors in the order in which they will be appended.
    pub fn create<'a>(path: &Path, tensors: impl Iterator<Item = (&'a str, &'a [usize])>) -> Result<Self> {
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut pending = VecDeque::new();
        let mut end = 0;
        for (name, shape) in tensors {
            let (start, values) = (end, shape.iter().product::<usize>());
            end += values * 2;
            header
                .insert(name.into(), json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}));
            pending.push_back((name.to_owned(), values));
        }
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let mut shard =
            Shard { path: path.to_owned(), file: BufWriter::with_capacity(1 << 20, file), pending, bytes: 0 };
        shard.put(&(header.len() as u64).to_le_bytes())?;
        shard.put(&header)?;
        Ok(shard)
    }

    /// Appends the next tensor of the plan, as bf16 bits.
    pub fn append(&mut self, name: &str, values: &[u16]) -> Result<()> {
        let expected = self.pending.pop_front();
        ensure!(
            expected.as_ref().is_some_and(|(next, count)| next == name && *count == values.len()),
            "{}: got {} values of {name}, expected {expected:?}",
            self.path.display(),
            values.len()
        );
        if cfg!(target_endian = "little") {
            self.put(bytemuck::cast_slice(values))
        } else {
            values.iter().try_for_each(|value| self.put(&value.to_le_bytes()))
        }
    }

    /// Flushes a file whose tensors are all there; its size in bytes.
    pub fn finish(mut self) -> Result<u64> {
        ensure!(
            self.pending.is_empty(),
            "{}: {} tensors are missing",
            self.path.display(),
            self.pending.len()
        );
        self.file.flush().with_context(|| format!("writing {}", self.path.display()))?;
        Ok(self.bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).with_context(|| format!("writing {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn writes_an_aligned_header_and_tensors_in_order() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("one.safetensors");
        let plan: [(&str, &[usize]); 2] = [("a", &[2, 2]), ("b", &[1])];
        let mut shard = Shard::create(&path, plan.into_iter()).expect("created");
        assert!(shard.append("b", &[1]).is_err(), "out of order");
        let mut shard = Shard::create(&path, plan.into_iter()).expect("created");
        shard.append("a", &[1, 2, 3, 4]).expect("appended");
        shard.append("b", &[0x0506]).expect("appended");
        let size = shard.finish().expect("finished");
        let file = fs::read(&path).expect("read");
        assert_eq!(file.len() as u64, size);
        let length = u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize;
        assert_eq!(length % 8, 0);
        let header: serde_json::Value = serde_json::from_slice(&file[8..8 + length]).expect("a JSON header");
        assert_eq!(header["b"], json!({"dtype": "BF16", "shape": [1], "data_offsets": [8, 10]}));
        assert_eq!(file[8 + length..], [1, 0, 2, 0, 3, 0, 4, 0, 6, 5]);
    }

    #[test]
    fn a_missing_tensor_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let plan: [(&str, &[usize]); 1] = [("a", &[1])];
        let shard = Shard::create(&folder.path().join("x"), plan.into_iter()).expect("created");
        assert!(shard.finish().is_err());
    }
}
