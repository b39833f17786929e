//! `/health` and `/metrics` of a running operator.

use anyhow::{Context, Result};
use coterie_operator::Options;
use coterie_tests::port::free_port;
use coterie_tests::wire::Wire;
use coterie_tests::world::{World, eventually, get};
use std::net::TcpListener;

#[tokio::test]
async fn health_and_metrics_are_answered() -> Result<()> {
    let world = World::with_node("endpoints").await?;
    let http_port = free_port()?;
    let operator = world.operator_on(Wire::default(), Options { http_port, ..world.options() })?;
    world.apply(&world.deployment("smol")).await?;
    world.inspect_pod().await?;
    let health = get(http_port, "/health").await?;
    assert!(health.starts_with("HTTP/1.1 200 OK") && health.ends_with("ok\n"), "{health}");
    eventually("readiness", || {
        Box::pin(async move {
            let ready = get(http_port, "/ready").await?;
            Ok((ready.starts_with("HTTP/1.1 200 OK") && ready.ends_with("ok\n")).then_some(()))
        })
    })
    .await?;
    let line = "coterie_operator_api_writes_total{verb=\"create\",kind=\"Pod\"} 1";
    let reconciles = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("coterie_operator_reconciles_total "));
        line.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
    };
    let metrics = eventually("the counts of a pod and a reconcile", || {
        Box::pin(async move {
            let text = get(http_port, "/metrics").await?;
            Ok(Some(text).filter(|text| text.contains(line) && reconciles(text) > 0))
        })
    })
    .await?;
    assert!(metrics.contains("coterie_operator_resident_memory_bytes "), "{metrics}");
    operator.stop().await
}

#[tokio::test]
async fn a_port_that_is_taken_is_said() -> Result<()> {
    let world = World::new("endpoints").await?;
    let taken = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0"))?;
    let http_port = taken.local_addr()?.port();
    let operator = world.operator_on(Wire::default(), Options { http_port, ..world.options() })?;
    let error = operator.stop().await.err().context("it started")?;
    assert!(error.to_string().contains("--http-port"), "{error}");
    Ok(())
}
