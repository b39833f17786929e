//! Each mistake gives a clear sentence in the right place, and the repaired object heals by itself.

use crate::{NOTICE, READY, talking_model};
use anyhow::{Result, ensure};
use coterie_e2e::TALKING_MODEL;
use coterie_e2e::namespace::Namespace;
use serde_json::{Value, json};

#[tokio::test]
async fn an_invalid_resource_is_refused_at_admission() -> Result<()> {
    let namespace = Namespace::create("e2e-admission").await?;
    let mut spec = talking_model(1);
    spec["model"]["source"]["persistentVolumeClaim"] = json!({"claimName": "weights"});
    let error = namespace.apply("chat", spec).await.expect_err("two sources were taken").to_string();
    ensure!(error.contains("exactly one"), "{error}");
    namespace.delete().await
}

#[tokio::test]
async fn a_missing_image_is_named_and_its_repair_heals() -> Result<()> {
    let namespace = Namespace::create("e2e-image").await?;
    let mut spec = talking_model(1);
    spec["model"]["source"]["image"]["reference"] = json!("localhost/no-such-model:1");
    namespace.apply("chat", spec).await?;
    let ready = namespace.reason("chat", "Ready", "ImageNotPulled", NOTICE).await?;
    names(&ready, "localhost/no-such-model:1")?;
    let repaired = json!({"spec": {"model": {"source": {"image": {"reference": TALKING_MODEL}}}}});
    namespace.patch("chat", repaired).await?;
    namespace.condition("chat", "Ready", "True", READY).await?;
    namespace.delete().await
}

#[tokio::test]
async fn a_missing_claim_is_named() -> Result<()> {
    let namespace = Namespace::create("e2e-claim").await?;
    let mut spec = talking_model(1);
    spec["model"]["source"] = json!({"persistentVolumeClaim": {"claimName": "no-such-claim"}});
    namespace.apply("chat", spec).await?;
    let ready = namespace.reason("chat", "Ready", "ClaimNotFound", NOTICE).await?;
    names(&ready, "no-such-claim")?;
    namespace.delete().await
}

#[tokio::test]
async fn too_much_memory_and_too_many_gpus_are_said_with_a_remedy() -> Result<()> {
    let namespace = Namespace::create("e2e-capacity").await?;
    let mut spec = talking_model(1);
    spec["template"] = json!({"resources": {"limits": {"memory": "64Mi"}}});
    namespace.apply("small", spec).await?;
    let mut spec = talking_model(1);
    spec["accelerator"] = json!({"device": "Gpu", "perRank": 16});
    namespace.apply("gpus", spec).await?;
    for (name, word) in [("small", "64"), ("gpus", "GPU")] {
        let placed = namespace.condition(name, "Placed", "False", READY).await?;
        let message = placed["message"].as_str().unwrap_or_default();
        ensure!(message.contains(word), "{name}: {message}");
        ensure!(namespace.ranks(name).await?.is_empty(), "{name}: a pod was made that can never run");
        println!("{name}: {} {message}", placed["reason"]);
    }
    // Room is made: the same object heals.
    namespace
        .patch("small", json!({"spec": {"template": {"resources": {"limits": {"memory": "4Gi"}}}}}))
        .await?;
    namespace.condition("small", "Ready", "True", READY).await?;
    namespace.delete().await
}

/// Checks that a condition is not true and that its message names the culprit.
fn names(condition: &Value, culprit: &str) -> Result<()> {
    let message = condition["message"].as_str().unwrap_or_default();
    ensure!(condition["status"] == "False" && message.contains(culprit), "{condition}");
    println!("{}: {message}", condition["reason"]);
    Ok(())
}
