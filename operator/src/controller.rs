//! Reconciles ModelDeployments: what was asked and what is seen become writes to the API server.

use crate::Operator;
use crate::apply::apply;
use crate::backoff::Backoff;
use crate::certificates::Certificates;
use crate::error::Error;
use crate::observe::Observer;
use crate::queue::Queue;
use crate::report::{Reporter, report, report_unusable};
use crate::written::Written;
use coterie_api::deployment::ModelDeployment;
use coterie_operator_core::plan::replicas::resolved;
use coterie_operator_core::{plan, status, status::status_of_invalid, validate};
use futures::StreamExt;
use jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::controller::{self, Action, Config, applier};
use kube::runtime::reflector::ObjectRef;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// Events that come together lead to one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Reconciles at the same time, of different objects.
const CONCURRENCY: u16 = 8;
/// No reconcile makes more than a few calls; one that takes this long has lost its connection.
const LIMIT: Duration = Duration::from_secs(60);
/// How long reconciles in progress may take to end when the operator is told to.
const GRACE: Duration = Duration::from_secs(5);
/// A watch that has not shown our own write for this long is in trouble.
const BLIND: Duration = Duration::from_secs(10);
const OWN_WRITES: &str = "sight of own writes";

/// What every reconcile needs.
pub struct Context {
    /// Sends the writes, and counts.
    pub operator: Operator,
    /// Has the view.
    pub observer: Arc<Observer>,
    /// Knows which writes the view lacks.
    pub written: Written,
    /// Sends Events.
    pub reporter: Reporter,
    /// Knows the certificates of the exchange.
    pub certificates: Certificates,
    backoff: Backoff,
    resync: Duration,
    permits: Semaphore,
}

impl Context {
    /// Forgets a ModelDeployment that is gone.
    fn forget(&self, gone: &ObjectRef<DynamicObject>) {
        let of = ObjectRef::new(&gone.name).within(gone.namespace.as_deref().unwrap_or_default());
        self.written.forget(&of);
        self.observer.forget(gone.namespace.as_deref().unwrap_or_default(), &gone.name);
        self.backoff.forget(&of);
    }
}

/// One pass: makes the cluster a step more like what `object` asks for, and tells in its status.
async fn reconcile(object: &ModelDeployment, context: &Context) -> Result<Action, Error> {
    let now = Timestamp::now();
    let deployment = match validate(object) {
        Ok(deployment) => deployment, //                                       no client
        Err(invalid) => {
            report(context, object, status_of_invalid(object, &invalid, now)).await?;
            return Ok(Action::requeue(context.resync));
        }
    };
    let certificates = &context.certificates;
    let observed = context.observer.observe(object, &deployment, certificates).await?; // client: claim, Secret
    let deployment = resolved(deployment, &observed); //                       no client
    let mut plan = plan(&deployment, &observed, now); //                       no client
    let actions = std::mem::take(&mut plan.actions);
    let applied = apply(context, &deployment, actions).await?; //              client: Services, ConfigMaps, Secrets, Pods
    report_unusable(context, object, &observed.certificates).await; //         client: Event
    let status = status(&deployment, &observed, &plan, &applied, now); //      no client
    report(context, object, status).await?; //                                 client: status, Events
    if let Some(refusal) = applied.refusals.first() {
        return Err(Error::Refused(refusal.object.clone()));
    }
    let decided = observed.decision.as_ref().map(|decision| decision.look_again_after);
    let again = plan.look_again_after.into_iter().chain(decided).min();
    let again = again.and_then(|after| Duration::try_from(after).ok());
    Ok(Action::requeue(again.unwrap_or(context.resync).min(context.resync)))
}

/// Runs until `shutdown` is done and the reconciles in progress have ended.
pub async fn run(operator: &Operator, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let (queue, requests) = Queue::new();
    let settings = operator.options.settings()?;
    let (observer, follow) = Observer::new(operator, settings, queue.clone());
    let deployments = observer.deployments().clone();
    let context = Arc::new(Context {
        reporter: Reporter::new(operator.client.clone(), &operator.options.identity),
        operator: operator.clone(),
        observer,
        written: Written::default(),
        certificates: Certificates::default(),
        backoff: Backoff::default(),
        resync: Duration::from_secs(operator.options.resync_seconds),
        permits: Semaphore::new(usize::from(CONCURRENCY)),
    });
    let reconciling = async {
        context.observer.wait_until_complete().await;
        tracing::info!("everything was listed; reconciling begins");
        let results = applier(
            |object, context| Box::pin(attempt(object, context)),
            |object, _, context| Action::requeue(context.backoff.next(&ObjectRef::from_obj(&*object))),
            context.clone(),
            deployments.clone(),
            requests.map(Ok::<_, Infallible>),
            Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY),
        );
        let results = results.for_each(|result| {
            if let Err(controller::Error::ObjectNotFound(gone)) = result {
                context.forget(&gone);
            }
            std::future::ready(())
        });
        results.await;
    };
    let working = async { futures::join!(follow, queue.run(deployments.clone()), reconciling) };
    let mut working = pin!(working);
    tokio::select! {
        _ = &mut working => Ok(()),
        () = shutdown => {
            tracing::info!("told to end; reconciles in progress are finished first");
            tokio::select! {
                _ = &mut working => {}
                _ = timeout(GRACE, context.permits.acquire_many(u32::from(CONCURRENCY))) => {}
            }
            Ok(())
        }
    }
}

/// One reconcile with all that is not its business: permits, stale views, time limit, metrics, logs.
async fn attempt(object: Arc<ModelDeployment>, context: Arc<Context>) -> Result<Action, Error> {
    let Ok(_permit) = context.permits.acquire().await else { return Ok(Action::await_change()) };
    let of = ObjectRef::from_obj(&*object);
    if object.metadata.deletion_timestamp.is_some() {
        // The garbage collector deletes what it owns.
        return Ok(Action::await_change());
    }
    if let Some(since) = context.written.unseen_since(&of, &context.observer) {
        if since.elapsed() > BLIND {
            context
                .operator
                .health
                .failed(OWN_WRITES, format!("the watches do not show what was written for {of}"));
        }
        tracing::debug!(object = %of, "waits until the watches show its last writes");
        return Ok(Action::requeue(Duration::from_secs(1)));
    }
    let start = Instant::now();
    let result = timeout(LIMIT, reconcile(&object, &context)).await.unwrap_or(Err(Error::Timeout));
    let error = result.as_ref().err();
    context.operator.metrics.reconciled(start.elapsed(), error.map(Error::variant));
    match error {
        None => {
            tracing::debug!(object = %of, took = ?start.elapsed(), "reconciled");
            context.backoff.forget(&of);
        }
        Some(error) => tracing::warn!(%error, object = %of, "a reconcile failed"),
    }
    result
}
