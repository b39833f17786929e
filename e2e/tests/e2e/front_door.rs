//! One endpoint for all models: a model that comes up from zero, a stream whose rank is killed, and clients that notice
//! none of what happens behind it.

use crate::{NOTICE, READY, deploy, talking_model};
use anyhow::{Context, Result, ensure};
use coterie_api::name;
use coterie_e2e::chat::{Answer, ask, question, stream};
use coterie_e2e::load::Load;
use coterie_e2e::namespace::Namespace;
use coterie_e2e::operator;
use coterie_e2e::wait::until;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const ROUTERS: &str = "app.kubernetes.io/name=coterie,app.kubernetes.io/component=front-door";

/// `http://ADDRESS` of the front door's Service.
pub async fn front_door(namespace: &Namespace) -> Result<String> {
    let services: Api<Service> = Api::namespaced(namespace.client.clone(), operator::NAMESPACE);
    let service = services.get("coterie-front-door").await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no address")?;
    Ok(format!("http://{address}"))
}

/// The ModelDeployment `chat` of a namespace, as clients of the front door call it.
pub fn asked(namespace: &Namespace, content: &str, max_tokens: u32) -> Value {
    question(&format!("{}/chat", namespace.name), content, max_tokens)
}

async fn load_of(pod: &Pod) -> Result<Value> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("no address")?;
    Ok(reqwest::get(format!("http://{ip}:{}/load", name::HTTP_PORT)).await?.json().await?)
}

pub async fn routers(namespace: &Namespace) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), operator::NAMESPACE);
    Ok(pods.list(&ListParams::default().labels(ROUTERS)).await?.items)
}

