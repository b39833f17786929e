//! The binary serving, seen from outside.

use crate::client::{Reply, exchange};
use crate::folder::{TerminationLog, coterie, whole};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::sleep;

pub struct Process {
    pub address: SocketAddr,
    pub child: Child,
    pub termination: TerminationLog,
    /// Of a model that was made for it.
    _folder: Option<TempDir>,
}

impl Process {
    /// Starts with a model of its own and waits until it is ready.
    pub async fn start(more: &[&str]) -> Process {
        let folder = whole();
        let mut process = Process::of(folder.path(), &[&["--threads", "1"], more].concat()).await;
        process._folder = Some(folder);
        process
    }

    /// Starts with the model folder `model` and waits until it is ready.
    pub async fn of(model: &Path, more: &[&str]) -> Process {
        let process = Process::spawn(model, more);
        for _ in 0..6000 {
            if exchange(process.address, "GET", "/ready", "").await.status == 200 {
                return process;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("never ready");
    }

    /// Starts with the model folder `model` and waits only until it listens.
    pub fn spawn(model: &Path, more: &[&str]) -> Process {
        let termination = TerminationLog::new();
        let mut child = coterie(&["serve", "--host", "127.0.0.1", "--port", "0", "--served-name", "tiny"])
            .args(["--log-format", "json", "--model"])
            .arg(model)
            .arg("--termination-log")
            .arg(termination.path())
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|line| address_in(&line)).expect("it says where it listens");
        std::thread::spawn(move || lines.for_each(drop));
        Process { address, child, termination, _folder: None }
    }

    pub async fn post(&self, path: &str, mut body: Value) -> Reply {
        body["model"] = "tiny".into();
        exchange(self.address, "POST", path, &body.to_string()).await
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    pub async fn ended(&mut self) -> ExitStatus {
        for _ in 0..1500 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("never ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn address_in(line: &str) -> Option<SocketAddr> {
    let entry: Value = serde_json::from_str(line).ok()?;
    entry["address"].as_str()?.parse().ok()
}
