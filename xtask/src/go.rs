//! The embedded cluster's programs, built from Go modules that `e2e/cluster/*/go.mod` and `go.sum` pin by hash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use ring::digest;

use crate::step::Step;
use crate::{cache, cmd};

/// Where each built program is.
pub struct Binaries {
    /// etcd
    pub etcd: PathBuf,
    /// kube-apiserver
    pub kube_apiserver: PathBuf,
    /// kube-controller-manager
    pub kube_controllers: PathBuf,
    /// kube-scheduler
    pub kube_scheduler: PathBuf,
    /// kube-proxy
    pub kube_proxy: PathBuf,
    /// kubelet
    pub kubelet: PathBuf,
    /// kubectl
    pub kubectl: PathBuf,
    /// containerd; `containerd-shim-runc-v2` lies beside it and must be in containerd's PATH
    pub containerd: PathBuf,
    /// ctr, containerd's own client
    pub ctr: PathBuf,
    /// helm
    pub helm: PathBuf,
    /// CoreDNS, static: it runs as a pod
    pub coredns: PathBuf,
    /// The Kubernetes version all of them were built from, with its `v`.
    pub kubernetes_version: String,
}

/// Builds what is missing and returns where everything is. Needs Go only when something is missing.
pub fn binaries() -> Result<Binaries> {
    let etcd = built("etcd")?;
    let containerd = built("containerd")?;
    let kubernetes = built("kubernetes")?;
    let helm = built("helm")?;
    let coredns = built("coredns")?;
    Ok(Binaries {
        etcd: etcd.folder.join("etcd"),
        kube_apiserver: kubernetes.folder.join("kube-apiserver"),
        kube_controllers: kubernetes.folder.join("kube-controller-manager"),
        kube_scheduler: kubernetes.folder.join("kube-scheduler"),
        kube_proxy: kubernetes.folder.join("kube-proxy"),
        kubelet: kubernetes.folder.join("kubelet"),
        kubectl: kubernetes.folder.join("kubectl"),
        containerd: containerd.folder.join("containerd"),
        ctr: containerd.folder.join("ctr"),
        helm: helm.folder.join("helm"),
        coredns: coredns.folder.join("coredns"),
        kubernetes_version: kubernetes.version("k8s.io/kubernetes")?,
    })
}

/// One Go module of `e2e/cluster`: its pins, and the cache folder its programs are built into.
struct Module {
    source: PathBuf,
    go_mod: String,
    folder: PathBuf,
}