#[tokio::test]
async fn a_model_without_replicas_is_woken_by_a_request_and_sleeps_again() -> Result<()> {
    let namespace = Namespace::create("e2e-zero").await?;
    let mut spec = talking_model(1);
    spec["scaling"] = json!({"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 10, "quietSeconds": 10});
    namespace.apply("chat", spec).await?;
    // It comes up once by itself, and goes when nobody asks.
    namespace.condition("chat", "Ready", "True", READY).await?;
    namespace.reason("chat", "Ready", "ScaledToZero", READY).await?;
    let gone = until("the pod to be gone", READY, || async {
        let pods = namespace.ranks("chat").await?.len();
        Ok(if pods == 0 { Ok(()) } else { Err(format!("{pods} pods")) })
    });
    gone.await?;

    let (http, door) = (reqwest::Client::new(), front_door(&namespace).await?);
    let begun = Instant::now();
    let body = asked(&namespace, "Say hello.", 8);
    let first = AtomicUsize::new(0);
    let answer = stream(&http, &door, &body, |_| {
        let elapsed = begun.elapsed().as_millis() as usize;
        let _ = first.compare_exchange(0, elapsed, Ordering::Relaxed, Ordering::Relaxed);
    });
    let decided = until("the scaler to decide", NOTICE, || async {
        let status = namespace.deployments().get("chat").await?.data["status"]["scaling"].clone();
        Ok(if status["desired"] == 1 {
            Ok((begun.elapsed(), status["why"].clone()))
        } else {
            Err(status.to_string())
        })
    });
    let (answer, decided) = tokio::join!(answer, decided);
    let (answer, (decided, why)) = (answer?, decided?);
    ensure!(!answer.text.is_empty() && answer.completion_tokens > 0, "{answer:?}");
    println!("decided after {decided:?}: {why}");
    println!("first token {} ms after the request, from zero", first.load(Ordering::Relaxed));
    let status = namespace.deployments().get("chat").await?.data["status"]["scaling"].clone();
    let decisions = status["decisions"].as_array().context("no decisions")?;
    ensure!(decisions.iter().any(|it| it["from"] == 0 && it["to"] == 1), "{status}");
    ensure!(decisions.iter().any(|it| it["from"] == 1 && it["to"] == 0), "{status}");
    namespace.delete().await
}

#[tokio::test]
async fn a_stream_goes_on_when_its_rank_is_killed() -> Result<()> {
    let namespace = Namespace::create("e2e-replay").await?;
    let direct = deploy(&namespace, 2).await?;
    let ranks = namespace.ready_ranks("chat", 2, READY).await?;
    let (http, door) = (reqwest::Client::new(), front_door(&namespace).await?);
    let question = "Tell me a long story about a small boat.";
    let undisturbed = ask(&http, &direct, &coterie_e2e::chat::question("chat", question, 160)).await?;

    let seen = AtomicUsize::new(0);
    let body = asked(&namespace, question, 160);
    let answer = stream(&http, &door, &body, |_| {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    let killed = async {
        let rank = until("a rank to be answering", NOTICE, || async {
            if seen.load(Ordering::Relaxed) < 20 {
                return Ok(Err("no token yet".to_owned()));
            }
            for pod in &ranks {
                if load_of(pod).await?["running"] == 1 {
                    return Ok(Ok(pod.name_any()));
                }
            }
            Ok(Err("nobody answers".to_owned()))
        })
        .await?;
        namespace.pods().delete(&rank, &DeleteParams::default().grace_period(0)).await?;
        anyhow::Ok((rank, seen.load(Ordering::Relaxed)))
    };
    let (answer, killed): (Result<Answer>, _) = tokio::join!(answer, killed);
    let (answer, (rank, after)) = (answer?, killed?);
    println!("{rank} was killed after {after} pieces of {}", seen.load(Ordering::Relaxed));
    ensure!(after < seen.load(Ordering::Relaxed), "the stream had ended before its rank was killed");
    ensure!(answer == undisturbed, "{answer:?}\nis not\n{undisturbed:?}");
    namespace.delete().await
}

#[tokio::test]
async fn clients_of_the_front_door_notice_nothing() -> Result<()> {
    let namespace = Namespace::create("e2e-unnoticed").await?;
    deploy(&namespace, 2).await?;
    let door = front_door(&namespace).await?;
    let load = Load::start(&door, &asked(&namespace, "Name three colours.", 12), 4);
    let ranks = namespace.ready_ranks("chat", 2, READY).await?;

    // A rank is killed.
    namespace.pods().delete(&ranks[0].name_any(), &DeleteParams::default().grace_period(0)).await?;
    let whole = until("the rank to be replaced", READY, || async {
        let pods = namespace.ranks("chat").await?;
        let new = pods.iter().any(|pod| ranks.iter().all(|old| old.uid() != pod.uid()));
        let ready = pods.len() == 2 && pods.iter().all(coterie_e2e::namespace::is_ready);
        Ok(if new && ready { Ok(()) } else { Err(format!("{} pods", pods.len())) })
    });
    whole.await?;
    // A rollout of all, and the operator is killed in it.
    let restart = json!({"metadata": {"annotations": {"coterie.dev/restart": "1"}}});
    namespace.patch("chat", restart).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    operator::kill(&namespace.client).await?;
    until("the rollout to be over", READY * 2, || async {
        let status = namespace.deployments().get("chat").await?.data["status"].clone();
        let over = status["rollout"]["step"] == "Complete" && status["rollout"]["updated"] == 2;
        let pods = namespace.ranks("chat").await?;
        let new = pods.iter().all(|pod| ranks.iter().all(|old| old.uid() != pod.uid()));
        Ok(if over && new { Ok(()) } else { Err(status["rollout"].to_string()) })
    })
    .await?;
    // A router drains: its clients' streams end, new ones go to the other.
    let leaving = routers(&namespace).await?;
    let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), operator::NAMESPACE);
    pods.delete(&leaving.first().context("no router")?.name_any(), &DeleteParams::default()).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    println!("{} requests answered meanwhile", load.finish_without_failure().await?);
    namespace.delete().await
}
