//! The part of the tar format that images need: ustar entries with fixed owner and time, sizes of any length.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail};

/// Tar pads everything to blocks of this many bytes.
pub const BLOCK: u64 = 512;

/// The first size that no longer fits the eleven octal digits of a header (8 GiB).
const OCTAL_LIMIT: u64 = 1 << 33;

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A regular file, whose bytes follow.
    File,
    /// A directory.
    Directory,
}

/// An entry's header: owner 0:0, time 0, so that equal content gives equal bytes.
///
/// `path` is relative, without a leading `/`.
pub fn header(path: &str, kind: Kind, mode: u32, size: u64) -> Result<[u8; BLOCK as usize]> {
    let mut block = [0; BLOCK as usize];
    let (prefix, name) = split_path(path)?;
    put(&mut block[0..100], name.as_bytes());
    put(&mut block[345..500], prefix.as_bytes());
    put(&mut block[100..108], format!("{mode:07o}").as_bytes());
    put(&mut block[108..116], b"0000000");
    put(&mut block[116..124], b"0000000");
    if size < OCTAL_LIMIT {
        put(&mut block[124..136], format!("{size:011o}").as_bytes());
    } else {
        // GNU's extension: a set top bit, then the number itself, big-endian.
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    put(&mut block[136..148], b"00000000000");
    block[156] = if kind == Kind::Directory { b'5' } else { b'0' };
    put(&mut block[257..265], b"ustar\x0000");
    put(&mut block[148..156], b"        ");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    put(&mut block[148..156], format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// Copies exactly `size` bytes and pads them to a whole block. A source that is shorter or longer is an error.
pub fn contents(out: &mut impl Write, mut source: impl Read, size: u64) -> Result<()> {
    let copied = std::io::copy(&mut (&mut source).take(size), out)?;
    if copied != size || source.read(&mut [0])? != 0 {
        bail!("it changed while it was read: {size} bytes were expected");
    }
    out.write_all(&[0; BLOCK as usize][..padding(size)])?;
    Ok(())
}

/// Zero bytes after `size` bytes of content.
pub fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK) - size) as usize
}

/// The two empty blocks that end a tar.
pub const END: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];

/// A header that was read: path and size. `None` for the empty block that ends a tar.
pub fn parse(block: &[u8; BLOCK as usize]) -> Result<Option<(String, u64)>> {
    if block.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    let text = |range: std::ops::Range<usize>| {
        let bytes = block[range].split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let size = if block[124] & 0x80 != 0 {
        block[128..136].iter().fold(0, |size, &byte| size << 8 | u64::from(byte))
    } else {
        u64::from_str_radix(text(124..136).trim(), 8).context("it is not a tar: an entry has no size")?
    };
    let (name, prefix) = (text(0..100), text(345..500));
    Ok(Some((if prefix.is_empty() { name } else { format!("{prefix}/{name}") }, size)))
}

/// A long path is stored as prefix and name, split at a `/`.
fn split_path(path: &str) -> Result<(&str, &str)> {
    if path.len() <= 100 {
        return Ok(("", path));
    }
    let split = path.char_indices().rfind(|&(at, c)| c == '/' && at <= 155 && path.len() - at - 1 <= 100);
    match split {
        Some((at, _)) => Ok((&path[..at], &path[at + 1..])),
        None => bail!("the path {path} is too long for an image"),
    }
}

fn put(field: &mut [u8], bytes: &[u8]) {
    field[..bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back() {
        for (path, size) in [("a/b", 0), ("model.safetensors", 5), ("huge", OCTAL_LIMIT + 7)] {
            let block = header(path, Kind::File, 0o644, size).unwrap();
            assert_eq!(parse(&block).unwrap(), Some((path.to_string(), size)));
        }
        assert_eq!(parse(&[0; 512]).unwrap(), None);
    }

    #[test]
    fn long_paths_are_split_or_refused() {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(90));
        assert_eq!(parse(&header(&long, Kind::File, 0, 1).unwrap()).unwrap(), Some((long, 1)));
        assert!(header(&"x".repeat(101), Kind::File, 0, 1).is_err());
    }

    #[test]
    fn a_file_that_shrinks_or_grows_is_an_error() {
        let mut out = Vec::new();
        assert!(contents(&mut out, &b"abc"[..], 4).is_err());
        assert!(contents(&mut out, &b"abc"[..], 2).is_err());
        out.clear();
        contents(&mut out, &b"abc"[..], 3).unwrap();
        assert_eq!(out.len(), 512);
    }

    #[test]
    fn the_systems_tar_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tar");
        let mut bytes = header("a", Kind::Directory, 0o755, 0).unwrap().to_vec();
        bytes.extend(header("a/hello", Kind::File, 0o640, 5).unwrap());
        contents(&mut bytes, &b"hello"[..], 5).unwrap();
        bytes.extend(END);
        std::fs::write(&path, bytes).unwrap();
        let listing = crate::cmd::output(std::process::Command::new("tar").arg("-tvf").arg(&path)).unwrap();
        assert!(listing.contains("drwxr-xr-x") && listing.contains("-rw-r-----"), "{listing}");
        assert!(listing.contains("1970-01-01") && listing.contains("a/hello"), "{listing}");
    }
}
