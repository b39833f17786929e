//! Does a plan's actions, one after the other.

mod experts;

use crate::certificates::{self, ChangeError};
use crate::controller::Context;
use crate::error::{Error, is_refusal, words};
use crate::written::Write;
use coterie_api::name::FIELD_MANAGER;
use coterie_operator_core::plan::{Annotation, Deletion};
use coterie_operator_core::status::Refusal;
use coterie_operator_core::{Action, Applied, Deployment};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use serde_json::json;

/// Does every action. What the API server refuses (a quota, an admission rule, a name that is taken) is reported in
/// [`Applied`]; what it does not answer is an error, after the other actions were tried.
pub async fn apply(
    context: &Context,
    deployment: &Deployment,
    actions: Vec<Action>,
) -> Result<Applied, Error> {
    let mut applied = Applied::default();
    let mut failed = None;
    for action in actions {
        let object = action.object();
        let done = match action {
            Action::ApplyService(service) => apply_service(context, deployment, &service).await,
            Action::CreateConfigMap(map) => experts::create(context, deployment, &map).await,
            Action::ApplyConfigMap(map) => experts::apply(context, deployment, &map).await,
            Action::DeleteConfigMap(deletion) => experts::delete(context, deployment, &deletion).await,
            Action::ChangeCertificates(change) => {
                certificates::change(context, deployment, &change).await.map_err(|error| match error {
                    ChangeError::Refused(words) => Failure::Refused(words),
                    ChangeError::Failed(cause) => {
                        Failure::Failed(Error::Certificates { name: change.name.clone(), cause })
                    }
                })
            }
            Action::CreatePod(pod) => create_pod(context, deployment, &pod).await,
            Action::Annotate(annotation) => annotate_pod(context, deployment, &annotation).await,
            Action::DeletePod(deletion) => delete_pod(context, deployment, &deletion).await,
        };
        match done {
            Ok(()) => {}
            Err(Failure::Refused(message)) => {
                tracing::warn!(object, message, "the API server refuses an object");
                applied.refusals.push(Refusal { object, message });
            }
            Err(Failure::Failed(error)) => failed = Some(error),
        }
    }
    failed.map_or(Ok(applied), Err)
}

enum Failure {
    Refused(String),
    Failed(Error),
}

async fn apply_service(context: &Context, deployment: &Deployment, service: &Service) -> Result<(), Failure> {
    let services: Api<Service> = Api::namespaced(context.operator.client.clone(), &deployment.namespace);
    let name = service.metadata.name.as_deref().unwrap_or_default();
    context.operator.metrics.wrote("patch", "Service");
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let applied = match services.patch(name, &params, &Patch::Apply(service)).await {
        Err(refusal) if is_invalid(&refusal) => {
            // Should that fail as well, the first refusal says why.
            replace_ports(context, &services, service).await.map_err(|_| refusal)
        }
        answer => answer,
    };
    let applied = applied.map_err(|error| Failure::of_write(error, || format!("Service {name}")))?;
    tracing::info!(service = name, "applied");
    let version = applied.metadata.resource_version.as_deref();
    context.note(deployment, context.observer.service_applied(version));
    Ok(())
}

/// A port that somebody gave another number is another port to an apply, and keeps the name that ours has.
async fn replace_ports(
    context: &Context,
    services: &Api<Service>,
    service: &Service,
) -> kube::Result<Service> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    context.operator.metrics.wrote("patch", "Service");
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    services.patch(name, &params, &Patch::Merge(json!({"spec": {"ports": ports}}))).await
}

fn is_invalid(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422)
}

/// Creates by POST and not by an apply: an apply to a name that is taken would change somebody else's pod.
async fn create_pod(context: &Context, deployment: &Deployment, pod: &Pod) -> Result<(), Failure> {
    let pods: Api<Pod> = Api::namespaced(context.operator.client.clone(), &deployment.namespace);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    context.operator.metrics.wrote("create", "Pod");
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let failed = |error| Failure::of_write(error, || format!("Pod {name}"));
    let created = match pods.create(&params, pod).await {
        Ok(created) => created,
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let Some(found) = pods.get_opt(name).await.map_err(failed)? else { return Ok(()) };
            ours(&found.metadata, deployment, "pod")?;
            found
        }
        Err(error) => return Err(failed(error)),
    };
    tracing::info!(pod = name, "created");
    let version = created.metadata.resource_version.as_deref();
    context.note(deployment, context.observer.pod_written(version));
    Ok(())
}

/// Refuses what has a name of ours and is not controlled by the ModelDeployment.
fn ours(metadata: &ObjectMeta, deployment: &Deployment, kind: &str) -> Result<(), Failure> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    if owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == deployment.uid) {
        return Ok(());
    }
    let name = metadata.name.as_deref().unwrap_or_default();
    Err(Failure::Refused(format!(
        "a {kind} named {name} is there already and belongs to somebody else: delete or rename it"
    )))
}

async fn annotate_pod(
    context: &Context,
    deployment: &Deployment,
    annotation: &Annotation,
) -> Result<(), Failure> {
    let pods: Api<Pod> = Api::namespaced(context.operator.client.clone(), &deployment.namespace);
    let patch = json!({"metadata": {
        "resourceVersion": annotation.resource_version,
        "labels": annotation.labels,
        "annotations": annotation.annotations,
    }});
    context.operator.metrics.wrote("patch", "Pod");
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match pods.patch(&annotation.pod, &params, &Patch::Merge(patch)).await {
        Ok(patched) => {
            tracing::debug!(pod = annotation.pod, changed = ?annotation.annotations.keys(), "annotated");
            let version = patched.metadata.resource_version.as_deref();
            context.note(deployment, context.observer.pod_written(version));
            Ok(())
        }
        // Gone, or changed since it was seen: the watch tells, and a new plan is made.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(Failure::of_write(error, || format!("Pod {}", annotation.pod))),
    }
}

async fn delete_pod(context: &Context, deployment: &Deployment, deletion: &Deletion) -> Result<(), Failure> {
    let pods: Api<Pod> = Api::namespaced(context.operator.client.clone(), &deployment.namespace);
    let preconditions = Preconditions {
        uid: Some(deletion.uid.clone()),
        resource_version: Some(deletion.resource_version.clone()),
    };
    context.operator.metrics.wrote("delete", "Pod");
    let params = DeleteParams::default().preconditions(preconditions);
    let params = match deletion.grace_seconds {
        Some(seconds) => params.grace_period(seconds),
        None => params,
    };
    match pods.delete(&deletion.name, &params).await {
        Ok(_) => {
            tracing::info!(pod = deletion.name, why = deletion.why, "deleted");
            let key = (deployment.namespace.clone(), deletion.name.clone());
            context.note(deployment, Write::Deletion { key, uid: deletion.uid.clone() });
            Ok(())
        }
        // Somebody was faster, or the pod has changed since it was seen: the watch tells, and a new plan is made.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) if is_refusal(&error) => Err(Failure::Refused(words(&error))),
        Err(error) => {
            let object = format!("Pod {}", deletion.name);
            Err(Failure::Failed(Error::Delete { object, cause: Box::new(error) }))
        }
    }
}

impl Failure {
    fn of_write(error: kube::Error, object: impl Fn() -> String) -> Self {
        if is_refusal(&error) {
            return Failure::Refused(words(&error));
        }
        Failure::Failed(Error::Apply { object: object(), cause: Box::new(error) })
    }
}

impl Context {
    fn note(&self, deployment: &Deployment, write: Write) {
        let of = ObjectRef::new(&deployment.name).within(&deployment.namespace);
        self.written.note(&of, write);
    }
}
