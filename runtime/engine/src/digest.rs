//! A name for the contents of a model folder that can be computed in about a second.

use crate::load_error::LoadError;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A file up to this size enters the digest whole.
const WHOLE: u64 = 32 << 20;
/// Of a larger one, this much of its beginning (a safetensors header fits) …
const BEGINNING: u64 = 4 << 20;
/// … and so many samples …
const SAMPLES: u64 = 64;
/// … of so many bytes, the first right behind the beginning, the last at the file's end.
const SAMPLE: u64 = 64 << 10;

/// The SHA-256 over the regular files that lie directly in `dir` (links followed, hidden names left
/// out), sorted by name: for each the name, its length, the size, and the contents: whole up to 32 MiB; of a larger
/// file the first 4 MiB and 64 samples of 64 KiB spread evenly up to its end.
///
/// So it tells other weights, an edited tokenizer and a truncated file apart; it does not find a few flipped bytes in
/// the middle of a large file.
pub fn digest(dir: &Path) -> Result<[u8; 32], LoadError> {
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for (name, path) in files(dir)? {
        let read = |source| LoadError::Read { path: path.clone(), source };
        let file = File::open(&path).map_err(read)?;
        let size = file.metadata().map_err(read)?.len();
        sha.update((name.len() as u64).to_le_bytes());
        sha.update(&name);
        sha.update(size.to_le_bytes());
        for (mut at, end) in ranges(size) {
            while at < end {
                let chunk = &mut buffer[..(end - at).min(1 << 20) as usize];
                file.read_exact_at(chunk, at).map_err(read)?;
                sha.update(&*chunk);
                at += chunk.len() as u64;
            }
        }
    }
    Ok(sha.finalize().into())
}

/// `sha256:` and the digest in hexadecimal.
pub fn text(digest: &[u8]) -> String {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn files(dir: &Path) -> Result<Vec<(Vec<u8>, PathBuf)>, LoadError> {
    let failed = |source| LoadError::Folder { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().into_encoded_bytes();
        // A link to nothing is no file.
        let regular = std::fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file());
        if regular && !name.starts_with(b".") {
            files.push((name, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

/// The byte ranges of a file of `size` bytes that enter the digest.
fn ranges(size: u64) -> Vec<(u64, u64)> {
    if size <= WHOLE {
        return vec![(0, size)];
    }
    let room = size - SAMPLE - BEGINNING;
    let sample = |i: u64| BEGINNING + (room as u128 * i as u128 / (SAMPLES as u128 - 1)) as u64;
    let samples = (0..SAMPLES).map(|i| (sample(i), sample(i) + SAMPLE));
    std::iter::once((0, BEGINNING)).chain(samples).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn names_sizes_and_contents_enter() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "one").unwrap();
        let first = digest(dir.path()).unwrap();
        let written = text(&first);
        assert!(written.starts_with("sha256:") && written.len() == 7 + 64, "{written}");
        fs::write(at(".hidden"), "x").unwrap();
        assert_eq!(digest(dir.path()).unwrap(), first);
        fs::write(at("a"), "two").unwrap();
        let second = digest(dir.path()).unwrap();
        assert_ne!(second, first);
        fs::rename(at("a"), at("b")).unwrap();
        assert_ne!(digest(dir.path()).unwrap(), second);
    }

    #[test]
    fn a_large_file_is_sampled_to_its_end() {
        assert_eq!(ranges(WHOLE), [(0, WHOLE)]);
        for size in [WHOLE + 1, 1_400_000_001, u64::MAX / 2] {
            let ranges = ranges(size);
            assert_eq!(ranges.len(), 65);
            assert_eq!((ranges[0], ranges[1].0, ranges[64].1), ((0, BEGINNING), BEGINNING, size));
            assert!(ranges.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        File::create(&path).unwrap().set_len(WHOLE + 100).unwrap();
        let first = digest(dir.path()).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[1], WHOLE + 99).unwrap();
        assert_ne!(digest(dir.path()).unwrap(), first);
    }
}
