//! The files by which the operator tells a rank where experts and ranks are.

use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of the map or the peers at most: Kubernetes takes no larger ConfigMap than 1 MiB.
const FILE: u64 = 16 << 20;

/// A JSON file that is looked at again and again.
pub struct Watched {
    path: PathBuf,
    /// As it was when it was last looked at.
    bytes: Vec<u8>,
}

impl Watched {
    /// The file at `path`, not looked at yet.
    pub fn new(path: &Path) -> Watched {
        Watched { path: path.to_owned(), bytes: Vec::new() }
    }

    /// What the file says, if it is another file than the last time. Contents are compared, not times: Kubernetes
    /// swaps symbolic links.
    pub fn changed<T: DeserializeOwned>(&mut self) -> Result<Option<T>, String> {
        let bytes = read_bounded(&self.path, FILE)?;
        if bytes == self.bytes {
            return Ok(None);
        }
        let value = parse(&self.path, &bytes)?;
        self.bytes = bytes;
        Ok(Some(value))
    }
}

/// What the JSON file at `path` says.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    parse(path, &read_bounded(path, FILE)?)
}

/// A file of no more than `limit` bytes.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
        Ok(_) if bytes.len() as u64 > limit => Err(format!("{} has more than {limit} bytes", path.display())),
        Ok(_) => Ok(bytes),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{} is of no use: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use coterie_api::peers::Peers;

    #[test]
    fn a_file_is_news_once_and_a_bad_one_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.json");
        std::fs::write(&path, r#"{"peers":[]}"#).unwrap();
        let mut file = Watched::new(&path);
        assert_eq!(file.changed(), Ok(Some(Peers::default())));
        assert_eq!(file.changed::<Peers>(), Ok(None));
        std::fs::write(&path, r#"{"peers":[{"rank":1,"address":"a:1"}]}"#).unwrap();
        assert!(file.changed::<Peers>().unwrap().is_some());
        assert_eq!(file.changed::<Peers>(), Ok(None));
        std::fs::write(&path, "{").unwrap();
        assert!(file.changed::<Peers>().unwrap_err().contains("peers.json is of no use"));
        std::fs::remove_file(&path).unwrap();
        assert!(file.changed::<Peers>().unwrap_err().contains("cannot be read"));
        assert!(read_bounded(dir.path(), 9).is_err());
    }

    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        assert!(read_bounded(Path::new("/dev/zero"), 1000).unwrap_err().contains("more than 1000 bytes"));
    }
}
