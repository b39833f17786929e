//! The embedded cluster: a real Kubernetes on this machine, in a network of its own. Nothing of the host is changed,
//! and several clusters run beside each other.

mod certificate;
mod cgroup;
pub mod cli;
mod control_plane;
mod daemon;
mod dns;
pub mod forward;
mod kept;
mod kubeconfig;
mod namespace;
mod network;
mod node;
mod place;
mod process;
mod proxy;
mod teardown;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::go::{self, Binaries};
use crate::image::{self, Image};
use crate::step::{self, Step, step};
use crate::{apt, cmd};
use node::node_name;
use place::Place;
use process::Process;

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Clusters of different names run beside each other.
    pub name: String,
    /// Nodes, each with its own containerd and kubelet. 0: the control plane alone, which runs no pods.
    pub nodes: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { name: "default".into(), nodes: 2 }
    }
}

/// A running cluster. Dropping it does not end it: see [`Cluster::down`].
pub struct Cluster {
    place: Place,
    nodes: usize,
    binaries: Binaries,
}

/// Starts a cluster and waits until it is ready: all nodes, and DNS. One that runs already is left as it is; what is
/// left of one that crashed is cleaned up first.
pub fn up(options: &Options) -> Result<Cluster> {
    let started = Instant::now();
    let place = Place::open(&options.name)?;
    if !apt::is_root() {
        bail!("the embedded cluster makes namespaces and cgroups, which needs root; run again as root");
    }
    let cni = apt::ensure_node_programs()?;
    let binaries = go::binaries()?;
    let _lock = place.lock()?;
    if let Some(nodes) = running_nodes(&place, &binaries) {
        let name = &options.name;
        if nodes != options.nodes {
            bail!(
                "the cluster `{name}` runs with {nodes} nodes; `cargo xtask cluster down --name {name}` ends it"
            );
        }
        eprintln!("  the cluster `{name}` is already running");
        return Ok(Cluster { place, nodes, binaries });
    }
    let cluster = Cluster { place, nodes: options.nodes, binaries };
    if teardown::is_needed(&cluster.place)? {
        step("clean up after a cluster that did not end by itself", || {
            teardown::run(&cluster.place, &cluster.binaries)
        })?;
    }
    cluster.start(&cni)?;
    let (name, elapsed) = (&options.name, step::seconds(started.elapsed()));
    eprintln!("  the cluster `{name}` is ready after {elapsed}; logs are in {}", cluster.logs().display());
    Ok(cluster)
}

/// The cluster of that name, if it runs.
pub fn running(name: &str) -> Result<Option<Cluster>> {
    let place = Place::open(name)?;
    if !place.run.exists() {
        return Ok(None);
    }
    let binaries = go::binaries()?;
    Ok(running_nodes(&place, &binaries).map(|nodes| Cluster { place, nodes, binaries }))
}

/// Ends the cluster of that name, in whatever state it is. There being none is fine.
pub fn down(name: &str) -> Result<()> {
    let place = Place::open(name)?;
    let _lock = end(&place)?;
    Ok(())
}

/// Ends the cluster of that name and removes what it keeps. Gives how much that was, bytes.
pub fn purge(name: &str) -> Result<u64> {
    let place = Place::open(name)?;
    let _lock = end(&place)?;
    let bytes = kept::size(&place.keep)?;
    step(format!("remove {}", place.keep.display()), || teardown::purge(&place))?;
    Ok(bytes)
}

/// The lock under which it was ended.
fn end(place: &Place) -> Result<File> {
    let name = &place.name;
    if !apt::is_root() {
        bail!("ending the embedded cluster needs root, as starting it did; run again as root");
    }
    let lock = place.lock()?;
    if !teardown::is_needed(place)? {
        Step::start(format!("end the cluster `{name}`")).note("it was not running");
        return Ok(lock);
    }
    let binaries = go::binaries()?;
    let step = Step::start(format!("end the cluster `{name}`"));
    teardown::run(place, &binaries)?;
    step.done();
    Ok(lock)
}

/// How many nodes the cluster runs with; `None` if it does not run: its start was not completed, a daemon has ended,
/// or the API server is not ready.
fn running_nodes(place: &Place, binaries: &Binaries) -> Option<usize> {
    let nodes = fs::read_to_string(place.run.join("nodes")).ok()?.trim().parse().ok()?;
    let healthy = daemon::check_alive(place).is_ok() && control_plane::is_ready(place, binaries);
    healthy.then_some(nodes)
}

