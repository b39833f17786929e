//! Leader election by a Lease: one operator acts, the others stand by.
//!
//! Nobody trusts another machine's clock: a Lease counts as expired when *we* have seen it unchanged for its whole
//! duration. A leader that cannot renew stops [`RENEW_DEADLINE`] after its last renewal, well before another one may
//! take over. Every write carries the resourceVersion it was decided on, so two candidates cannot both win.
//!
//! The Lease is owned by its holder's pod, as a node's is by its Node: with the pod it is collected, and nobody waits for
//! a holder that is gone. Giving it back is faster but may be too late: `helm uninstall` takes the operator's rights
//! before the pod is told to end. A Lease made by the chart would go too, but stands in the way of an upgrade where an
//! operator has made one already. An operator that is deleted by force and still runs finds its Lease gone at its next
//! renewal; until then two may act, which names, uids and resourceVersions of their writes make harmless.

use crate::Operator;
use crate::error::words;
use crate::health::Health;
use crate::metrics::Metrics;
use coterie_api::name::LEASE;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::api::{Api, ObjectMeta, PostParams};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a Lease is good after its last renewal.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A leader that has not renewed for this long has lost.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two renewals.
pub const RENEW_PERIOD: Duration = Duration::from_secs(5);
/// Between two looks at somebody else's Lease, and between two tries to renew after a failure.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

const PART: &str = "lease";

/// One candidate for one Lease.
pub struct Election {
    leases: Api<Lease>,
    identity: String,
    /// The pod that this candidate is.
    owner: Option<Vec<OwnerReference>>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// The Lease as last seen or written, and when we saw it change.
    seen: Option<(Lease, Instant)>,
}

