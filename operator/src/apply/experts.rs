//! Writes the ConfigMaps of replicas.

use super::Failure;
use crate::controller::Context;
use crate::error::{Error, is_refusal, words};
use crate::written::Write;
use coterie_api::name::FIELD_MANAGER;
use coterie_operator_core::Deployment;
use coterie_operator_core::plan::Deletion;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};

/// Creates by POST and not by an apply: an apply to a name that is taken would change somebody else's.
pub(super) async fn create(
    context: &Context,
    deployment: &Deployment,
    map: &ConfigMap,
) -> Result<(), Failure> {
    let (maps, name) = (api(context, deployment), name(map));
    context.operator.metrics.wrote("create", "ConfigMap");
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let failed = |error| Failure::of_write(error, || format!("ConfigMap {name}"));
    let created = match maps.create(&params, map).await {
        Ok(created) => created,
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let Some(found) = maps.get_opt(name).await.map_err(failed)? else { return Ok(()) };
            super::ours(&found.metadata, deployment, "ConfigMap")?;
            found
        }
        Err(error) => return Err(failed(error)),
    };
    tracing::info!(config_map = name, "created");
    note(context, deployment, &created);
    Ok(())
}

/// By server-side apply to the one with the uid that was seen.
pub(super) async fn apply(
    context: &Context,
    deployment: &Deployment,
    map: &ConfigMap,
) -> Result<(), Failure> {
    let (maps, name) = (api(context, deployment), name(map));
    context.operator.metrics.wrote("patch", "ConfigMap");
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match maps.patch(name, &params, &Patch::Apply(map)).await {
        Ok(applied) => {
            tracing::info!(config_map = name, "applied");
            note(context, deployment, &applied);
            Ok(())
        }
        // Gone, or another one of that name: the watch tells.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(Failure::of_write(error, || format!("ConfigMap {name}"))),
    }
}

pub(super) async fn delete(
    context: &Context,
    deployment: &Deployment,
    deletion: &Deletion,
) -> Result<(), Failure> {
    let maps = api(context, deployment);
    let preconditions = Preconditions {
        uid: Some(deletion.uid.clone()),
        resource_version: Some(deletion.resource_version.clone()),
    };
    context.operator.metrics.wrote("delete", "ConfigMap");
    let params = DeleteParams::default().preconditions(preconditions);
    match maps.delete(&deletion.name, &params).await {
        Ok(_) => {
            tracing::info!(config_map = deletion.name, why = deletion.why, "deleted");
            let key = (deployment.namespace.clone(), deletion.name.clone());
            context.note(deployment, Write::ConfigMapDeletion { key, uid: deletion.uid.clone() });
            Ok(())
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) if is_refusal(&error) => Err(Failure::Refused(words(&error))),
        Err(error) => {
            let object = format!("ConfigMap {}", deletion.name);
            Err(Failure::Failed(Error::Delete { object, cause: Box::new(error) }))
        }
    }
}

fn api(context: &Context, deployment: &Deployment) -> Api<ConfigMap> {
    Api::namespaced(context.operator.client.clone(), &deployment.namespace)
}

fn name(map: &ConfigMap) -> &str {
    map.metadata.name.as_deref().unwrap_or_default()
}

fn note(context: &Context, deployment: &Deployment, written: &ConfigMap) {
    let version = written.metadata.resource_version.as_deref();
    context.note(deployment, context.observer.config_map_written(version));
}
