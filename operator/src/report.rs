//! Tells: the status of a ModelDeployment, and an Event for each of its conditions that changed.

use crate::controller::Context;
use crate::definition::REMEDY;
use crate::error::{Error, is_refusal, words};
use coterie_api::condition::reason;
use coterie_api::deployment::{ModelDeployment, ModelDeploymentStatus};
use coterie_api::name::FIELD_MANAGER;
use coterie_operator_core::status::{EventNote, events};
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

/// Sends Events; those that repeat within minutes become one with a count.
pub struct Reporter {
    recorder: Recorder,
}

impl Reporter {
    /// Events in the name of `identity`.
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter = kube::runtime::events::Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self { recorder: Recorder::new(client, reporter) }
    }
}

/// Writes `status` if it differs from that of `object`, and then an Event for each change worth one.
pub async fn report(
    context: &Context,
    object: &ModelDeployment,
    status: ModelDeploymentStatus,
) -> Result<(), Error> {
    let default = ModelDeploymentStatus::default();
    let old = object.status.as_ref().unwrap_or(&default);
    if *old == status {
        return Ok(());
    }
    let name = object.name_any();
    let api: Api<ModelDeployment> =
        Api::namespaced(context.operator.client.clone(), object.namespace().as_deref().unwrap_or_default());
    // With its uid, so that an object that was deleted and made anew does not get the old one's status.
    let patch = json!({
        "apiVersion": ModelDeployment::api_version(&()),
        "kind": ModelDeployment::kind(&()),
        "metadata": {"name": name, "uid": object.uid()},
        "status": status,
    });
    context.operator.metrics.wrote("patch", "ModelDeployment/status");
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written = match api.patch_status(&name, &params, &Patch::Apply(&patch)).await {
        Ok(written) => written,
        // Deleted meanwhile.
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => return Ok(()),
        Err(cause) => {
            if is_refusal(&cause) {
                // Nobody finds it in a status that is not there.
                let message = format!("the API server refused the status: {}; {REMEDY}", words(&cause));
                tell(context, object, EventNote::warning(reason::STATUS_REFUSED, "WriteStatus", message))
                    .await;
                context.operator.definition.doubt();
            }
            return Err(Error::WriteStatus { name, cause: Box::new(cause) });
        }
    };
    let version = written.metadata.resource_version.as_deref();
    context.written.note(&ObjectRef::from_obj(object), context.observer.status_written(version));
    for note in events(old, &status) {
        tell(context, object, note).await;
    }
    Ok(())
}

/// An Event that cannot be sent is no reason to do the reconcile again: the status says the same.
async fn tell(context: &Context, object: &ModelDeployment, note: EventNote) {
    let event = Event {
        type_: if note.warning { EventType::Warning } else { EventType::Normal },
        reason: note.reason.clone(),
        note: Some(note.message),
        action: note.action,
        secondary: None,
    };
    context.operator.metrics.wrote("publish", "Event");
    if let Err(error) = context.reporter.recorder.publish(&event, &object.object_ref(&())).await {
        tracing::warn!(error = words(&error), reason = note.reason, "an Event was not sent");
    }
}
