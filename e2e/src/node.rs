//! A node that fails: its kubelet stops, and what ran on it is gone without a word.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::fs::{read_dir, read_to_string};
use std::process::Command;

/// A node whose kubelet does nothing; it goes on when this is dropped.
pub struct Stopped {
    kubelet: String,
}

impl Stopped {
    /// Stops the kubelet of the node `name`. `COTERIE_KUBELETS` says which process that is: `NODE=PID,…`.
    pub fn node(name: &str) -> Result<Self> {
        let known = std::env::var("COTERIE_KUBELETS")
            .context("COTERIE_KUBELETS is not set: run `cargo xtask test`")?;
        let pairs = known.split(',').filter_map(|pair| pair.split_once('='));
        let found = pairs.into_iter().find(|(node, _)| *node == name);
        let (_, kubelet) = found.with_context(|| format!("no kubelet of {name} in {known}"))?;
        signal("STOP", kubelet)?;
        Ok(Self { kubelet: kubelet.to_owned() })
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Err(error) = signal("CONT", &self.kubelet) {
            eprintln!("the kubelet does not go on: {error:#}");
        }
    }
}

/// Ends all processes of a pod at once. Nobody restarts them while its kubelet is stopped.
pub fn kill_processes_of(pod: &Pod) -> Result<()> {
    signal_processes_of("KILL", pod)
}

/// Stops all processes of a pod: it hangs, and its connections stay open.
pub fn hang_processes_of(pod: &Pod) -> Result<()> {
    signal_processes_of("STOP", pod)
}

fn signal_processes_of(name: &str, pod: &Pod) -> Result<()> {
    // As cgroups of pods are named.
    let mark = format!("pod{}", pod.uid().context("the pod has no uid")?);
    let mut found = 0;
    for entry in read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().into_string() else { continue };
        // A process that is gone meanwhile is none to end.
        let group = read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if pid.bytes().all(|byte| byte.is_ascii_digit()) && group.contains(&mark) {
            signal(name, &pid)?;
            found += 1;
        }
    }
    ensure!(found > 0, "no process of pod {} was found on this machine", pod.name_any());
    Ok(())
}

fn signal(name: &str, pid: &str) -> Result<()> {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status()?;
    ensure!(status.success(), "kill -{name} {pid}: {status}");
    Ok(())
}
