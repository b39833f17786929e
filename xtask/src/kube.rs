//! kubectl and helm, pointed at one cluster.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cache, cmd, go};

/// Namespace that the chart is installed into.
pub const SYSTEM: &str = "coterie-system";

/// A cluster as its user sees it.
pub struct Kube {
    kubectl: PathBuf,
    helm: PathBuf,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
}

impl Kube {
    /// A cluster by its kubeconfig; none leaves it to `KUBECONFIG` and the home folder.
    pub fn new(
        binaries: &go::Binaries,
        kubeconfig: impl Into<Option<PathBuf>>,
        context: Option<&str>,
    ) -> Kube {
        Kube {
            kubectl: binaries.kubectl.clone(),
            helm: binaries.helm.clone(),
            kubeconfig: kubeconfig.into(),
            context: context.map(str::to_owned),
        }
    }

    /// A context of the user's own kubeconfig; fails if there is none of that name.
    pub fn of_context(binaries: &go::Binaries, context: &str) -> Result<Kube> {
        let kube = Kube::new(binaries, None, Some(context));
        let known = kube.kubectl(&["config", "get-contexts", "-o", "name"])?;
        if !known.lines().any(|name| name == context) {
            bail!("the kubeconfig has no context {context:?}; it has: {}", known.replace('\n', " "));
        }
        Ok(kube)
    }

    /// Runs kubectl; its standard output.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        cmd::output(self.kubectl_command().args(args))
    }

    /// `kubectl apply` of a manifest's text.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let mut command = self.kubectl_command();
        command
            .args(["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start kubectl")?;
        child.stdin.take().context("kubectl has no input")?.write_all(manifest.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(())
    }

    /// Installs or upgrades `charts/coterie` and waits until the operator is ready. `images` are those of the chart's
    /// `images`, by its names; `values` go to `--set`.
    pub fn install_chart(&self, images: &[(&str, &str)], values: &[&str]) -> Result<()> {
        let mut helm = Command::new(&self.helm);
        self.point(&mut helm, "--kube-context");
        helm.args(["upgrade", "--install", "coterie"]).arg(chart());
        helm.args(["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "3m"]);
        for (which, image) in images {
            let (repository, tag) =
                image.rsplit_once(':').with_context(|| format!("image {image} has no tag"))?;
            helm.args([
                "--set-string",
                &format!("images.{which}.repository={repository},images.{which}.tag={tag}"),
            ]);
        }
        for value in values {
            helm.args(["--set", value]);
        }
        cmd::run(&mut helm)
    }

    /// `kubectl port-forward` from a free port of this machine, until the result is dropped.
    pub fn port_forward(&self, target: &str, port: u16) -> Result<PortForward> {
        let mut command = self.kubectl_command();
        command.args(["port-forward", "--address", "127.0.0.1", target, &format!(":{port}")]);
        let child = command.stdout(Stdio::piped()).spawn().context("cannot start kubectl")?;
        let mut forward = PortForward { child, _output: None, port: 0 };
        let mut output = BufReader::new(forward.child.stdout.take().context("kubectl has no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        forward._output = Some(output);
        // Forwarding from 127.0.0.1:43210 -> 8080
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
        forward.port = port
            .and_then(|p| p.parse().ok())
            .with_context(|| format!("kubectl port-forward said {line:?}"))?;
        Ok(forward)
    }

    fn kubectl_command(&self) -> Command {
        let mut kubectl = Command::new(&self.kubectl);
        self.point(&mut kubectl, "--context");
        kubectl
    }

    fn point(&self, command: &mut Command, context_flag: &str) {
        if let Some(path) = &self.kubeconfig {
            command.env("KUBECONFIG", path);
        }
        if let Some(context) = &self.context {
            command.args([context_flag, context]);
        }
    }
}

/// A running `kubectl port-forward`.
pub struct PortForward {
    child: Child,
    /// kubectl prints a line per connection, and dies of a closed pipe.
    _output: Option<BufReader<ChildStdout>>,
    /// The port on this machine.
    pub port: u16,
}

impl Drop for PortForward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The chart's folder.
pub fn chart() -> PathBuf {
    cache::checkout().join(Path::new("charts/coterie"))
}
