//! A real etcd and kube-apiserver on loopback, with the chart's RBAC rules: one for all tests of a binary.

use crate::port::free_port;
use crate::process;
use anyhow::{Context, Result, bail, ensure};
use coterie_api::deployment::crd;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::config::{AuthInfo, Config};
use kube::{Api, Client};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Folders with etcd, kube-apiserver and helm, separated by colons.
pub const BINARIES: &str = "COTERIE_KUBE_BIN";
/// The namespace of the service account that the chart's rules are bound to.
pub const OPERATOR_NAMESPACE: &str = "coterie-system";
/// Name of that service account, and of the roles that are bound to it.
pub const OPERATOR_ACCOUNT: &str = "coterie-operator";
/// The front door's ServiceAccount.
pub const FRONT_DOOR_ACCOUNT: &str = "coterie-front-door";

const ADMIN_TOKEN: &str = "admin";
const OPERATOR_TOKEN: &str = "operator";
const FRONT_DOOR_TOKEN: &str = "front-door";
const READY_WITHIN: Duration = Duration::from_secs(60);

static SERVER: OnceLock<Result<ApiServer, String>> = OnceLock::new();
static RUNNING: Mutex<Vec<Child>> = Mutex::new(Vec::new());
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Where the API server listens and how to be let in.
pub struct ApiServer {
    url: http::Uri,
    authority: Vec<u8>,
    /// The same as PEM.
    certificate: String,
}

impl ApiServer {
    /// The API server of this test binary; the first call starts it.
    pub fn shared() -> Result<&'static Self> {
        match SERVER.get_or_init(|| Self::start().map_err(|error| format!("{error:#}"))) {
            Ok(server) => Ok(server),
            Err(error) => bail!("{error}"),
        }
    }

    /// Configuration of a client that may do everything.
    pub fn admin(&self) -> Config {
        self.config(ADMIN_TOKEN)
    }

    /// Configuration of a client with exactly the rights that the chart gives to the operator.
    pub fn operator(&self) -> Config {
        self.config(OPERATOR_TOKEN)
    }

    /// Configuration of a client with exactly the rights that the chart gives to the front door.
    pub fn front_door(&self) -> Config {
        self.config(FRONT_DOOR_TOKEN)
    }

    /// Writes a kubeconfig for an operator in a process of its own; `folder` also gets the server's certificate.
    pub fn write_kubeconfig(&self, folder: &Path) -> Result<PathBuf> {
        let certificate = folder.join("server.crt");
        fs::write(&certificate, &self.certificate)?;
        let cluster = json!({"server": self.url.to_string(), "certificate-authority": certificate});
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "operator", "user": {"token": OPERATOR_TOKEN}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "operator"}}]
        });
        let path = folder.join("kubeconfig");
        fs::write(&path, config.to_string())?;
        Ok(path)
    }

    fn config(&self, token: &str) -> Config {
        let mut config = Config::new(self.url.clone());
        config.root_cert = Some(vec![self.authority.clone()]);
        config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        config
    }

    fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("coterie-tests-").tempdir()?.keep();
        let folder = FOLDER.get_or_init(|| folder);
        // SAFETY: atexit only stores the function, which may run at any later time in this process.
        unsafe { libc::atexit(stop) };

        let (clients, peers, port) = (free_port()?, free_port()?, free_port()?);
        let etcd = format!("http://127.0.0.1:{clients}");
        let peer = format!("http://127.0.0.1:{peers}");
        let path = |name: &str| folder.join(name).display().to_string();
        run(
            "etcd",
            folder,
            &[
                ("data-dir", path("etcd")),
                ("listen-client-urls", etcd.clone()),
                ("advertise-client-urls", etcd.clone()),
                ("listen-peer-urls", peer.clone()),
                ("initial-advertise-peer-urls", peer.clone()),
                ("initial-cluster", format!("default={peer}")),
                ("unsafe-no-fsync", "true".to_owned()),
            ],
        )?;

        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&key)?;
        fs::write(folder.join("server.key"), key.serialize_pem())?;
        fs::write(folder.join("server.crt"), certificate.pem())?;
        let account = |name: &str| format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{name}");
        let (operator, front_door) = (account(OPERATOR_ACCOUNT), account(FRONT_DOOR_ACCOUNT));
        let tokens = format!(
            "{ADMIN_TOKEN},admin,1,\"system:masters\"\n{OPERATOR_TOKEN},{operator},2\n{FRONT_DOOR_TOKEN},{front_door},3\n"
        );
        fs::write(folder.join("tokens.csv"), tokens)?;
        run(
            "kube-apiserver",
            folder,
            &[
                ("etcd-servers", etcd),
                ("bind-address", "127.0.0.1".to_owned()),
                ("advertise-address", "127.0.0.1".to_owned()),
                ("secure-port", port.to_string()),
                ("tls-cert-file", path("server.crt")),
                ("tls-private-key-file", path("server.key")),
                ("token-auth-file", path("tokens.csv")),
                ("authorization-mode", "RBAC".to_owned()),
                ("service-account-issuer", "https://coterie.test".to_owned()),
                ("service-account-key-file", path("server.crt")),
                ("service-account-signing-key-file", path("server.key")),
                ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
                ("endpoint-reconciler-type", "none".to_owned()),
                // Off by default, on in some distributions: who blocks an owner's deletion must be allowed to.
                ("enable-admission-plugins", "OwnerReferencesPermissionEnforcement".to_owned()),
                // Nobody here makes service accounts, or takes the taint of a new node away.
                ("disable-admission-plugins", "ServiceAccount,TaintNodesByCondition".to_owned()),
            ],
        )?;
        let url = format!("https://127.0.0.1:{port}").parse()?;
        let server = Self { url, authority: certificate.der().to_vec(), certificate: certificate.pem() };
        // A runtime of its own: the caller may be inside one, and a client belongs to the one it was made in.
        std::thread::scope(|scope| {
            scope.spawn(|| server.prepare()).join().map_err(|_| anyhow::anyhow!("set-up panicked"))?
        })?;
        Ok(server)
    }

    fn prepare(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = Client::try_from(self.admin())?;
            wait_until_ready(&client).await?;
            install_crd(&client, &crd()).await?;
            install_rules(&client).await
        })
    }
}

