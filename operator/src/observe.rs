//! What the operator sees: five watches, each reduced to what decisions need, a look-up of claims and Secrets, and what
//! ranks report.
//!
//! The whole cluster's pods are watched, because what is free on a node depends on all of them; of a foreign pod only
//! its node and its requests are kept.

mod reduced;

use crate::Operator;
use crate::book::{Book, Change, Key};
use crate::certificates::Certificates;
use crate::error::Error;
use crate::loads::Loads;
use crate::options::Options;
use crate::queue::Queue;
use crate::readable::{Guarded, readable};
use crate::reports::Reports;
use crate::scaling::Scalers;
use crate::watch::{Progress, follow};
use crate::written::Write;
use coterie_api::deployment::ModelDeployment;
use coterie_api::name::LABEL_DEPLOYMENT;
use coterie_operator_core::objects::service_names;
use coterie_operator_core::observed::{
    ClaimState, ObservedCertificates, ObservedExperts, ObservedNode, ObservedService, Settings, observe_nodes,
};
use coterie_operator_core::validate::Source;
use coterie_operator_core::{Deployment, Observed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolumeClaim, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{Store, store};
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
pub use reduced::{OwnPod, Router};
use reduced::{PodSeen, labelled, strip_config_map, strip_node, strip_service};
use std::sync::Arc;

/// Everything that is seen.
pub struct Observer {
    client: Client,
    settings: Settings,
    deployments: Store<ModelDeployment>,
    pods: Book<PodSeen>,
    nodes: Book<Node>,
    services: Book<Service>,
    config_maps: Book<ConfigMap>,
    reports: Arc<Reports>,
    rank_loads: Arc<Loads>,
    scalers: Scalers,
    /// Where routers are looked for: anybody may give pods of their own the same labels.
    home: String,
    progress: Progresses,
}

/// How far each watch has come.
#[derive(Default)]
struct Progresses {
    deployments: Arc<Progress>,
    pods: Arc<Progress>,
    nodes: Arc<Progress>,
    services: Arc<Progress>,
    config_maps: Arc<Progress>,
}

impl Observer {
    /// An observer, and the future that keeps its view up to date: it runs until dropped.
    pub fn new(
        operator: &Operator,
        settings: Settings,
        queue: Queue,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send + use<>) {
        let Operator { client, options, health, .. } = operator;
        let load_window = settings.load_window;
        let (deployments, mut writer) = store::<ModelDeployment>();
        let observer = Arc::new(Self {
            client: client.clone(),
            settings,
            deployments,
            pods: Book::default(),
            nodes: Book::default(),
            services: Book::default(),
            config_maps: Book::default(),
            reports: Arc::new(Reports::new(load_window)),
            rank_loads: Arc::default(),
            scalers: Scalers::default(),
            home: options.lease_namespace.clone(),
            progress: Progresses::default(),
        });
        let (seen, progress) = (observer.clone(), &observer.progress);
        let triggers = queue.clone();
        let deployments = follow(
            scoped::<Guarded>(client, options),
            None,
            "watch of ModelDeployments",
            progress.deployments.clone(),
            health.clone(),
            move |event| {
                let Some(event) = readable(event) else { return };
                let event = event.modify(|object| object.metadata.managed_fields = None);
                writer.apply_watcher_event(&event);
                match &event {
                    Event::Apply(object) | Event::Delete(object) => {
                        let (namespace, name) = key(&object.metadata);
                        triggers.one(&namespace, &name);
                    }
                    Event::InitDone => triggers.all(&seen.deployments),
                    Event::Init | Event::InitApply(_) => {}
                }
            },
        );
        let (seen, triggers) = (observer.clone(), queue.clone());
        let pods = follow(
            Api::all(client.clone()),
            None,
            "watch of Pods",
            progress.pods.clone(),
            health.clone(),
            move |event| {
                let change = seen.pods.take(event, |pod| PodSeen::of(&pod));
                seen.tell_of_pods(&triggers, change);
            },
        );
        let (seen, triggers) = (observer.clone(), queue.clone());
        let nodes = follow(
            Api::all(client.clone()),
            None,
            "watch of Nodes",
            progress.nodes.clone(),
            health.clone(),
            move |event| match seen.nodes.take(event, strip_node) {
                Change::One { before, after, .. } if before == after => {}
                Change::None => {}
                Change::One { .. } | Change::All => triggers.nodes_changed(),
            },
        );
        let (seen, triggers) = (observer.clone(), queue.clone());
        let services = follow(
            scoped(client, options),
            None,
            "watch of Services",
            progress.services.clone(),
            health.clone(),
            move |event| {
                let change = seen.services.take(event, strip_service);
                seen.tell_of_services(&triggers, change);
            },
        );
        let (seen, triggers) = (observer.clone(), queue.clone());
        let config_maps = follow(
            scoped(client, options),
            Some(LABEL_DEPLOYMENT),
            "watch of ConfigMaps",
            progress.config_maps.clone(),
            health.clone(),
            move |event| {
                let change = seen.config_maps.take(event, strip_config_map);
                seen.tell_of_config_maps(&triggers, change);
            },
        );
        let (seen, reports) = (observer.clone(), observer.reports.clone());
        let loads = observer.rank_loads.clone();
        let asked = async move {
            let pods = || seen.own_pods();
            let routers = || seen.routers();
            futures::join!(reports.follow(pods, &queue), loads.follow(pods, routers, &queue));
        };
        let follow = async move {
            futures::join!(deployments, pods, nodes, services, config_maps, asked);
        };
        (observer, follow)
    }

    /// The ModelDeployments.
    pub fn deployments(&self) -> &Store<ModelDeployment> {
        &self.deployments
    }

    /// Returns when every watch has listed everything once.
    pub async fn wait_until_complete(&self) {
        let watches = &self.progress;
        let kinds =
            [&watches.deployments, &watches.pods, &watches.nodes, &watches.services, &watches.config_maps];
        for watch in kinds {
            watch.first_list().await;
        }
    }

    /// What there is to know for a plan of `deployment`. Reads the claim from the API server if there is one.
    pub async fn observe(
        &self,
        object: &ModelDeployment,
        deployment: &Deployment,
        certificates: &Certificates,
    ) -> Result<Observed, Error> {
        let mut pods = Vec::new();
        let status = object.status.clone().unwrap_or_default();
        let ranks = deployment.ranks.map_or(status.ranks.unwrap_or(1), u32::cast_signed);
        let mut observed = Observed {
            claim: self.look_up_claim(deployment).await?,
            experts: self.experts_of(deployment),
            certificates: if ranks > 1 {
                certificates.look(&self.client, deployment).await?
            } else {
                ObservedCertificates::NotLooked
            },
            loads: self.reports.loads_of(&deployment.namespace, &deployment.name),
            status,
            settings: self.settings.clone(),
            services: self.services_of(deployment),
            nodes: self.nodes(),
            ..Observed::default()
        };
        self.pods.each(|all| {
            for ((_, name), seen) in all.filter(|((namespace, _), _)| *namespace == deployment.namespace) {
                match &seen.own {
                    Some(own) if own.pod.is_owned_by(&deployment.uid) => pods.push(own.pod.clone()),
                    _ => {
                        observed.taken_names.insert(name.clone());
                    }
                }
            }
        });
        // The book has no order; a plan must not depend on that.
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        observed.reports = self.reports.of(&pods);
        let now = Timestamp::now();
        observed.occupancy = self.rank_loads.of(&pods, now);
        observed.decision = self.scalers.decide(deployment, &observed.status, &pods, &self.rank_loads, now);
        observed.pods = pods;
        Ok(observed)
    }

    /// Whether the watches show `write`.
    pub fn shows(&self, write: &Write) -> bool {
        match write {
            Write::Status(mark) => self.progress.deployments.has_reached(mark),
            Write::Pod(mark) => self.progress.pods.has_reached(mark),
            Write::Service(mark) => self.progress.services.has_reached(mark),
            Write::ConfigMap(mark) => self.progress.config_maps.has_reached(mark),
            Write::ConfigMapDeletion { key, uid } => {
                self.config_maps.get(key).is_none_or(|map| map.metadata.uid.as_ref() != Some(uid))
            }
            Write::Deletion { key, uid } => self
                .pods
                .get(key)
                .and_then(|seen| seen.own)
                .is_none_or(|own| own.pod.uid != *uid || own.pod.terminating.is_some()),
        }
    }

    /// The point at which the watch shows a status of this version.
    pub fn status_written(&self, version: Option<&str>) -> Write {
        Write::Status(self.progress.deployments.mark(version))
    }

    /// The point at which the watch shows a pod of this version.
    pub fn pod_written(&self, version: Option<&str>) -> Write {
        Write::Pod(self.progress.pods.mark(version))
    }

    /// The point at which the watch shows a Service of this version.
    pub fn service_applied(&self, version: Option<&str>) -> Write {
        Write::Service(self.progress.services.mark(version))
    }

    /// The point at which the watch shows a ConfigMap of this version.
    pub fn config_map_written(&self, version: Option<&str>) -> Write {
        Write::ConfigMap(self.progress.config_maps.mark(version))
    }

    async fn look_up_claim(&self, deployment: &Deployment) -> Result<Option<ClaimState>, Error> {
        let Source::Claim { name, .. } = &deployment.source else { return Ok(None) };
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &deployment.namespace);
        let claim = claims.get_opt(name).await;
        let claim = claim.map_err(|cause| Error::ReadClaim { name: name.clone(), cause: Box::new(cause) })?;
        Ok(Some(ClaimState::of(claim.as_ref())))
    }

    fn services_of(&self, deployment: &Deployment) -> Vec<ObservedService> {
        let names = service_names(&deployment.name).into_iter();
        let found = names.filter_map(|name| self.services.get(&(deployment.namespace.clone(), name)));
        found.map(|service| ObservedService::of(service, &deployment.uid)).collect()
    }

    fn experts_of(&self, deployment: &Deployment) -> Vec<ObservedExperts> {
        let mut found: Vec<ConfigMap> = self.config_maps.each(|all| {
            let own = all.filter(|((namespace, _), map)| {
                *namespace == deployment.namespace && labelled(map) == Some(&deployment.name)
            });
            own.map(|(_, map)| map.clone()).collect()
        });
        found.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        found.into_iter().filter_map(|map| ObservedExperts::of(map, &deployment.uid)).collect()
    }

    /// Namespace, and what is kept, of all pods of ModelDeployments.
    fn own_pods(&self) -> Vec<(String, Arc<OwnPod>)> {
        self.pods.each(|all| {
            let own = all.filter_map(|((namespace, _), seen)| Some((namespace.clone(), seen.own.clone()?)));
            own.collect()
        })
    }

    fn routers(&self) -> Vec<Arc<Router>> {
        self.pods.each(|all| {
            let home = all.filter(|((namespace, _), _)| *namespace == self.home);
            home.filter_map(|(_, seen)| seen.router.clone()).collect()
        })
    }

    /// Forgets a ModelDeployment that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.scalers.forget(namespace, name);
    }

    fn nodes(&self) -> Vec<ObservedNode> {
        self.nodes.each(|nodes| {
            self.pods.each(|pods| {
                let mut nodes: Vec<&Node> = nodes.map(|(_, node)| node).collect();
                nodes.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
                observe_nodes(nodes, pods.map(|(_, seen)| &seen.uses))
            })
        })
    }

    fn tell_of_pods(&self, queue: &Queue, change: Change<PodSeen>) {
        match change {
            Change::None => {}
            Change::All => queue.all(&self.deployments),
            Change::One { key: (namespace, _), before, after } => {
                for own in [&before, &after].into_iter().flatten().filter_map(|seen| seen.own.as_ref()) {
                    queue.one(&namespace, &own.deployment);
                }
                if before.as_ref().map(|seen| &seen.uses) != after.as_ref().map(|seen| &seen.uses) {
                    queue.room_changed();
                }
            }
        }
    }

    fn tell_of_config_maps(&self, queue: &Queue, change: Change<ConfigMap>) {
        match change {
            Change::None => {}
            Change::All => queue.all(&self.deployments),
            Change::One { key: (namespace, _), before, after } => {
                if let Some(deployment) = after.as_ref().or(before.as_ref()).and_then(labelled) {
                    queue.one(&namespace, deployment);
                }
            }
        }
    }

    fn tell_of_services(&self, queue: &Queue, change: Change<Service>) {
        match change {
            Change::None => {}
            Change::All => queue.all(&self.deployments),
            Change::One { key: (namespace, service), .. } => {
                // A foreign Service counts as well: it may have, or have had, a name that one of ours needs.
                let deployments = self.deployments.state_filter(|deployment| {
                    let (home, name) = key(&deployment.metadata);
                    home == namespace && service_names(&name).contains(&service)
                });
                for deployment in deployments {
                    queue.one(&namespace, deployment.metadata.name.as_deref().unwrap_or_default());
                }
            }
        }
    }
}

/// The kind `K` where the operator looks for ModelDeployments.
fn scoped<K>(client: &Client, options: &Options) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match &options.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}
