//! The certificates by which ranks trust each other change while they work.

use super::{address, joined_again, ready, report, says, uids};
use crate::{NOTICE, READY};
use anyhow::{Context, Result, ensure};
use coterie_api::name;
use coterie_e2e::chat::question;
use coterie_e2e::load::Load;
use coterie_e2e::namespace::{Namespace, is_ready};
use coterie_e2e::wait::until;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Event, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::time::{Duration, Instant};

/// The certificates that `cargo xtask test` has the operator make are valid for 90 s, and the next ones take over at 60.
const LIFE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn certificates_change_under_load() -> Result<()> {
    let (namespace, ranks) = ready("e2e-certificates", 2).await?;
    // They were made before this.
    let made = Instant::now();
    let expected = says(&ranks[0], "Count to five.").await?;
    let first = certificate(&namespace).await?;
    let body = question("chat", "Name three colours.", 12);
    let loads =
        ranks.iter().map(|pod| Ok(Load::start(&address(pod)?, &body, 1))).collect::<Result<Vec<_>>>()?;
    until("the next certificate", LIFE * 2, || async {
        let now = certificate(&namespace).await?;
        Ok(if now == first { Err("the first one".to_owned()) } else { Ok(()) })
    })
    .await?;
    // Until the first one is worth nothing any more.
    tokio::time::sleep((LIFE + Duration::from_secs(10)).saturating_sub(made.elapsed())).await;
    for pod in &ranks {
        let peers = report(pod).await?["peers"].clone();
        ensure!(peers[0]["state"] == "Alive", "{}: {peers}", pod.name_any());
    }
    for load in loads {
        println!("{} requests answered by one rank meanwhile", load.finish_without_failure().await?);
    }

    damaged_ones_are_made_anew(&namespace).await?;

    // A rank that comes now has only certificates of now, and must be let in.
    namespace.pods().delete("chat-0-1", &DeleteParams::default().grace_period(0)).await?;
    let again = until("the pod to be replaced", READY, || async {
        let pods = namespace.ranks("chat").await?;
        let new = pods.len() == 2 && uids(&pods) != uids(&ranks) && pods.iter().all(is_ready);
        Ok(if new { Ok(pods) } else { Err(format!("{} pods", pods.len())) })
    })
    .await?;
    joined_again(&again[0]).await?;
    ensure!(says(&again[1], "Count to five.").await? == expected);
    namespace.delete().await
}

/// Somebody writes something else over the key. Where the next certificates happen to take over just then, the damage is
/// gone with the old ones and nobody needs to be told; so it is done until somebody is.
async fn damaged_ones_are_made_anew(namespace: &Namespace) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let events: Api<Event> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let damage = Patch::Merge(json!({"stringData": {name::TLS_KEY_FILE: "no key"}}));
    let begun = Instant::now();
    until("an Event that tells of damaged certificates", NOTICE * 3, || async {
        let seen = events.list(&ListParams::default()).await?.items;
        if seen.iter().any(|event| event.reason.as_deref() == Some("CertificatesReplaced")) {
            return Ok(Ok(()));
        }
        secrets.patch("chat-exchange-tls", &PatchParams::default(), &damage).await?;
        Ok(Err(format!("{} Events", seen.len())))
    })
    .await?;
    until("the certificates to be made anew", NOTICE * 2, || async {
        let secret = secrets.get("chat-exchange-tls").await?.data.unwrap_or_default();
        let key = secret.get(name::TLS_KEY_FILE).context("no key")?;
        Ok(if key.0 == b"no key" { Err("the damaged key".to_owned()) } else { Ok(()) })
    })
    .await?;
    println!("made anew {:?} after the key was damaged", begun.elapsed());
    Ok(())
}

async fn certificate(namespace: &Namespace) -> Result<ByteString> {
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let secret = secrets.get("chat-exchange-tls").await?.data.unwrap_or_default();
    secret.get(name::TLS_CERTIFICATE_FILE).cloned().context("no certificate in the Secret")
}