impl Election {
    /// A candidate for the operators' Lease; nothing is sent yet.
    pub fn new(operator: &Operator) -> Self {
        let options = &operator.options;
        let owner = options.pod_uid.clone().map(|uid| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: options.identity.clone(),
            uid,
            ..OwnerReference::default()
        });
        Self {
            leases: Api::namespaced(operator.client.clone(), &options.lease_namespace),
            identity: options.identity.clone(),
            owner: owner.map(|owner| vec![owner]),
            health: operator.health.clone(),
            metrics: operator.metrics.clone(),
            seen: None,
        }
    }

    /// Waits until this candidate leads.
    pub async fn acquire(&mut self) {
        loop {
            match timeout(RENEW_DEADLINE, self.try_acquire()).await {
                Ok(Ok(leads)) => {
                    self.health.works(PART);
                    if leads {
                        tracing::info!(lease = LEASE, identity = self.identity, "this operator leads");
                        self.metrics.leads(true);
                        return;
                    }
                }
                Ok(Err(error)) => self.trouble(words(&error)),
                Err(_) => self.trouble("no answer from the API server".to_owned()),
            }
            sleep(RETRY_PERIOD).await;
        }
    }

    /// Renews the Lease for as long as that works; returns when this candidate leads no more.
    pub async fn hold(&mut self) {
        let mut renewed = Instant::now();
        let mut pause = RENEW_PERIOD;
        loop {
            sleep(pause).await;
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            let sent = Instant::now();
            pause = RETRY_PERIOD;
            match timeout(left, self.renew()).await {
                Ok(Ok(true)) => {
                    // Counted from before the request, as the server may have stored it right then.
                    renewed = sent;
                    pause = RENEW_PERIOD;
                }
                Ok(Ok(false)) => {
                    tracing::error!(lease = LEASE, "another operator took the Lease");
                    break;
                }
                Ok(Err(error)) => self.trouble(words(&error)),
                Err(_) => self.trouble("no answer from the API server".to_owned()),
            }
            if renewed.elapsed() + RETRY_PERIOD > RENEW_DEADLINE {
                tracing::error!(lease = LEASE, "the Lease could not be renewed in time");
                break;
            }
        }
        self.metrics.leads(false);
    }

    /// Gives the Lease back, so that another candidate need not wait for its end.
    pub async fn release(&mut self) {
        self.metrics.leads(false);
        let Some((lease, _)) = self.seen.take() else { return };
        if holder(&lease) != Some(&self.identity) {
            return;
        }
        let released = self.change(lease, |lease| {
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(now());
            // Nobody's any more, so it does not go with our pod.
            lease.metadata.owner_references = None;
        });
        if let Err(error) = released.await {
            let error = words(&error);
            tracing::warn!(
                error,
                lease = LEASE,
                "the Lease was not released; it goes with its pod, or ends by itself"
            );
        }
    }

    async fn try_acquire(&mut self) -> kube::Result<bool> {
        let Some(found) = self.leases.get_opt(LEASE).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(LEASE.to_owned()),
                    owner_references: self.owner.clone(),
                    ..ObjectMeta::default()
                },
                spec: Some(self.taken(0)),
            };
            self.metrics.wrote("create", "Lease");
            return self.won(self.leases.create(&PostParams::default(), &lease).await);
        };
        if !self.may_take(&found) {
            return Ok(false);
        }
        let transitions = found.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let mut lease = Lease { spec: Some(self.taken(transitions.saturating_add(1))), ..found };
        lease.metadata.owner_references = self.owner.clone();
        let written = self.replace(lease).await;
        self.won(written)
    }

    /// Whether nobody holds `found`: it is free, ours from before a restart, or unchanged for its whole duration.
    fn may_take(&mut self, found: &Lease) -> bool {
        match holder(found) {
            None | Some("") => return true,
            Some(holder) if holder == self.identity => return true,
            Some(_) => {}
        }
        let seconds = found.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).max(Duration::from_secs(1));
        match &self.seen {
            Some((seen, since)) if version(seen) == version(found) => since.elapsed() > duration,
            _ => {
                self.seen = Some((found.clone(), Instant::now()));
                false
            }
        }
    }

    /// Whether the Lease is still ours, with a new renewal time.
    async fn renew(&mut self) -> kube::Result<bool> {
        let Some((lease, _)) = &self.seen else { return Ok(false) };
        let renewal = |lease: &mut Lease| lease.spec.get_or_insert_default().renew_time = Some(now());
        let Some(renewed) = self.change(lease.clone(), renewal).await? else { return Ok(false) };
        self.seen = Some((renewed, Instant::now()));
        self.health.works(PART);
        Ok(true)
    }

    /// The Lease as it was changed; `None` when it is no longer ours.
    async fn change(&self, mut lease: Lease, change: impl Fn(&mut Lease)) -> kube::Result<Option<Lease>> {
        loop {
            change(&mut lease);
            match self.replace(lease).await {
                Ok(written) => return Ok(Some(written)),
                // Either somebody else's write, or our own one whose answer never reached us.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    match self.leases.get_opt(LEASE).await? {
                        Some(found) if holder(&found) == Some(&self.identity) => lease = found,
                        _ => return Ok(None),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn replace(&self, mut lease: Lease) -> kube::Result<Lease> {
        lease.metadata.managed_fields = None;
        self.metrics.wrote("update", "Lease");
        self.leases.replace(LEASE, &PostParams::default(), &lease).await
    }

    /// A conflict means that another candidate was faster: no error, we just do not lead.
    fn won(&mut self, written: kube::Result<Lease>) -> kube::Result<bool> {
        match written {
            Ok(lease) => {
                self.seen = Some((lease, Instant::now()));
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn taken(&self, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: Some(now()),
            renew_time: Some(now()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    fn trouble(&self, error: String) {
        tracing::warn!(error, lease = LEASE, "the Lease could not be read or written");
        self.health.failed(PART, error);
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref()
}

fn version(lease: &Lease) -> Option<&str> {
    lease.metadata.resource_version.as_deref()
}

fn now() -> MicroTime {
    MicroTime(jiff::Timestamp::now())
}