impl Module {
    fn open(name: &str) -> Result<Module> {
        let source = cache::checkout().join("e2e/cluster").join(name);
        let read = |file: &str| {
            let path = source.join(file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let go_mod = read("go.mod")?;
        let key = pin_key(&go_mod, &read("go.sum")?);
        let folder = cache::folder(format!("go/{name}-{key}"))?;
        Ok(Module { source, go_mod, folder })
    }

    fn version(&self, module: &str) -> Result<String> {
        required_version(&self.go_mod, module)
            .with_context(|| format!("{}/go.mod does not require {module}", self.source.display()))
    }
}

fn built(name: &str) -> Result<Module> {
    let module = Module::open(name)?;
    let packages = tools(&module.go_mod);
    if packages.is_empty() {
        bail!("{}/go.mod has no `tool` line", module.source.display());
    }
    for package in packages {
        let binary = module.folder.join(binary_name(package));
        if !binary.is_file() {
            let step = Step::start(format!("go build {}", binary_name(package)));
            build(&module, package, &binary)?;
            step.done();
        }
    }
    Ok(module)
}

fn build(module: &Module, package: &str, binary: &Path) -> Result<()> {
    if !cmd::in_path("go") {
        bail!("`go` is not in PATH; install Go 1.25 or newer from https://go.dev/dl and run again");
    }
    // Built beside its place and renamed: an interrupted build leaves nothing that looks finished.
    let unfinished = binary.with_extension("unfinished");
    let mut command = Command::new("go");
    command
        .args([
            "build",
            "-mod=readonly",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            &linker_flags(module)?,
            "-o",
        ])
        .arg(&unfinished)
        .arg(package)
        .current_dir(&module.source)
        .env("CGO_ENABLED", "0")
        .env_remove("GOFLAGS");
    cmd::logged(&mut command, &binary.with_extension("build.log"))?;
    fs::rename(&unfinished, binary).with_context(|| format!("cannot place {}", binary.display()))
}

/// Kubernetes reports `v0.0.0-master+$Format` unless it is told its version, and charts that ask for one misbehave.
fn linker_flags(module: &Module) -> Result<String> {
    let Some(version) = required_version(&module.go_mod, "k8s.io/kubernetes") else {
        return Ok("-s -w".into());
    };
    let mut parts = version.trim_start_matches('v').split('.');
    let (Some(major), Some(minor)) = (parts.next(), parts.next()) else {
        bail!("k8s.io/kubernetes {version} in {}/go.mod is no version", module.source.display());
    };
    let component = "k8s.io/component-base/version";
    Ok(format!(
        "-s -w -X {component}.gitVersion={version} -X {component}.gitMajor={major} -X {component}.gitMinor={minor} \
         -X {component}.gitCommit=unknown -X {component}.gitTreeState=clean \
         -X k8s.io/client-go/pkg/version.gitVersion={version}"
    ))
}

/// The packages named by `tool` lines and `tool ( … )` blocks.
fn tools(go_mod: &str) -> Vec<&str> {
    let mut packages = Vec::new();
    let mut in_block = false;
    for line in go_mod.lines().map(str::trim) {
        match line {
            "tool (" => in_block = true,
            ")" => in_block = false,
            "" => {}
            _ if in_block => packages.push(line),
            _ => packages.extend(line.strip_prefix("tool ")),
        }
    }
    packages
}

/// Go names a program after its package's folder, without a major-version suffix; etcd's folder is `server`.
fn binary_name(package: &str) -> &str {
    match package {
        "go.etcd.io/etcd/server/v3" => "etcd",
        other => other.rsplit('/').next().unwrap_or(other),
    }
}

fn required_version(go_mod: &str, module: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let line = line.trim();
        let mut words = line.strip_prefix("require ").unwrap_or(line).split_whitespace();
        (words.next() == Some(module)).then(|| words.next().map(str::to_string)).flatten()
    })
}

fn pin_key(go_mod: &str, go_sum: &str) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(go_mod.as_bytes());
    hash.update(go_sum.as_bytes());
    hash.finish().as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO_MOD: &str = "module x\n\ngo 1.26.0\n\ntool go.etcd.io/etcd/server/v3\n\ntool (\n\tk8s.io/kubernetes/cmd/\
                          kubelet\n\thelm.sh/helm/v4/cmd/helm\n)\n\nrequire (\n\tk8s.io/kubernetes v1.35.4 // \
                          indirect\n)\n";

    #[test]
    fn tools_are_read_from_lines_and_blocks() {
        let names: Vec<_> = tools(GO_MOD).into_iter().map(binary_name).collect();
        assert_eq!(names, ["etcd", "kubelet", "helm"]);
    }

    #[test]
    fn the_pinned_version_is_found() {
        assert_eq!(required_version(GO_MOD, "k8s.io/kubernetes").as_deref(), Some("v1.35.4"));
        assert_eq!(required_version(GO_MOD, "k8s.io/api"), None);
    }

    #[test]
    fn the_key_changes_with_either_file() {
        let key = pin_key("a", "b");
        assert_eq!(key.len(), 12);
        assert_ne!(key, pin_key("a", "c"));
        assert_ne!(key, pin_key("b", "b"));
        assert_eq!(key, pin_key("ab", ""), "the key is the hash of the files one after the other");
    }
}