async fn wait_until_ready(client: &Client) -> Result<()> {
    let start = Instant::now();
    loop {
        let answer = client.request_text(http::Request::get("/readyz").body(Vec::new())?).await;
        match answer {
            Ok(_) => return Ok(()),
            Err(_) if start.elapsed() < READY_WITHIN && all_run() => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error).context(logs()),
        }
    }
}

/// Installs a version of the CRD over the one that is there.
pub async fn install_crd(client: &Client, crd: &CustomResourceDefinition) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = crd.metadata.name.clone().context("the CRD has no name")?;
    crds.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(crd)).await?;
    let established = kube::runtime::conditions::is_crd_established();
    let waiting = kube::runtime::wait::await_condition(crds, &name, established);
    tokio::time::timeout(READY_WITHIN, waiting).await.context("the CRD was not established")??;
    Ok(())
}

/// Applies the RBAC objects that the chart makes, as helm renders them.
async fn install_rules(client: &Client) -> Result<()> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/coterie");
    let output = std::process::Command::new(binary("helm")?)
        .args(["template", "coterie", "--namespace", OPERATOR_NAMESPACE])
        .args(["--set", "crds.install=false", "--show-only", "templates/rbac.yaml"])
        .args(["--show-only", "templates/front-door/rbac.yaml"])
        .arg(&chart)
        .output()?;
    ensure!(output.status.success(), "helm template failed: {}", String::from_utf8_lossy(&output.stderr));
    apply(client, &format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {OPERATOR_NAMESPACE}}}"))
        .await?;
    let rendered = String::from_utf8(output.stdout)?;
    let documents = rendered.split("\n---").filter(|text| text.contains("\nkind:"));
    let mut roles = 0;
    for document in documents {
        apply(client, document).await?;
        roles += 1;
    }
    ensure!(roles > 0, "the chart renders no RBAC rules");
    Ok(())
}

async fn apply(client: &Client, document: &str) -> Result<()> {
    let mut object: DynamicObject = serde_saphyr::from_str(document)?;
    let types = object.types.clone().context("an object without a kind")?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&types)?);
    let api: Api<DynamicObject> = if types.kind.starts_with("Role") {
        object.metadata.namespace = Some(OPERATOR_NAMESPACE.to_owned());
        Api::namespaced_with(client.clone(), OPERATOR_NAMESPACE, &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    };
    let name = object.metadata.name.clone().context("an object without a name")?;
    api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&object)).await?;
    Ok(())
}

/// Finds `name` in the folders of [`BINARIES`].
pub fn binary(name: &str) -> Result<PathBuf> {
    let Some(folders) = std::env::var_os(BINARIES) else {
        bail!("{BINARIES} is not set, so there is no {name} to run: run `cargo xtask test`");
    };
    let found = std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("no folder of {BINARIES} holds {name}: run `cargo xtask test`"))
}

fn run(name: &str, folder: &Path, flags: &[(&str, String)]) -> Result<()> {
    let args: Vec<String> = flags.iter().map(|(flag, value)| format!("--{flag}={value}")).collect();
    let child = process::spawn(&binary(name)?, &args, &[], &folder.join(format!("{name}.log")))?;
    running().push(child);
    Ok(())
}

fn running() -> MutexGuard<'static, Vec<Child>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn all_run() -> bool {
    running().iter_mut().all(|child| matches!(child.try_wait(), Ok(None)))
}

/// The last lines of both logs, for a failed start.
fn logs() -> String {
    let Some(folder) = FOLDER.get() else { return String::new() };
    let tail = |name: &str| {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        format!("{name}:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
    };
    format!("the API server did not start\n{}\n{}", tail("etcd.log"), tail("kube-apiserver.log"))
}

/// Runs when the test binary exits: ends the processes, the API server first, and removes their folder.
extern "C" fn stop() {
    for child in running().iter_mut().rev() {
        let _ = child.kill();
        let _ = child.wait();
    }
    if let Some(folder) = FOLDER.get() {
        let _ = fs::remove_dir_all(folder);
    }
}
