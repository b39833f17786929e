//! etcd, the API server, the controllers and the scheduler.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::daemon::{self, Daemon, Mounts};
use super::network::{CONTROL_PLANE_IP, POD_CIDR, SERVICE_CIDR};
use super::place::Place;
use super::{kubeconfig, wait_until};
use crate::cmd;
use crate::go::Binaries;

/// Where the API server is for everything inside the cluster's network.
pub const INSIDE: &str = "https://127.0.0.1:6443";
/// The API server as the forwarder reaches it.
pub const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 6443);

const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEER: &str = "http://127.0.0.1:2380";

/// Starts etcd and the API server, without waiting.
pub fn start_api(place: &Place, network: &File, binaries: &Binaries) -> Result<()> {
    let run = |name, program: &Path, args| {
        Daemon { name, program, args, network, mounts: Mounts::Host, inherit: None }.start(place)
    };
    run("etcd", &binaries.etcd, etcd_args(place))?;
    write_audit_policy(place)?;
    run("kube-apiserver", &binaries.kube_apiserver, api_server_args(place))?;
    Ok(())
}

/// Waits until the API server says that it is ready.
pub fn wait_ready(place: &Place, binaries: &Binaries) -> Result<()> {
    wait_until("the API server to be ready", Duration::from_secs(90), || {
        daemon::check_alive(place)?;
        Ok(is_ready(place, binaries))
    })
}

/// Asks the API server once.
pub fn is_ready(place: &Place, binaries: &Binaries) -> bool {
    let mut ask = std::process::Command::new(&binaries.kubectl);
    ask.arg("--kubeconfig").arg(place.kubeconfig()).args(["get", "--raw=/readyz", "--request-timeout=5s"]);
    cmd::output(&mut ask).is_ok_and(|answer| answer == "ok")
}

/// Starts the controllers and the scheduler; the API server must be ready.
pub fn start_controllers(place: &Place, network: &File, binaries: &Binaries) -> Result<()> {
    for identity in ["controllers", "scheduler"] {
        kubeconfig::write(place, &place.run.join(identity), identity, INSIDE)?;
    }
    let run = |name, program: &Path, args| {
        Daemon { name, program, args, network, mounts: Mounts::Host, inherit: None }.start(place)
    };
    run("kube-controller-manager", &binaries.kube_controllers, controllers_args(place))?;
    run("kube-scheduler", &binaries.kube_scheduler, scheduler_args(place))?;
    Ok(())
}

fn etcd_args(place: &Place) -> Vec<String> {
    vec![
        format!("--data-dir={}", place.keep.join("etcd").display()),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={ETCD_PEER}"),
        format!("--initial-advertise-peer-urls={ETCD_PEER}"),
        format!("--initial-cluster=default={ETCD_PEER}"),
        // Nothing in this cluster outlives it, so nothing need survive a power cut.
        "--unsafe-no-fsync".into(),
    ]
}

fn api_server_args(place: &Place) -> Vec<String> {
    vec![
        format!("--etcd-servers={ETCD}"),
        "--secure-port=6443".into(),
        format!("--advertise-address={CONTROL_PLANE_IP}"),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        format!("--tls-cert-file={}", place.pki("apiserver.crt")),
        format!("--tls-private-key-file={}", place.pki("apiserver.key")),
        format!("--client-ca-file={}", place.pki("ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={}", place.pki("accounts.pub")),
        format!("--service-account-signing-key-file={}", place.pki("accounts.key")),
        format!("--kubelet-client-certificate={}", place.pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", place.pki("kubelet-client.key")),
        format!("--kubelet-certificate-authority={}", place.pki("ca.crt")),
        // Else `exec` and `logs` look node names up in DNS.
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        format!("--audit-policy-file={}", place.run.join("audit-policy").display()),
        format!("--audit-log-path={}", place.keep.join("log/audit.log").display()),
        "--audit-log-maxsize=100".into(),
        "--audit-log-maxbackup=1".into(),
    ]
}

/// Every request of a client that is no part of Kubernetes is one line in `log/audit.log`: tests count them.
fn write_audit_policy(place: &Place) -> Result<()> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
            {"level": "None", "users": [
                "system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy",
            ]},
            {"level": "Metadata"},
        ],
    });
    fs::write(place.run.join("audit-policy"), policy.to_string()).context("cannot write the audit policy")
}

fn controllers_args(place: &Place) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", place.run.join("controllers").display()),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
        "--use-service-account-credentials=true".into(),
        format!("--service-account-private-key-file={}", place.pki("accounts.key")),
        format!("--root-ca-file={}", place.pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", place.pki("ca.crt")),
        format!("--cluster-signing-key-file={}", place.pki("ca.key")),
        format!("--cluster-cidr={POD_CIDR}"),
        // Each node's CNI configuration already has its share.
        "--allocate-node-cidrs=false".into(),
        // At the default 20 requests a second its start alone takes four seconds.
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
    ]
}

fn scheduler_args(place: &Place) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", place.run.join("scheduler").display()),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
    ]
}
