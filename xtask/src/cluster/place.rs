//! Where a cluster's files are: what is kept between runs, and what only a running cluster has.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ring::digest::{SHA256, digest};

use crate::cache;

/// The folders of one cluster.
#[derive(Clone)]
pub struct Place {
    /// The cluster's name: lower-case letters, digits and `-`.
    pub name: String,
    /// The name and a few digits of where it is kept: clusters of two caches never meet.
    pub id: String,
    /// In the cache: logs, certificates, kubeconfig, each node's image store.
    pub keep: PathBuf,
    /// Under /run: pid files and sockets. It exists exactly while the cluster, or a wreck of it, does.
    pub run: PathBuf,
}

impl Place {
    /// Checks the name and makes the folder that is kept.
    pub fn open(name: &str) -> Result<Place> {
        check_name(name)?;
        Place::at(name, cache::folder(format!("cluster/{name}"))?)
    }

    /// The cluster that is kept in a folder.
    pub fn at(name: &str, keep: PathBuf) -> Result<Place> {
        let hash = digest(&SHA256, keep.as_os_str().as_encoded_bytes());
        let [one, two, ..] = hash.as_ref() else { bail!("a hash has at least two bytes") };
        let id = format!("{name}-{one:02x}{two:02x}");
        Ok(Place { name: name.into(), run: Path::new("/run/coterie").join(&id), id, keep })
    }

    /// The log of a daemon.
    pub fn log(&self, daemon: &str) -> PathBuf {
        self.keep.join("log").join(format!("{daemon}.log"))
    }

    /// Forgets the logs of the last start.
    pub fn clear_logs(&self) -> Result<()> {
        let folder = self.keep.join("log");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))
    }

    /// The pid file of a daemon.
    pub fn pid_file(&self, daemon: &str) -> PathBuf {
        self.run.join("pid").join(daemon)
    }

    /// A certificate or key.
    pub fn pki(&self, file: &str) -> String {
        self.keep.join("pki").join(file).display().to_string()
    }

    /// The administrator's kubeconfig, for use from the host.
    pub fn kubeconfig(&self) -> PathBuf {
        self.keep.join("kubeconfig")
    }

    /// What a node keeps: its image store.
    pub fn node_keep(&self, node: usize) -> PathBuf {
        self.keep.join(format!("node-{node}"))
    }

    /// What a node has only while it runs: sockets, bundles.
    pub fn node_run(&self, node: usize) -> PathBuf {
        self.run.join(format!("node-{node}"))
    }

    /// The node folders that earlier starts left, with more nodes or fewer.
    pub fn kept_nodes(&self) -> Vec<usize> {
        let entries = fs::read_dir(&self.keep).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| name.strip_prefix("node-")?.parse().ok()).collect()
    }

    /// Waits until no other command starts or ends this cluster. The lock lasts as long as the file is open.
    pub fn lock(&self) -> Result<File> {
        let path = self.keep.join("lock");
        loop {
            fs::create_dir_all(&self.keep)?;
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            // SAFETY: the descriptor is open for the whole call.
            if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 {
                return Err(std::io::Error::last_os_error())
                    .with_context(|| format!("cannot lock {}", path.display()));
            }
            // Whoever held it may have removed the folder: then it is no lock any more.
            if fs::metadata(&path).is_ok_and(|now| file.metadata().is_ok_and(|ours| now.ino() == ours.ino()))
            {
                return Ok(file);
            }
        }
    }
}

// The name is part of cgroup names and of socket paths, which the kernel limits to 107 bytes.
fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 30 || !name.chars().all(allowed) || name.starts_with('-') {
        bail!("`{name}` cannot name a cluster; use at most 30 lower-case letters, digits and `-`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_whose_folder_was_removed_is_taken_anew() {
        let cache = tempfile::tempdir().unwrap();
        let place = Place::at("test", cache.path().join("test")).unwrap();
        let first = place.lock().unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| place.lock().unwrap());
            // Whether the second waits already or comes later, it must not hold a file that is gone.
            fs::remove_dir_all(&place.keep).unwrap();
            drop(first);
            let second = second.join().unwrap();
            assert_eq!(
                second.metadata().unwrap().ino(),
                fs::metadata(place.keep.join("lock")).unwrap().ino()
            );
        });
    }

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        for bad in ["", "..", "a/b", "-x", "Test", &"x".repeat(31)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        check_name("test-2").unwrap();
    }
}
