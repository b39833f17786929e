//! Programs that others wrote, against the binary: the official `openai` client, and schemathesis with our document.

use crate::rank::Process;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

fn environment(variable: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set; `cargo xtask test` sets it"))
}

/// Runs a script of tests/clients, which prints what it does, to its end.
async fn run(script: &'static str, arguments: Vec<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients").join(script);
    let mut python = Command::new(environment("COTERIE_CLIENTS_PYTHON"));
    python.arg(path).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    let status = tokio::task::spawn_blocking(move || python.status().unwrap()).await.unwrap();
    assert!(status.success(), "{script}: {status}; what it printed above says why");
}

#[tokio::test]
#[ignore = "needs the packages of tests/clients/requirements.txt and the talking model; `cargo xtask test` has both"]
async fn the_official_client_understands_what_is_served() {
    let model = PathBuf::from(environment("COTERIE_TALKING_MODEL"));
    let process = Process::of(&model, &["--max-running", "4", "--max-waiting", "4", "--threads", "0"]).await;
    run("openai_client.py", vec![format!("http://{}/v1", process.address), "tiny".to_owned()]).await;
}

#[tokio::test]
#[ignore = "needs the packages of tests/clients/requirements.txt; `cargo xtask test` has them"]
async fn the_document_says_what_is_served() {
    let folder = crate::folder::whole();
    let process = Process::of(folder.path(), &[]).await;
    run("document.py", vec![format!("http://{}", process.address)]).await;
}
