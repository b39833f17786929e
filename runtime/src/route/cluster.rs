//! The table from a cluster: ModelDeployments, and the EndpointSlices of their Services, which are named like them. Only
//! listed and watched. While the API server is away, the table stays as it was.

use super::rank_client::chain;
use super::table::{Model, ModelKey, Table};
use coterie_api::name::{GROUP, KIND, LABEL_DEPLOYMENT, PLURAL, PORT_HTTP, VERSION};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::{ApiResource, GroupVersionKind, NotUsed, Object};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Label of an EndpointSlice: the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A ModelDeployment, as far as it matters here: whatever else a version of it holds, it can be read.
type ModelDeployment = Object<Spec, NotUsed>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    model: ModelSpec,
    scaling: Option<Scaling>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Scaling {
    slo: Slo,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Slo {
    ttft_milliseconds: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ModelSpec {
    served_name: Option<String>,
}

/// One kind's objects, by namespace and name.
#[derive(Debug)]
struct Kept<T> {
    objects: BTreeMap<(String, String), T>,
    /// What of a list has come that is not whole yet, by watch.
    listing: BTreeMap<usize, BTreeMap<(String, String), T>>,
    /// Watches that have listed once.
    listed: BTreeSet<usize>,
    /// Which watch told of an object.
    watch_of: BTreeMap<(String, String), usize>,
}

/// What matters of a ModelDeployment.
#[derive(Debug)]
struct Known {
    served_name: String,
    made: Option<i64>,
    ttft: Option<Duration>,
}

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    models: Kept<Known>,
    /// The Service, and the addresses of its ready endpoints.
    slices: Kept<(String, BTreeSet<String>)>,
}

/// The cluster that the environment names: the one that this pod is in, or the kubeconfig's.
pub async fn connect() -> Result<Client, String> {
    Client::try_default().await.map_err(|error| chain(&error))
}

/// Tells the table, and each that follows it, of these `namespaces` or, if there are none, of all; until dropped.
pub async fn follow(client: Client, namespaces: &[String], tell: impl Fn(Table)) {
    let scopes: Vec<Option<&str>> = match namespaces {
        [] => vec![None],
        some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
    };
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, KIND), PLURAL);
    let seen = Mutex::new(Seen::default());
    let publish = |seen: &Seen| {
        if seen.models.listed.len() == scopes.len() && seen.slices.listed.len() == scopes.len() {
            tell(table(seen));
        }
    };
    let follow_one = |(watch, scope): (usize, &Option<&str>)| {
        let models: Api<ModelDeployment> = match scope {
            None => Api::all_with(client.clone(), &resource),
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        };
        let slices: Api<EndpointSlice> = match scope {
            None => Api::all(client.clone()),
            Some(namespace) => Api::namespaced(client.clone(), namespace),
        };
        // A Service's labels are on its EndpointSlices, too; all others stay out of our memory.
        let ours = Config::default().labels(LABEL_DEPLOYMENT);
        let (seen, publish) = (&seen, &publish);
        async move {
            let take_model = |heard: Heard<ModelDeployment>| {
                let mut seen = lock(seen);
                seen.models.take(watch, heard.map(&|model| Some(known(model))));
                publish(&seen);
            };
            let take_slice = |heard: Heard<EndpointSlice>| {
                let mut seen = lock(seen);
                seen.slices.take(watch, heard.map(&ready_addresses));
                publish(&seen);
            };
            tokio::join!(
                events(models, Config::default(), "ModelDeployments", take_model),
                events(slices, ours, "EndpointSlices", take_slice),
            )
        }
    };
    join_all(scopes.iter().enumerate().map(follow_one)).await;
}

/// One event, of which only the value that matters is kept; without a value the object is none of ours.
#[derive(Debug)]
enum Told<T> {
    ListBegins,
    Listed((String, String), Option<T>),
    ListDone,
    Is((String, String), Option<T>),
}

struct Heard<K>(Event<K>);

