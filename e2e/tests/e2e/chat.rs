//! The path of the demo: apply, Ready, chat.

use crate::{READY, talking_model};
use anyhow::{Context, Result, ensure};
use coterie_e2e::chat::{ask, question, stream};
use coterie_e2e::namespace::Namespace;
use serde_json::json;
use std::process::Command;

#[tokio::test]
async fn a_chat_gets_a_sensible_answer() -> Result<()> {
    let namespace = Namespace::create("e2e-chat").await?;
    let mut spec = talking_model(1);
    // The reference's answer is that of the weights as they are; int8 may choose otherwise where two tokens nearly tie.
    spec["model"]["quantization"] = json!("None");
    namespace.apply("chat", spec).await?;
    namespace.condition("chat", "Ready", "True", READY).await?;
    let endpoint = namespace.endpoint("chat").await?;
    let http = reqwest::Client::new();

    let body = question("chat", "What is the capital of France?", 32);
    let whole = ask(&http, &endpoint, &body).await?;
    ensure!(whole.text.contains("Paris"), "the model says {:?}", whole.text);
    ensure!(whole.finish_reason == "stop", "{whole:?}");

    let mut pieces = 0;
    let streamed = stream(&http, &endpoint, &body, |_| pieces += 1).await?;
    ensure!(streamed == whole, "streamed {streamed:?}, whole {whole:?}");
    ensure!(pieces > 3, "the text came in {pieces} pieces");

    let printed =
        Command::new("kubectl").args(["get", "mdep", "-o", "wide", "-n", &namespace.name]).output()?;
    let table = String::from_utf8(printed.stdout)?;
    let (header, row) = table.split_once('\n').context("kubectl printed no table")?;
    for column in ["READY", "REASON", "REPLICAS", "QUANTIZATION", "DIGEST", "AGE"] {
        ensure!(header.contains(column), "no column {column} in {header}");
    }
    for value in ["chat", "True", "1/1", "None", "sha256:"] {
        ensure!(row.contains(value), "no {value} in {row}");
    }
    namespace.delete().await
}
