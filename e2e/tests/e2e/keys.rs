//! API keys of the front door: a Secret says who may ask, and how much, also while it changes.

use crate::front_door::{asked, front_door, routers};
use crate::{NOTICE, deploy};
use anyhow::{Context, Result, ensure};
use coterie_e2e::namespace::Namespace;
use coterie_e2e::wait::until;
use coterie_e2e::{helm, operator};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const SECRET: &str = "e2e-api-keys";
const ANA: &str = "coterie-e2e-ana";
const BEN: &str = "coterie-e2e-ben";
/// `printf %s KEY | sha256sum`
const ANA_HASH: &str = "61d16863782d76d958ae945955a7b0b8f430b425f76372cc683801a3480643af";
const BEN_HASH: &str = "49551643a4391aaa0a5c6393b825e7d3fec95ab4265c1602c4e38be02ccc223d";
/// The kubelet looks once a minute, or a little later, what a mounted Secret has become.
const MOUNTED_ANEW: Duration = Duration::from_secs(150);

#[tokio::test]
async fn api_keys_say_who_may_ask_and_how_much() -> Result<()> {
    let namespace = Namespace::create("e2e-keys").await?;
    deploy(&namespace, 1).await?;
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), operator::NAMESPACE);
    let secret = secret(&[
        ("ana", format!("sha256: {ANA_HASH}\nrequestsPerMinute: 2\n")),
        ("ben", format!("sha256: {BEN_HASH}\n")),
    ])?;
    secrets.create(&PostParams::default(), &secret).await?;
    with_keys_from(SECRET)?;
    let seen = keys_count(&namespace, &secrets).await;
    // Before the verdict: the other tests have no key.
    with_keys_from("")?;
    secrets.delete(SECRET, &DeleteParams::default()).await?;
    seen?;
    until("the front door to be open again", NOTICE, || async {
        let (status, ..) = reply(&namespace, None).await?;
        Ok(if status == StatusCode::OK { Ok(()) } else { Err(status.to_string()) })
    })
    .await?;
    namespace.delete().await
}

async fn keys_count(namespace: &Namespace, secrets: &Api<Secret>) -> Result<()> {
    // kube-proxy learns a moment later which routers are left.
    refused_by_both(namespace, None, NOTICE).await?;
    for stranger in [None, Some("coterie-e2e-cleo"), Some("")] {
        let (status, answer, _) = reply(namespace, stranger).await?;
        ensure!(status == StatusCode::UNAUTHORIZED, "{stranger:?}: {status} {answer}");
        ensure!(answer["error"]["code"] == "invalid_api_key", "{answer}");
    }
    ensure!(reply(namespace, Some(ANA)).await?.0 == StatusCode::OK, "ana may ask");
    // Each router counts for itself.
    let mut refused = None;
    for _ in 0..2 * 2 {
        let (status, answer, again) = reply(namespace, Some(ANA)).await?;
        if status != StatusCode::OK {
            refused = Some((status, answer, again));
            break;
        }
    }
    let (status, answer, again) = refused.context("ana asked more often than she may")?;
    println!("ana's limit: {status} {}, again after {again:?} s", answer["error"]["message"]);
    ensure!(status == StatusCode::TOO_MANY_REQUESTS, "{status} {answer}");
    ensure!(again.is_some_and(|seconds| (1..=60).contains(&seconds)), "Retry-After: {again:?}");
    ensure!(reply(namespace, Some(BEN)).await?.0 == StatusCode::OK, "ben has no limit");

    // Ben's key is taken back while the routers run.
    let before = uids(namespace).await?;
    secrets
        .replace(
            SECRET,
            &PostParams::default(),
            &secret(&[("ana", format!("sha256: {ANA_HASH}\nrequestsPerMinute: 2\n"))])?,
        )
        .await?;
    refused_by_both(namespace, Some(BEN), MOUNTED_ANEW).await?;
    ensure!(uids(namespace).await? == before, "a router was replaced");
    Ok(())
}

/// Waits until whoever asks with this key is told that it is none, by whichever router.
async fn refused_by_both(namespace: &Namespace, key: Option<&str>, limit: Duration) -> Result<()> {
    until(&format!("{key:?} to be no key"), limit, || async {
        for _ in 0..6 {
            let (status, ..) = reply(namespace, key).await?;
            if status != StatusCode::UNAUTHORIZED {
                return Ok(Err(status.to_string()));
            }
        }
        Ok(Ok(()))
    })
    .await
}

/// What the front door answers to a caller with this key: status, body, and seconds of `Retry-After`.
async fn reply(namespace: &Namespace, key: Option<&str>) -> Result<(StatusCode, Value, Option<u64>)> {
    let door = front_door(namespace).await?;
    // With connections of its own, so that either router may be asked.
    let mut request = reqwest::Client::new().post(format!("{door}/v1/chat/completions"));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let response = request.json(&asked(namespace, "Say hello.", 4)).send().await?;
    let again = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    Ok((response.status(), response.json().await?, again))
}

fn with_keys_from(secret: &str) -> Result<()> {
    let value = format!("frontDoor.keysSecret={secret}");
    let chart = helm::chart()?;
    helm::run(&["upgrade", "coterie", &chart, "--reuse-values", "--set", &value, "--wait"], "")?;
    Ok(())
}

fn secret(keys: &[(&str, String)]) -> Result<Secret> {
    let keys: serde_json::Map<_, _> =
        keys.iter().map(|(name, rule)| ((*name).to_owned(), json!(rule))).collect();
    Ok(serde_json::from_value(json!({"metadata": {"name": SECRET}, "stringData": keys}))?)
}

async fn uids(namespace: &Namespace) -> Result<BTreeSet<String>> {
    let routers = routers(namespace).await?;
    let staying = routers.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(staying.filter_map(ResourceExt::uid).collect())
}
