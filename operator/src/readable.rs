//! Keeps one ModelDeployment that cannot be read from hiding all others.
//!
//! The CRD lets no such object in, but it may have been stored under another version of it, before an upgrade or a
//! rollback. Without this the whole list would fail, again and again.

use coterie_api::deployment::ModelDeployment;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;

/// An object, or what is wrong with it.
pub type Guarded = DeserializeGuard<ModelDeployment>;

/// What there is to see of an event. An object that can no longer be read is as good as gone: its pods are left as
/// they are until a version of the operator comes that can read it.
pub fn readable(event: Event<Guarded>) -> Option<Event<ModelDeployment>> {
    match event {
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
        Event::InitApply(DeserializeGuard(object)) => match object {
            Ok(object) => Some(Event::InitApply(object)),
            Err(unreadable) => {
                tell(&unreadable);
                None
            }
        },
        Event::Apply(DeserializeGuard(object)) => Some(match object {
            Ok(object) => Event::Apply(object),
            Err(unreadable) => {
                tell(&unreadable);
                Event::Delete(ModelDeployment { metadata: unreadable.metadata, ..ModelDeployment::default() })
            }
        }),
        Event::Delete(DeserializeGuard(object)) => Some(Event::Delete(object.unwrap_or_else(|unreadable| {
            ModelDeployment { metadata: unreadable.metadata, ..ModelDeployment::default() }
        }))),
    }
}

fn tell(unreadable: &kube::core::error_boundary::InvalidObject) {
    tracing::error!(
        namespace = unreadable.metadata.namespace,
        name = unreadable.metadata.name,
        error = unreadable.error,
        "this operator cannot read a ModelDeployment and leaves it as it is; correct it, or upgrade the operator"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn guarded(quantization: &str) -> Guarded {
        let object: Value = json!({
            "apiVersion": "coterie.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "smol", "namespace": "chat", "resourceVersion": "7"},
            "spec": {"model": {"source": {"image": {"reference": "m:1"}}, "quantization": quantization}}
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn an_object_that_can_be_read_passes() {
        let Some(Event::Apply(object)) = readable(Event::Apply(guarded("Int8"))) else {
            panic!("not passed")
        };
        assert_eq!(object.metadata.name.as_deref(), Some("smol"));
    }

    #[test]
    fn an_object_of_another_version_is_as_good_as_gone() {
        assert!(readable(Event::InitApply(guarded("Ternary"))).is_none());
        let Some(Event::Delete(object)) = readable(Event::Apply(guarded("Ternary"))) else {
            panic!("not gone")
        };
        assert_eq!(object.metadata.name.as_deref(), Some("smol"));
        assert_eq!(object.metadata.resource_version.as_deref(), Some("7"));
    }
}
