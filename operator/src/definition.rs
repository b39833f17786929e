//! The CRD that is installed, beside the one that this operator was built with.
//!
//! They differ when one of the two was upgraded alone, as with `crds.install=false`: then the API server refuses
//! what it does not know. The operator goes on, since what both know works; but it is not ready. So a rollout of the
//! operator stops at the first new pod, and the old one, which fits the CRD, keeps the Lease.

use crate::error::words;
use crate::metrics::Metrics;
use coterie_api::deployment::{ModelDeployment, crd};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use kube::{Api, Client, CustomResourceExt, Resource};
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// Between two looks while something is wrong.
const AGAIN: Duration = Duration::from_secs(10);
/// Many doubts at the same time are one look.
const TOGETHER: Duration = Duration::from_secs(1);
/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What to do when the CRD is not the one that is needed.
pub const REMEDY: &str = "install the CRD of this operator's version: helm upgrade with crds.install=true, or \
                          kubectl apply --server-side -f crds/";

/// Whether the installed CRD is the one that this operator was built with.
#[derive(Debug)]
pub struct Definition {
    trouble: Mutex<Option<String>>,
    doubt: Notify,
}

impl Default for Definition {
    fn default() -> Self {
        let trouble = "the installed CRD was not compared with the operator's own yet".to_owned();
        Self { trouble: Mutex::new(Some(trouble)), doubt: Notify::new() }
    }
}

impl Definition {
    /// What is wrong with the installed CRD and what to do about it; `None` when nothing is.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The API server did not take what the CRD should let in: time for another look.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Looks at the start, upon a doubt, and again and again while something is wrong; runs until dropped.
    pub async fn follow(&self, client: Client, metrics: &Metrics) {
        let crds = Api::all(client);
        loop {
            let trouble = look(&crds).await;
            metrics.crd_matches(trouble.is_none());
            let is_wrong = trouble.is_some();
            self.note(trouble);
            if is_wrong {
                // A doubt is over after the next look just as well.
                let _ = timeout(AGAIN, self.doubt.notified()).await;
            } else {
                self.doubt.notified().await;
            }
            sleep(TOGETHER).await;
        }
    }

    /// Logs only what is news.
    fn note(&self, trouble: Option<String>) {
        let mut known = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != trouble {
            match &trouble {
                Some(trouble) => tracing::error!("{trouble}"),
                None => tracing::info!("the installed CRD is the one that this operator was built with"),
            }
        }
        *known = trouble;
    }
}

async fn look(crds: &Api<CustomResourceDefinition>) -> Option<String> {
    let name = ModelDeployment::crd_name();
    match timeout(LIMIT, crds.get_opt(name)).await {
        Err(_) => Some(format!("the CRD {name} could not be read: no answer; it is tried again")),
        Ok(Err(error)) => {
            Some(format!("the CRD {name} could not be read: {}; it is tried again", words(&error)))
        }
        Ok(Ok(None)) => Some(format!("the CRD {name} is not installed; {REMEDY}")),
        Ok(Ok(Some(installed))) => difference(&installed).map(|place| {
            format!("the installed CRD {name} is not the one that this operator was built with: it differs in {place}; {REMEDY}")
        }),
    }
}

/// The first place at which the installed definition lets in, keeps or serves something else than ours.
fn difference(installed: &CustomResourceDefinition) -> Option<String> {
    let ours = crd();
    let version = ModelDeployment::version(&());
    let of = |crd: &CustomResourceDefinition| {
        let found = crd.spec.versions.iter().find(|it| it.name == version && it.served).cloned();
        found.map(|version| essence(&version))
    };
    match of(installed) {
        None => Some(format!("version {version}, which it does not serve")),
        Some(theirs) => first_difference(&theirs, &of(&ours).unwrap_or_default(), ""),
    }
}

/// What decides over objects; columns and words do not.
fn essence(version: &CustomResourceDefinitionVersion) -> Value {
    let schema = version.schema.as_ref().and_then(|it| it.open_api_v3_schema.as_ref());
    let mut schema = json!(schema);
    drop_words(&mut schema);
    json!({"subresources": version.subresources, "schema": schema})
}

fn drop_words(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // A field of that name has a schema and no text.
            fields.retain(|key, value| key != "description" || !value.is_string());
            fields.values_mut().for_each(drop_words);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_words),
        _ => {}
    }
}

fn first_difference(one: &Value, other: &Value, at: &str) -> Option<String> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let extra = other.keys().filter(|key| !one.contains_key(*key));
            one.keys().chain(extra).find_map(|key| {
                let field = |of: &serde_json::Map<String, Value>| of.get(key).cloned().unwrap_or_default();
                // `.schema.properties.spec.properties.replicas` is `.spec.replicas` to people.
                let at = if matches!(key.as_str(), "schema" | "properties") {
                    at.to_owned()
                } else {
                    format!("{at}.{key}")
                };
                first_difference(&field(one), &field(other), &at)
            })
        }
        _ => (one != other).then(|| at.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(change: impl Fn(&mut Value)) -> Option<String> {
        let mut crd = json!(crd());
        change(&mut crd["spec"]["versions"][0]);
        difference(&serde_json::from_value(crd).unwrap())
    }

    fn fields<'a>(version: &'a mut Value, part: &str) -> &'a mut Value {
        &mut version["schema"]["openAPIV3Schema"]["properties"][part]["properties"]
    }

    #[test]
    fn our_own_definition_is_the_same_whatever_its_words_and_columns() {
        assert_eq!(changed(|_| {}), None);
        assert_eq!(changed(|it| fields(it, "spec")["replicas"]["description"] = json!("Other words")), None);
        assert_eq!(changed(|it| it["additionalPrinterColumns"] = json!([])), None);
    }

    #[test]
    fn the_first_difference_is_named() {
        let dropped = changed(|it| {
            fields(it, "status").as_object_mut().unwrap().remove("endpoint");
        });
        assert_eq!(dropped.as_deref(), Some(".status.endpoint"));
        let added = changed(|it| fields(it, "spec")["later"] = json!({"type": "string"}));
        assert_eq!(added.as_deref(), Some(".spec.later"));
        let narrowed = changed(|it| fields(it, "spec")["replicas"]["maximum"] = json!(3.0));
        assert_eq!(narrowed.as_deref(), Some(".spec.replicas.maximum"));
        let scale = changed(|it| it["subresources"] = json!({"status": {}}));
        assert_eq!(scale.as_deref(), Some(".subresources.scale"));
        let unserved = changed(|it| it["served"] = json!(false));
        assert_eq!(unserved.as_deref(), Some("version v1alpha1, which it does not serve"));
    }
}