impl Cluster {
    /// The administrator's kubeconfig; it leads to a port on 127.0.0.1.
    pub fn kubeconfig(&self) -> PathBuf {
        self.place.kubeconfig()
    }

    /// The folder of all daemons' logs, and of `audit.log`: the API requests of everything but Kubernetes itself.
    pub fn logs(&self) -> PathBuf {
        self.place.keep.join("log")
    }

    /// `NODE=PID` of each node's kubelet, with commas between: what a test needs to make a node fail.
    pub fn kubelets(&self) -> Result<String> {
        let kubelet = |node| {
            let process = Process::recorded(&self.place.pid_file(&format!("kubelet-{node}")));
            let process = process.with_context(|| format!("{} has no running kubelet", node_name(node)))?;
            Ok(format!("{}={}", node_name(node), process.pid))
        };
        Ok((0..self.nodes).map(kubelet).collect::<Result<Vec<_>>>()?.join(","))
    }

    /// The built kubectl.
    pub fn kubectl_path(&self) -> &Path {
        &self.binaries.kubectl
    }

    /// The built helm.
    pub fn helm_path(&self) -> &Path {
        &self.binaries.helm
    }

    /// Runs kubectl on the cluster and returns what it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        cmd::output(Command::new(self.kubectl_path()).args(args).env("KUBECONFIG", self.kubeconfig()))
    }

    /// A folder with `kubectl` and `helm` alone, for a PATH.
    pub fn programs(&self) -> Result<PathBuf> {
        let folder = self.place.keep.join("bin");
        fs::create_dir_all(&folder)?;
        for (name, target) in [("kubectl", self.kubectl_path()), ("helm", self.helm_path())] {
            let link = folder.join(name);
            if fs::read_link(&link).ok().as_deref() != Some(target) {
                let _ = fs::remove_file(&link);
                symlink(target, &link).with_context(|| format!("cannot make {}", link.display()))?;
            }
        }
        Ok(folder)
    }

    /// Loads images into every node; a node that has the very image already is left alone.
    pub fn import(&self, images: &[&Image]) -> Result<()> {
        images.iter().try_for_each(|image| self.import_tar(&image.tar))
    }

    /// Loads an OCI layout tar into every node; one that has the very images it names already is left alone.
    pub fn import_tar(&self, tar: &Path) -> Result<()> {
        let images = image::references(tar)?;
        let what = images.first().map_or_else(|| tar.display().to_string(), |image| image.name.clone());
        let step = Step::start(format!("load {what} into {} nodes", self.nodes));
        let loaded =
            self.on_every_node(|node| node::import(&self.place, &self.binaries, node, tar, &images))?;
        if loaded.contains(&true) {
            step.done()
        } else {
            step.cached()
        }
        Ok(())
    }

    /// Makes a command run inside the cluster's network, where pods and Services have their addresses. The host's
    /// network is out of its reach, so its KUBECONFIG is set to one that works there.
    pub fn enter(&self, command: &mut Command) -> Result<()> {
        let network = self.network()?;
        let fd = network.as_raw_fd();
        command.env("KUBECONFIG", self.place.run.join("admin"));
        let enter = move || namespace::enter(fd, libc::CLONE_NEWNET);
        // SAFETY: `enter` makes one system call. The descriptor is leaked below, so it is open whenever that happens.
        unsafe { command.pre_exec(enter) };
        std::mem::forget(network);
        Ok(())
    }

    fn network(&self) -> Result<File> {
        let api = Process::recorded(&self.place.pid_file("kube-apiserver")).filter(Process::lives);
        namespace::network_of(api.context("the API server has ended; start the cluster again")?.pid)
    }

    /// Opens a way from the host to an address inside the cluster: a pod, or a Service by its virtual IP. Returns the
    /// port on 127.0.0.1; it stays until the cluster ends.
    pub fn forward(&self, target: SocketAddr) -> Result<u16> {
        forward::start(&self.place, &self.network()?, forward::listen(None)?, target)
    }

    /// Fails if a part of the cluster has ended by itself, with the end of its log.
    pub fn check_alive(&self) -> Result<()> {
        daemon::check_alive(&self.place)
    }

    /// Ends the cluster: no process, mount, cgroup or namespace of it is left.
    pub fn down(self) -> Result<()> {
        down(&self.place.name)
    }

    fn start(&self, cni: &Path) -> Result<()> {
        let (place, binaries) = (&self.place, &self.binaries);
        let images = if self.nodes > 0 { vec![image::pause()?, dns::image(binaries)?] } else { Vec::new() };
        let network = step("network and certificates", || self.prepare())?;
        let api = Step::start("etcd and kube-apiserver");
        control_plane::start_api(place, &network, binaries)?;
        let port = fs::read_to_string(place.keep.join("port")).ok().and_then(|port| port.trim().parse().ok());
        let port = forward::start(
            place,
            &network,
            forward::listen(port)?,
            SocketAddr::from(control_plane::ADDRESS),
        )?;
        fs::write(place.keep.join("port"), port.to_string())?;
        kubeconfig::write(place, &place.kubeconfig(), "admin", &format!("https://127.0.0.1:{port}"))?;
        kubeconfig::write(place, &place.run.join("admin"), "admin", control_plane::INSIDE)?;
        // The nodes' images are loaded while the API server starts.
        thread::scope(|scope| {
            let nodes = scope
                .spawn(|| self.on_every_node(|node| self.start_containerd(&network, cni, node, &images)));
            control_plane::wait_ready(place, binaries)?;
            api.done();
            control_plane::start_controllers(place, &network, binaries)?;
            let Ok(started) = nodes.join() else { bail!("the thread that starts the nodes panicked") };
            started
        })?;
        if self.nodes > 0 {
            step(format!("{} nodes: containerd, kubelet, kube-proxy", self.nodes), || {
                self.start_nodes(&network)
            })?;
            step("CoreDNS", || dns::wait_ready(self))?;
        }
        fs::write(place.run.join("nodes"), self.nodes.to_string())?;
        Ok(())
    }

    fn prepare(&self) -> Result<File> {
        self.place.clear_logs()?;
        fs::create_dir_all(self.place.run.join("pid"))
            .with_context(|| format!("cannot make {}", self.place.run.display()))?;
        for node in 0..self.nodes {
            fs::create_dir_all(self.place.node_run(node))?;
            fs::create_dir_all(self.place.node_keep(node))?;
        }
        certificate::write_all(&self.place, self.nodes)?;
        network::create(self.nodes)
    }

    fn start_containerd(&self, network: &File, cni: &Path, node: usize, images: &[Image]) -> Result<()> {
        node::start_containerd(&self.place, network, &self.binaries, cni, node)?;
        for image in images {
            node::import(&self.place, &self.binaries, node, &image.tar, &image::references(&image.tar)?)?;
        }
        Ok(())
    }

    fn start_nodes(&self, network: &File) -> Result<()> {
        proxy::start(&self.place, network, &self.binaries)?;
        for node in 0..self.nodes {
            node::start_kubelet(&self.place, network, &self.binaries, node, self.nodes)?;
        }
        dns::apply(self)?;
        wait_until("every node to be Ready", Duration::from_secs(90), || {
            self.check_alive()?;
            let nodes: Value = serde_json::from_str(&self.kubectl(&["get", "nodes", "-o", "json"])?)?;
            Ok(ready_nodes(&nodes) == self.nodes)
        })
    }

    fn on_every_node<T: Send>(&self, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
        thread::scope(|scope| {
            let work = &work;
            let workers: Vec<_> = (0..self.nodes).map(|node| scope.spawn(move || work(node))).collect();
            let join = |worker: thread::ScopedJoinHandle<_>| match worker.join() {
                Ok(result) => result,
                Err(_) => bail!("a node's thread panicked"),
            };
            workers.into_iter().map(join).collect()
        })
    }
}

fn ready_nodes(nodes: &Value) -> usize {
    let items = nodes["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_ready = |node: &&Value| {
        let conditions = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    items.iter().filter(is_ready).count()
}

/// Asks again and again until it is so; an error ends the waiting.
fn wait_until(what: &str, limit: Duration, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !so()? {
        if Instant::now() > deadline {
            bail!("waited {} for {what}, in vain", step::seconds(limit));
        }
        thread::sleep(Duration::from_millis(150));
    }
    Ok(())
}
