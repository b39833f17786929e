//! Tells: the status of a ModelDeployment, and an Event for each of its conditions that changed.

use crate::controller::Context;
use crate::definition::REMEDY;
use crate::error::{Error, is_refusal, words};
use coterie_api::condition::reason;
use coterie_api::deployment::{ModelDeployment, ModelDeploymentStatus};
use coterie_api::name::FIELD_MANAGER;
use coterie_operator_core::observed::ObservedCertificates;
use coterie_operator_core::status::{EventNote, events};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Sends Events; those that say the same again within minutes become one with a count.
pub struct Reporter {
    client: Client,
    reporter: kube::runtime::events::Reporter,
    /// By the text of the Event, with the time when that was sent last. A [`Recorder`] takes what has the same reason for
    /// a repeat, whatever it says, and keeps the first text.
    recorders: Mutex<HashMap<String, (Instant, Recorder)>>,
}

/// For so long a [`Recorder`] remembers what it sent.
const REMEMBERED: Duration = Duration::from_mins(6);

impl Reporter {
    /// Events in the name of `identity`.
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter = kube::runtime::events::Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self { client, reporter, recorders: Mutex::default() }
    }

    async fn publish(&self, event: &Event, about: &ObjectReference) -> Result<(), kube::Error> {
        self.recorder(event.note.as_deref().unwrap_or_default()).publish(event, about).await
    }

    fn recorder(&self, text: &str) -> Recorder {
        let mut recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        recorders.retain(|_, (sent, _)| sent.elapsed() < REMEMBERED);
        let new = || (Instant::now(), Recorder::new(self.client.clone(), self.reporter.clone()));
        let (sent, recorder) = recorders.entry(text.to_owned()).or_insert_with(new);
        *sent = Instant::now();
        recorder.clone()
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

/// Tells that certificates were of no use: no status does.
pub async fn report_unusable(
    context: &Context,
    object: &ModelDeployment,
    certificates: &ObservedCertificates,
) {
    let ObservedCertificates::Unusable(why) = certificates else { return };
    let message = format!("the certificates of the exchange are made anew: of those in the Secret, {why}");
    tell(context, object, EventNote::warning(reason::CERTIFICATES_REPLACED, "ChangeCertificates", message))
        .await;
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
    if let Err(error) = context.reporter.publish(&event, &object.object_ref(&())).await {
        tracing::warn!(error = words(&error), reason = note.reason, "an Event was not sent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use hyper::body::Bytes;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use std::sync::Arc;

    /// An API server that takes every Event and notes what was asked of it.
    async fn server() -> (Client, Arc<Mutex<Vec<String>>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = asked.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let noted = noted.clone();
                let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                    noted.lock().unwrap().push(request.method().to_string());
                    let event = json!({
                        "apiVersion": "events.k8s.io/v1", "kind": "Event", "eventTime": null,
                        "metadata": {"name": "smol.1", "namespace": "chat"}
                    });
                    async move { Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(event.to_string())))) }
                });
                let connection = TokioIo::new(connection);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(connection, answer));
            }
        });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        (Client::try_from(config).unwrap(), asked)
    }

    #[tokio::test]
    async fn a_repeat_with_another_text_is_an_event_of_its_own() {
        let (client, asked) = server().await;
        let reporter = Reporter::new(client, "here");
        let about = ObjectReference {
            name: Some("smol".into()),
            namespace: Some("chat".into()),
            ..ObjectReference::default()
        };
        for text in ["90 experts are lost", "90 experts are lost", "98 experts are lost"] {
            let event = Event {
                type_: EventType::Warning,
                reason: reason::EXPERTS_LOST.into(),
                note: Some(text.into()),
                action: "MoveExperts".into(),
                secondary: None,
            };
            // What the server answers is not looked at here.
            reporter.publish(&event, &about).await.unwrap();
        }
        assert_eq!(*asked.lock().unwrap(), ["POST", "PATCH", "POST"]);
    }
}
