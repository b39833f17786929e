//! What the process holds, seen from outside.

use crate::client::exchange;
use crate::rank::Process;
use std::fmt;

/// One look at the process.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Resident memory, bytes.
    rss: f64,
    /// Open files and connections.
    pub files: usize,
    pub running: f64,
    pub waiting: f64,
    pub kv_usage: f64,
}

impl Sample {
    pub async fn take(process: &Process) -> Sample {
        let metrics = exchange(process.address, "GET", "/metrics", "").await.body;
        let metric = |name: &str| -> f64 {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is not in\n{metrics}")).parse().unwrap()
        };
        let proc = format!("/proc/{}", process.child.id());
        let status = std::fs::read_to_string(format!("{proc}/status")).expect("it runs");
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        Sample {
            rss: rss.unwrap().parse::<f64>().unwrap() * 1024.0,
            files: std::fs::read_dir(format!("{proc}/fd")).unwrap().count(),
            running: metric("coterie_requests_running"),
            waiting: metric("coterie_requests_waiting"),
            kv_usage: metric("coterie_kv_cache_usage_ratio"),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sample { rss, files, running, waiting, kv_usage } = self;
        write!(
            f,
            "{running} running, {waiting} waiting, KV usage {kv_usage}, {files} files, {:.1} MB",
            rss / 1e6
        )
    }
}

/// All looks, in order.
#[derive(Debug, Default)]
pub struct Samples(Vec<Sample>);

impl Samples {
    pub fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// Mean memory of the middle third and of the last, bytes.
    pub fn rss_by_thirds(&self) -> (f64, f64) {
        let third = self.0.len() / 3;
        let mean = |samples: &[Sample]| samples.iter().map(|s| s.rss).sum::<f64>() / samples.len() as f64;
        (mean(&self.0[third..2 * third]), mean(&self.0[2 * third..]))
    }

    pub fn most_running(&self) -> f64 {
        self.most(|sample| sample.running)
    }

    fn most(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        self.0.iter().map(of).fold(0.0, f64::max)
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (middle, last) = self.rss_by_thirds();
        let most = [self.most(|s| s.running), self.most(|s| s.waiting), self.most(|s| s.kv_usage)];
        writeln!(f, "at most: {} running, {} waiting, KV usage {:.3}", most[0], most[1], most[2])?;
        let files = self.0.iter().map(|s| s.files);
        writeln!(f, "open files: {} to {}", files.clone().min().unwrap_or(0), files.max().unwrap_or(0))?;
        let first = self.0.first().map_or(0.0, |s| s.rss);
        let mb = [first, middle, last, self.most(|s| s.rss)].map(|bytes| bytes / 1e6);
        write!(
            f,
            "memory: {:.1} MB at first, {:.1} in the middle third, {:.1} in the last, {:.1} at most",
            mb[0], mb[1], mb[2], mb[3]
        )
    }
}