impl<K: Resource> Heard<K> {
    fn map<T>(self, value: &dyn Fn(&K) -> Option<T>) -> Told<T> {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match self.0 {
            Event::Init => Told::ListBegins,
            Event::InitApply(object) => Told::Listed(key(&object), value(&object)),
            Event::InitDone => Told::ListDone,
            Event::Apply(object) => Told::Is(key(&object), value(&object)),
            Event::Delete(object) => Told::Is(key(&object), None),
        }
    }
}

async fn events<K>(api: Api<K>, config: Config, what: &'static str, mut take: impl FnMut(Heard<K>))
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let events = watcher(api, config).inspect_err(|error| {
        tracing::warn!(
            error = chain(error),
            what,
            "a watch failed and is tried again; the table stays as it was"
        );
    });
    let mut events = pin!(events.default_backoff());
    while let Some(event) = events.next().await {
        if let Ok(event) = event {
            take(Heard(event));
        }
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept {
            objects: BTreeMap::new(),
            listing: BTreeMap::new(),
            listed: BTreeSet::new(),
            watch_of: BTreeMap::new(),
        }
    }
}

impl<T> Kept<T> {
    fn take(&mut self, watch: usize, told: Told<T>) {
        match told {
            Told::ListBegins => {
                self.listing.insert(watch, BTreeMap::new());
            }
            Told::Listed(key, Some(value)) => {
                self.listing.entry(watch).or_default().insert(key, value);
            }
            Told::Listed(_, None) => {}
            Told::ListDone => {
                let (objects, watch_of) = (&mut self.objects, &mut self.watch_of);
                objects.retain(|key, _| watch_of.get(key) != Some(&watch));
                for (key, value) in self.listing.remove(&watch).unwrap_or_default() {
                    watch_of.insert(key.clone(), watch);
                    objects.insert(key, value);
                }
                self.listed.insert(watch);
            }
            Told::Is(key, Some(value)) => {
                self.watch_of.insert(key.clone(), watch);
                self.objects.insert(key, value);
            }
            Told::Is(key, None) => {
                self.watch_of.remove(&key);
                self.objects.remove(&key);
            }
        }
    }
}

fn known(model: &ModelDeployment) -> Known {
    let slo = model.spec.scaling.as_ref().map(|scaling| &scaling.slo);
    let ttft = slo.and_then(|slo| slo.ttft_milliseconds);
    Known {
        served_name: model.spec.model.served_name.clone().unwrap_or_else(|| model.name_any()),
        made: model.creation_timestamp().map(|time| time.0.as_second()),
        ttft: ttft.map(|milliseconds| Duration::from_millis(milliseconds.into())),
    }
}

/// The Service that a slice is of, and where it says that requests may go.
fn ready_addresses(slice: &EndpointSlice) -> Option<(String, BTreeSet<String>)> {
    let service = slice.labels().get(SERVICE_NAME)?.clone();
    let http = slice.ports.iter().flatten().find(|port| port.name.as_deref() == Some(PORT_HTTP))?.port?;
    // Ready is what is not said not to be.
    let ready = slice.endpoints.iter().filter(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
    });
    let addresses = ready.filter_map(|endpoint| endpoint.addresses.first()).map(|address| {
        if address.contains(':') { format!("[{address}]:{http}") } else { format!("{address}:{http}") }
    });
    Some((service, addresses.collect()))
}

fn table(seen: &Seen) -> Table {
    let mut ranks: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    for ((namespace, _), (service, addresses)) in &seen.slices.objects {
        ranks.entry((namespace, service)).or_default().extend(addresses.iter().cloned());
    }
    let model = |((namespace, name), known): (&(String, String), &Known)| Model {
        key: ModelKey { namespace: namespace.clone(), name: name.clone() },
        served_name: known.served_name.clone(),
        made: known.made,
        ttft: known.ttft,
        ranks: ranks.get(&(namespace.as_str(), name.as_str())).cloned().unwrap_or_default(),
    };
    Table { models: seen.models.objects.iter().map(model).collect() }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
