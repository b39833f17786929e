//! What the API server lets in, fills in and shows: the CRD as it is installed, without an operator.

use anyhow::{Context, Result};
use coterie_api::deployment::{DeviceChoice, ModelDeployment};
use coterie_tests::world::World;
use http::Request;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const VALID: &str = "valid";

/// A valid ModelDeployment, changed in one place.
fn changed(world: &World, change: impl Fn(&mut Value)) -> Value {
    let mut deployment = world.deployment(VALID);
    change(&mut deployment);
    deployment
}

async fn accepts(change: impl Fn(&mut Value)) -> Result<()> {
    let world = World::new("admission").await?;
    let deployment = changed(&world, change);
    world.apply(&deployment).await.with_context(|| format!("refused: {deployment:#}"))?;
    Ok(())
}

/// The API server must refuse the change, and its words must contain `words`.
async fn rejects(words: &str, change: impl Fn(&mut Value)) -> Result<()> {
    let world = World::new("admission").await?;
    let deployment = changed(&world, change);
    match world.apply(&deployment).await {
        Ok(_) => anyhow::bail!("accepted: {deployment:#}"),
        Err(kube::Error::Api(status)) => {
            assert!(matches!(status.code, 400 | 422), "{status:?}");
            assert!(status.message.contains(words), "{words:?} is not in {:?}", status.message);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn spec(deployment: &mut Value) -> &mut Value {
    &mut deployment["spec"]
}

#[tokio::test]
async fn accepts_valid() -> Result<()> {
    accepts(|_| {}).await?;
    accepts(|it| {
        it["spec"] = json!({"model": {"source": {"persistentVolumeClaim": {"claimName": "weights"}}}});
    })
    .await?;
    accepts(|it| {
        it["spec"] = json!({
            "model": {
                "servedName": "org/Model-7B_v0.1:x",
                "source": {"persistentVolumeClaim": {"claimName": "weights.v1", "path": "models/mixtral..v1"}},
                "contextLength": 8192, "quantization": "Int8", "speculate": "Mtp"
            },
            "accelerator": {"device": "Gpu", "perRank": 2, "claimTemplate": "two-gpus"},
            "replicas": 0,
            "ranks": 3,
            "experts": {"redundant": 4, "rebalance": "Never", "activations": "Int8"},
            "rollout": {"drainSeconds": 0},
            "template": {
                "labels": {"team": "a"}, "annotations": {"example.com/a": "b"},
                "nodeSelector": {"pool": "gpu"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "resources": {"requests": {"cpu": 2, "memory": "1.5Gi"}, "limits": {"memory": "2Gi"}},
                "priorityClassName": "high", "imagePullSecrets": [{"name": "registry"}]
            }
        });
    })
    .await
}

#[tokio::test]
async fn rejects_a_name_that_does_not_fit_into_pod_names() -> Result<()> {
    rejects("at most 40", |it| it["metadata"]["name"] = json!("a".repeat(41))).await?;
    rejects("at most 40", |it| it["metadata"]["name"] = json!("dotted.name")).await?;
    rejects("starting with a letter", |it| it["metadata"]["name"] = json!("7b")).await?;
    accepts(|it| it["metadata"]["name"] = json!("a".repeat(40))).await
}

#[tokio::test]
async fn rejects_no_source_and_two_sources() -> Result<()> {
    const WORDS: &str = "exactly one of model.source.image and model.source.persistentVolumeClaim";
    rejects(WORDS, |it| spec(it)["model"]["source"] = json!({})).await?;
    rejects(WORDS, |it| {
        spec(it)["model"]["source"]["persistentVolumeClaim"] = json!({"claimName": "weights"});
    })
    .await?;
    rejects("spec.model", |it| spec(it)["model"] = json!({})).await
}

#[tokio::test]
async fn rejects_a_source_that_does_nothing_yet() -> Result<()> {
    let world = World::new("admission").await?;
    let deployment = changed(&world, |it| {
        spec(it)["model"]["source"] = json!({"huggingFace": {"repo": "a/b"}});
    });
    // Strict as kubectl asks for, and lenient as old clients are: unknown fields are then dropped first.
    for (validation, words) in [("Strict", "spec.model.source.huggingFace"), ("Ignore", "exactly one of")] {
        let path = format!(
            "/apis/coterie.dev/v1alpha1/namespaces/{}/modeldeployments?fieldValidation={validation}",
            world.namespace
        );
        let request = Request::post(path)
            .header("Content-Type", "application/json")
            .body(serde_json::to_vec(&deployment)?)?;
        let error = world.client.request::<Value>(request).await.err().context("accepted")?;
        assert!(error.to_string().contains(words), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn rejects_a_served_name_that_urls_cannot_hold() -> Result<()> {
    for name in ["", "two words", "-dash", "slash/"] {
        rejects("servedName", |it| spec(it)["model"]["servedName"] = json!(name)).await?;
    }
    rejects("servedName", |it| spec(it)["model"]["servedName"] = json!("a".repeat(129))).await
}

#[tokio::test]
async fn rejects_a_broken_image_reference() -> Result<()> {
    rejects("reference", |it| spec(it)["model"]["source"]["image"]["reference"] = json!("")).await?;
    rejects("white space", |it| spec(it)["model"]["source"]["image"]["reference"] = json!("a b")).await?;
    rejects("pullPolicy", |it| spec(it)["model"]["source"]["image"]["pullPolicy"] = json!("Sometimes")).await
}

#[tokio::test]
async fn rejects_a_claim_that_cannot_exist_and_a_path_that_leaves_it() -> Result<()> {
    let claim = |claim: Value| {
        move |it: &mut Value| spec(it)["model"]["source"] = json!({"persistentVolumeClaim": claim})
    };
    rejects("kubectl get pvc", claim(json!({"claimName": "Upper"}))).await?;
    rejects("claimName", claim(json!({"claimName": ""}))).await?;
    rejects("relative", claim(json!({"claimName": "w", "path": "/absolute"}))).await?;
    rejects("must not contain ..", claim(json!({"claimName": "w", "path": "a/../b"}))).await
}

#[tokio::test]
async fn rejects_numbers_out_of_range() -> Result<()> {
    rejects("contextLength", |it| spec(it)["model"]["contextLength"] = json!(0)).await?;
    rejects("contextLength", |it| spec(it)["model"]["contextLength"] = json!(2_000_000_000_u64)).await?;
    rejects("replicas", |it| spec(it)["replicas"] = json!(-1)).await?;
    rejects("ranks", |it| spec(it)["ranks"] = json!(0)).await?;
    rejects("ranks", |it| spec(it)["ranks"] = json!(1025)).await?;
    rejects("redundant", |it| spec(it)["experts"] = json!({"redundant": 4097})).await?;
    rejects("drainSeconds", |it| spec(it)["rollout"]["drainSeconds"] = json!(-1)).await?;
    rejects("drainSeconds", |it| spec(it)["rollout"]["drainSeconds"] = json!(86_401)).await?;
    rejects("perRank", |it| spec(it)["accelerator"] = json!({"device": "Gpu", "perRank": 0})).await?;
    rejects("perRank", |it| spec(it)["accelerator"] = json!({"device": "Gpu", "perRank": 17})).await
}

#[tokio::test]
async fn rejects_copies_of_experts_without_a_rank_for_them() -> Result<()> {
    let experts = |ranks: Value, redundant: u32| {
        move |it: &mut Value| {
            spec(it)["ranks"] = ranks.clone();
            spec(it)["experts"] = json!({"redundant": redundant});
        }
    };
    rejects("copies on other ranks", experts(json!(1), 1)).await?;
    accepts(experts(json!(1), 0)).await?;
    accepts(experts(json!(2), 1)).await?;
    accepts(|it| spec(it)["experts"] = json!({"redundant": 4})).await
}

#[tokio::test]
async fn rejects_unknown_choices() -> Result<()> {
    rejects("quantization", |it| spec(it)["model"]["quantization"] = json!("Int2")).await?;
    rejects("device", |it| spec(it)["accelerator"] = json!({"device": "Tpu"})).await?;
    for claim in [json!({"device": "Gpu", "claimTemplate": "a"}), json!({"perRank": 1, "claimTemplate": "a"})]
    {
        rejects("claimTemplate needs device: Gpu", |it| spec(it)["accelerator"] = claim.clone()).await?;
    }
    rejects("model.quantization Int4 is for GPUs only", |it| {
        spec(it)["accelerator"] = json!({"device": "Cpu"});
        spec(it)["model"]["quantization"] = json!("Int4");
    })
    .await?;
    rejects("perRank counts GPUs", |it| spec(it)["accelerator"] = json!({"device": "Cpu", "perRank": 2}))
        .await
}

#[tokio::test]
async fn rejects_a_template_that_takes_what_is_ours() -> Result<()> {
    let key = "coterie.dev/role";
    rejects("belong to the operator", |it| spec(it)["template"]["labels"] = json!({key: "x"})).await?;
    rejects("belong to the operator", |it| spec(it)["template"]["annotations"] = json!({key: "x"})).await?;
    for part in ["requests", "limits"] {
        rejects("accelerator: {device: Gpu, perRank: N}", |it| {
            spec(it)["template"]["resources"] = json!({part: {"nvidia.com/gpu": 1}});
        })
        .await?;
    }
    rejects("resources", |it| {
        spec(it)["template"]["resources"] = json!({"limits": {"memory": "much"}});
    })
    .await
}

#[tokio::test]
async fn rejects_a_request_over_its_limit() -> Result<()> {
    let resources = |value: Value| move |it: &mut Value| spec(it)["template"]["resources"] = value.clone();
    for over in [
        json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "1.5Gi"}}),
        json!({"requests": {"memory": "4096Mi", "cpu": "1"}, "limits": {"memory": "4G"}}),
        json!({"requests": {"cpu": "1500m"}, "limits": {"cpu": 1}}),
        json!({"requests": {"cpu": 3}, "limits": {"memory": "1Gi", "cpu": "2.5"}}),
    ] {
        rejects("a request is more than its limit", resources(over)).await?;
    }
    for within in [
        json!({"requests": {"memory": "1Gi", "cpu": 2}}),
        json!({"limits": {"memory": "1Gi", "cpu": 2}}),
        json!({"requests": {"cpu": 8}, "limits": {"memory": "1Gi"}}),
        json!({"requests": {"memory": "1Gi", "cpu": "2000m"}, "limits": {"memory": "1024Mi", "cpu": 2}}),
        json!({"requests": {"memory": 1_000_000, "cpu": "1e3"}, "limits": {"memory": "1M"}}),
        json!({"requests": {}, "limits": {}}),
    ] {
        accepts(resources(within)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn fills_in_defaults() -> Result<()> {
    let world = World::new("admission").await?;
    let deployment = json!({
        "apiVersion": "coterie.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": VALID},
        "spec": {"model": {"source": {"image": {"reference": "m:1"}}}}
    });
    let spec = world.apply(&deployment).await?.spec;
    assert_eq!(spec.replicas, 1);
    assert_eq!(spec.rollout.drain_seconds, 600);
    assert_eq!((spec.accelerator.device, spec.accelerator.per_rank), (DeviceChoice::Auto, None));
    assert_eq!((spec.ranks, spec.experts.redundant), (None, 0));
    assert_eq!(
        (spec.model.served_name, spec.model.context_length, spec.model.quantization),
        (None, None, None)
    );
    Ok(())
}

#[tokio::test]
async fn scale_subresource_reads_status_and_writes_replicas() -> Result<()> {
    let world = World::new("admission").await?;
    world.apply(&world.deployment(VALID)).await?;
    let api = world.api::<ModelDeployment>();
    let status = json!({"status": {"replicas": 1, "readyReplicas": 1, "selector": "a=b"}});
    api.patch_status(VALID, &PatchParams::default(), &Patch::Merge(status)).await?;
    let scale = api.get_scale(VALID).await?;
    let status = scale.status.context("no status")?;
    assert_eq!((status.replicas, status.selector.as_deref()), (1, Some("a=b")));
    api.patch_scale(VALID, &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}}))).await?;
    assert_eq!(world.read(VALID).await?.spec.replicas, 3);
    Ok(())
}

#[tokio::test]
async fn rejects_replicas_beside_scaling() -> Result<()> {
    const WORDS: &str = "scaling decides how many replicas there are";
    rejects(WORDS, |it| {
        spec(it)["replicas"] = json!(2);
        spec(it)["scaling"] = json!({"maxReplicas": 4});
    })
    .await?;
    rejects(WORDS, |it| {
        spec(it)["replicas"] = json!(0);
        spec(it)["scaling"] = json!({"maxReplicas": 4});
    })
    .await?;
    accepts(|it| {
        spec(it).as_object_mut().map(|spec| spec.remove("replicas"));
        spec(it)["scaling"] = json!({"maxReplicas": 4});
    })
    .await
}

#[tokio::test]
async fn rejects_scaling_that_makes_no_sense() -> Result<()> {
    let scaling = |value: Value| {
        move |it: &mut Value| {
            spec(it).as_object_mut().map(|spec| spec.remove("replicas"));
            spec(it)["scaling"] = value.clone();
        }
    };
    rejects("lower the one or raise the other", scaling(json!({"minReplicas": 3, "maxReplicas": 2}))).await?;
    rejects("maxReplicas", scaling(json!({"minReplicas": 0}))).await?;
    rejects("maxReplicas", scaling(json!({"minReplicas": 0, "maxReplicas": 0}))).await?;
    rejects("maxReplicas", scaling(json!({"maxReplicas": 1001}))).await?;
    rejects("minReplicas", scaling(json!({"minReplicas": -1, "maxReplicas": 1}))).await?;
    rejects("idleSeconds", scaling(json!({"maxReplicas": 1, "idleSeconds": 0}))).await?;
    rejects("quietSeconds", scaling(json!({"maxReplicas": 1, "quietSeconds": 86_401}))).await?;
    rejects("ttftMilliseconds", scaling(json!({"maxReplicas": 1, "slo": {"ttftMilliseconds": 0}}))).await?;
    for target in [json!(0), json!(100_001), json!("8"), json!("some")] {
        rejects("1 to 100000, or Auto", scaling(json!({"maxReplicas": 1, "queueDepth": {"target": target}})))
            .await?;
    }
    for target in [json!(8), json!("Auto"), json!("auto")] {
        accepts(scaling(json!({
            "minReplicas": 0, "maxReplicas": 4, "queueDepth": {"target": target},
            "slo": {"ttftMilliseconds": 500, "itlMilliseconds": 100}, "idleSeconds": 60, "quietSeconds": 0
        })))
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn fills_in_what_scaling_leaves_out() -> Result<()> {
    let world = World::new("admission").await?;
    let deployment = changed(&world, |it| {
        spec(it).as_object_mut().map(|spec| spec.remove("replicas"));
        spec(it)["scaling"] = json!({"maxReplicas": 4});
    });
    world.apply(&deployment).await?;
    let path = format!("/apis/coterie.dev/v1alpha1/namespaces/{}/modeldeployments/{VALID}", world.namespace);
    let stored: Value = world.client.request(Request::get(path).body(Vec::new())?).await?;
    assert_eq!(
        stored["spec"]["scaling"],
        json!({
            "minReplicas": 1, "maxReplicas": 4, "queueDepth": {"target": "Auto"},
            "slo": {"ttftMilliseconds": 2000, "itlMilliseconds": 50}, "idleSeconds": 600
        })
    );
    Ok(())
}

#[tokio::test]
async fn the_scale_subresource_is_refused_where_scaling_decides() -> Result<()> {
    let world = World::new("admission").await?;
    let deployment = changed(&world, |it| {
        spec(it).as_object_mut().map(|spec| spec.remove("replicas"));
        spec(it)["scaling"] = json!({"maxReplicas": 4});
    });
    world.apply(&deployment).await?;
    let api = world.api::<ModelDeployment>();
    // What kubectl scale sends, and what an autoscaler does: read, then write.
    let patch = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let refused = api.patch_scale(VALID, &PatchParams::default(), &patch).await.err().context("accepted")?;
    assert!(refused.to_string().contains("scaling decides how many replicas there are"), "{refused}");
    let scale = api.get_scale(VALID).await?;
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(1), "it can still be read");
    // Without scaling it is open again.
    let without = Patch::Merge(json!({"spec": {"scaling": null}}));
    api.patch(VALID, &PatchParams::default(), &without).await?;
    api.patch_scale(VALID, &PatchParams::default(), &patch).await?;
    assert_eq!(world.read(VALID).await?.spec.replicas, 3);
    Ok(())
}

#[tokio::test]
async fn status_is_only_written_by_its_subresource() -> Result<()> {
    let world = World::new("admission").await?;
    let mut deployment = world.deployment(VALID);
    deployment["status"] = json!({"replicas": 9});
    let applied = world.apply(&deployment).await?;
    assert!(applied.status.is_none_or(|status| status.replicas == 0));
    Ok(())
}

#[tokio::test]
async fn table_shows_the_columns() -> Result<()> {
    let world = World::new("admission").await?;
    world.apply(&world.deployment(VALID)).await?;
    let path = format!("/apis/coterie.dev/v1alpha1/namespaces/{}/modeldeployments", world.namespace);
    let request = Request::get(path)
        .header("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
        .body(Vec::new())?;
    let table: Value = world.client.request(request).await?;
    let columns = table["columnDefinitions"].as_array().context("no columns")?;
    let names = |wide: bool| -> Vec<&str> {
        let shown = columns.iter().filter(|column| (column["priority"].as_i64() == Some(1)) == wide);
        shown.filter_map(|column| column["name"].as_str()).collect()
    };
    assert_eq!(names(false), ["Name", "Ready", "Reason", "Replicas", "Ranks", "Experts", "Queue", "Age"]);
    assert_eq!(names(true), ["Model", "Quantization", "Context", "Digest"]);
    Ok(())
}

#[tokio::test]
async fn discovery_tells_the_short_name_and_the_categories() -> Result<()> {
    let world = World::new("admission").await?;
    let resources = world.client.list_api_group_resources("coterie.dev/v1alpha1").await?;
    let resource =
        resources.resources.iter().find(|it| it.name == "modeldeployments").context("no resource")?;
    assert_eq!(resource.short_names.as_deref(), Some(&["mdep".to_owned()][..]));
    let mut categories = resource.categories.clone().unwrap_or_default();
    categories.sort();
    assert_eq!(categories, ["ai", "all"]);
    assert!(resources.resources.iter().any(|it| it.name == "modeldeployments/scale"));
    Ok(())
}
