//! A whole model folder, and the binary run on it.

use crate::{model, tiny_mixtral};
use coterie_api::launch::Termination;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

pub const CONTEXT: u64 = 400;

/// Random weights for the tokenizer of the HTTP tests.
pub fn whole() -> TempDir {
    changed(&json!({}))
}

/// The same, with some of config.json different.
pub fn changed(entries: &Value) -> TempDir {
    let dir = model::folder();
    let mut config = tiny_mixtral::config();
    config["vocab_size"] = 259.into();
    config["eos_token_id"] = model::END.into();
    config["max_position_embeddings"] = CONTEXT.into();
    for (key, value) in entries.as_object().unwrap() {
        config[key] = value.clone();
    }
    tiny_mixtral::write(dir.path(), &config, &tiny_mixtral::tensors(&config, 1));
    dir
}

pub fn coterie(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coterie"));
    command.args(args).env_remove("RUST_LOG");
    command
}

/// A termination log as Kubernetes makes one: there, and empty.
pub struct TerminationLog {
    dir: TempDir,
}

impl TerminationLog {
    pub fn new() -> TerminationLog {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log"), "").unwrap();
        TerminationLog { dir }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub fn read(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }

    pub fn termination(&self) -> Termination {
        serde_json::from_str(&self.read()).unwrap_or_else(|_| panic!("{:?}", self.read()))
    }
}

/// Runs to the end with a termination log.
pub fn run(args: &[&str], model: &Path) -> (Output, TerminationLog) {
    let log = TerminationLog::new();
    let mut command = coterie(args);
    match args[0] {
        "inspect" => command.arg(model),
        _ => command.arg("--model").arg(model),
    };
    let output = command.arg("--termination-log").arg(log.path()).output().unwrap();
    (output, log)
}
