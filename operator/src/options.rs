//! What `coterie-operator run` can be told, by flags or environment variables.

use crate::error::Error;
use clap::Args;
use coterie_api::deployment::PullPolicy;
use coterie_operator_core::observed::Settings;
use jiff::SignedDuration;

/// Shorter lives would end before their change is heard of.
const CERTIFICATE_SECONDS_LEAST: u32 = 10;

/// Options of `run`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Look only at ModelDeployments of this namespace; all namespaces when absent
    #[arg(long, env = "WATCH_NAMESPACE")]
    pub namespace: Option<String>,
    /// Image of the pods that serve and inspect models
    #[arg(long, env = "RUNTIME_IMAGE")]
    pub runtime_image: String,
    /// Image of those that serve on GPUs; without it none do
    #[arg(long, env = "GPU_RUNTIME_IMAGE")]
    pub gpu_runtime_image: Option<String>,
    /// Pull policy of these images: Always, IfNotPresent or Never
    #[arg(long, env = "RUNTIME_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// Port of /health, /ready and /metrics; 0 for none
    #[arg(long, env = "HTTP_PORT", default_value_t = 8080)]
    pub http_port: u16,
    /// Namespace of the Lease by which operators elect a leader
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub lease_namespace: String,
    /// This operator's name in the Lease and in Events; must be its own
    #[arg(long, env = "POD_NAME", default_value_t = own_name())]
    pub identity: String,
    /// Uid of the pod that this operator runs in: the Lease then goes with that pod, whose name and namespace are
    /// --identity and --lease-namespace
    #[arg(long, env = "POD_UID")]
    pub pod_uid: Option<String>,
    /// Look at every ModelDeployment again after this many seconds, even if nothing seems to have changed
    #[arg(long, default_value_t = 600)]
    pub resync_seconds: u64,
    /// How long the certificate is valid by which ranks of one replica trust each other, seconds; another takes its place
    /// at two thirds of that
    #[arg(long, default_value_t = 30 * 86_400)]
    pub certificate_seconds: u32,
    /// The load on experts is counted over so many seconds
    #[arg(long, default_value_t = 60)]
    pub expert_window_seconds: u32,
    /// Act at once without a Lease: for tests and one-off runs, never beside another operator
    #[arg(long)]
    pub no_leader_election: bool,
}

impl Options {
    /// What plans depend on.
    pub fn settings(&self) -> Result<Settings, Error> {
        let policies = [PullPolicy::Always, PullPolicy::IfNotPresent, PullPolicy::Never];
        let policy = policies.into_iter().find(|policy| policy.as_str() == self.image_pull_policy);
        let policy = policy.ok_or_else(|| Error::Option {
            option: "image-pull-policy",
            value: self.image_pull_policy.clone(),
            remedy: "write Always, IfNotPresent or Never",
        })?;
        if self.certificate_seconds < CERTIFICATE_SECONDS_LEAST {
            return Err(Error::Option {
                option: "certificate-seconds",
                value: self.certificate_seconds.to_string(),
                remedy: "nodes need time to hear of the next certificate; set 10 or more",
            });
        }
        Ok(Settings {
            runtime_image: self.runtime_image.clone(),
            gpu_runtime_image: self.gpu_runtime_image.clone().filter(|image| !image.is_empty()),
            image_pull_policy: Some(policy),
            certificate_life: SignedDuration::from_secs(self.certificate_seconds.into()),
            load_window: SignedDuration::from_secs(self.expert_window_seconds.into()),
        })
    }
}

/// The host's name and the process id: two operators on one machine differ.
fn own_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}
