//! Does a plan's actions, one after the other.

use crate::controller::Context;
use crate::error::{Error, words};
use crate::written::Write;
use coterie_api::name::FIELD_MANAGER;
use coterie_operator_core::plan::PodDeletion;
use coterie_operator_core::status::Refusal;
use coterie_operator_core::{Action, Applied, Deployment};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::ObjectRef;

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
            Action::CreatePod(pod) => create_pod(context, deployment, &pod).await,
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
    let services: Api<Service> = Api::namespaced(context.client.clone(), &deployment.namespace);
    let name = service.metadata.name.as_deref().unwrap_or_default();
    context.metrics.wrote("patch", "Service");
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let applied = services.patch(name, &params, &Patch::Apply(service)).await;
    let applied = applied.map_err(|error| Failure::of_write(error, || format!("Service {name}")))?;
    tracing::info!(service = name, "applied");
    let version = applied.metadata.resource_version.as_deref();
    context.note(deployment, context.observer.service_applied(version));
    Ok(())
}

/// Creates by POST and not by an apply: an apply to a name that is taken would change somebody else's pod.
async fn create_pod(context: &Context, deployment: &Deployment, pod: &Pod) -> Result<(), Failure> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &deployment.namespace);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    context.metrics.wrote("create", "Pod");
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let failed = |error| Failure::of_write(error, || format!("Pod {name}"));
    let created = match pods.create(&params, pod).await {
        Ok(created) => created,
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let Some(found) = pods.get_opt(name).await.map_err(failed)? else { return Ok(()) };
            let owners = found.metadata.owner_references.as_deref().unwrap_or_default();
            if !owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == deployment.uid) {
                return Err(Failure::Refused(format!(
                    "a pod named {name} is there already and belongs to somebody else: delete or rename it"
                )));
            }
            found
        }
        Err(error) => return Err(failed(error)),
    };
    tracing::info!(pod = name, "created");
    let version = created.metadata.resource_version.as_deref();
    context.note(deployment, context.observer.pod_created(version));
    Ok(())
}

async fn delete_pod(
    context: &Context,
    deployment: &Deployment,
    deletion: &PodDeletion,
) -> Result<(), Failure> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &deployment.namespace);
    let preconditions = Preconditions {
        uid: Some(deletion.uid.clone()),
        resource_version: Some(deletion.resource_version.clone()),
    };
    context.metrics.wrote("delete", "Pod");
    let params = DeleteParams::default().preconditions(preconditions);
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
            Err(Failure::Failed(Error::Delete { object, source: Box::new(error) }))
        }
    }
}

impl Failure {
    fn of_write(error: kube::Error, object: impl Fn() -> String) -> Self {
        match error {
            kube::Error::Api(status) if is_refusal_code(status.code) => Failure::Refused(status.message),
            error => Failure::Failed(Error::Apply { object: object(), source: Box::new(error) }),
        }
    }
}

fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if is_refusal_code(status.code))
}

/// The request itself is at fault, and not the server's load (429) or our credentials (401).
fn is_refusal_code(code: u16) -> bool {
    (400..500).contains(&code) && !matches!(code, 401 | 429)
}

impl Context {
    fn note(&self, deployment: &Deployment, write: Write) {
        let of = ObjectRef::new(&deployment.name).within(&deployment.namespace);
        self.written.note(&of, write);
    }
}
