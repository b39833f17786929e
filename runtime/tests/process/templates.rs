//! Chat templates that mean harm, and what becomes of the process in which they are rendered.

use crate::client::exchange;
use crate::folder::{run, whole};
use crate::rank::Process;
use coterie_api::launch::TerminationReason;
use serde_json::{Value, json};
use std::fs::{read_dir, read_to_string};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::sleep;

/// What no fuel pays for: lists that double, each walked or copied as a whole.
const DOUBLING: &str = "{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = ns.l + ns.l %}{% endfor %}{{ ns.l | length }}";
const WALKED: &str = "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a == [ns.a] }}{{ ns.a | string | length }}";
const SORTED: &str = "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a | upper }}";

fn folder(template: &str) -> TempDir {
    let dir = whole();
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    dir
}

/// Does `harm` where a message says so.
fn on_demand(harm: &str) -> TempDir {
    folder(&format!(
        "{{% if messages[0].content == 'harm' %}}{harm}{{% endif %}}{{{{ messages[0].content }}}}"
    ))
}

fn said(content: &str) -> Value {
    json!({"messages": [{"role": "user", "content": content}], "max_tokens": 3})
}

#[tokio::test]
async fn a_conversation_that_cannot_be_rendered_costs_nobody_else_anything() {
    for harm in [DOUBLING, WALKED, SORTED] {
        let model = on_demand(harm);
        let process = Process::of(model.path(), &["--threads", "1"]).await;
        let (harmed, other) = tokio::join!(
            process.post("/v1/chat/completions", said("harm")),
            process.post("/v1/completions", json!({"prompt": "x", "max_tokens": 3})),
        );
        assert_eq!(harmed.status, 400, "{harm}: {harmed:?}");
        let message = harmed.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("cannot render these messages: it took more than"), "{harm}: {message}");
        assert_eq!(other.status, 200, "{harm}: {other:?}");
        assert_eq!(process.post("/v1/chat/completions", said("peace")).await.status, 200, "{harm}");
        assert_eq!(exchange(process.address, "GET", "/ready", "").await.status, 200, "{harm}");
        let status = read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
        let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < 400 << 10, "{harm}: the server itself took {peak}");
    }
}

#[test]
fn a_template_that_hangs_on_every_conversation_is_refused_at_the_start() {
    // The chain of operators hangs the compiler already, for four times as long as it may on any machine of today.
    let chain = format!("{{{{ a{} }}}}", "~a".repeat(32_000));
    for template in [DOUBLING, WALKED, &chain] {
        let model = folder(template);
        for args in [&["inspect"][..], &["serve", "--port", "0", "--host", "127.0.0.1"]] {
            let (output, log) = run(args, model.path());
            assert_eq!(output.status.code(), Some(2), "{args:?} {output:?}");
            let termination = log.termination();
            assert_eq!(termination.reason, TerminationReason::ModelRejected, "{termination:?}");
            assert!(termination.message.contains("chat_template.jinja cannot be used"), "{termination:?}");
        }
    }
}

/// It is no reason to refuse the model: completions need no template.
#[tokio::test]
async fn a_template_that_writes_nothing_is_told_to_who_uses_it() {
    let model = folder("{{ nothing }}");
    let process = Process::of(model.path(), &["--threads", "1"]).await;
    let refused = process.post("/v1/chat/completions", said("hi")).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("template refuses these messages: it writes nothing"), "{message}");
    let completion = json!({"prompt": "x", "max_tokens": 3});
    assert_eq!(process.post("/v1/completions", completion).await.status, 200);
}

/// The processes that `parent` started.
fn children(parent: u32) -> Vec<u32> {
    let threads = read_dir(format!("/proc/{parent}/task")).unwrap();
    let lists = threads.map(|thread| read_to_string(thread.unwrap().path().join("children")).unwrap());
    lists.flat_map(|list| list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn a_renderer_that_is_killed_is_replaced_and_one_without_a_server_ends() {
    let mut process = Process::start(&[]).await;
    let renderers = children(process.child.id());
    assert_eq!(renderers.len(), 1);
    // SAFETY: the process is our own grandchild, and it was there a moment ago.
    assert_eq!(unsafe { libc::kill(renderers[0] as i32, libc::SIGKILL) }, 0);
    let answer = process.post("/v1/chat/completions", said("hi")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let replaced = children(process.child.id());
    assert!(replaced.len() == 1 && replaced != renderers, "{replaced:?} after {renderers:?}");
    process.signal("KILL");
    process.ended().await;
    for _ in 0..500 {
        if !Path::new(&format!("/proc/{}/status", replaced[0])).exists() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the renderer outlives its server");
}

/// What a template says reaches the client, but not more of it than a sentence may have.
#[tokio::test]
async fn a_template_that_refuses_at_length_is_cut_short() {
    let model = on_demand("{{ raise_exception('no' * 45000000) }}");
    let process = Process::of(model.path(), &["--threads", "1"]).await;
    let refused = process.post("/v1/chat/completions", said("harm")).await;
    assert_eq!(refused.status, 400, "{}", refused.status);
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("nononono") && message.chars().count() < 1200, "{}", message.len());
    assert_eq!(process.post("/v1/chat/completions", said("peace")).await.status, 200);
}

#[test]
fn inspect_says_what_a_template_refuses() {
    let model = folder("{{ raise_exception('the system speaks first') }}");
    let (output, _) = run(&["inspect"], model.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("yes, but it does not take a plain message of a user: the system speaks first"),
        "{said}"
    );
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    for name in ["chat_template.jinja", "tokenizer_config.json", "tokenizer.json"] {
        let model = whole();
        let path = model.path().join(name);
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let (output, log) = run(&["inspect"], model.path());
        assert_eq!(output.status.code(), Some(2), "{name}: {output:?}");
        assert!(log.termination().message.contains("is not a regular file"), "{:?}", log.termination());
    }
}

#[tokio::test]
async fn a_renderer_that_took_much_is_not_kept() {
    let large = "{% set x = 'x' * 60000000 %}{% set y = x ~ 'y' %}";
    let model = on_demand(large);
    let process = Process::of(model.path(), &["--threads", "1"]).await;
    let before = children(process.child.id());
    assert_eq!(process.post("/v1/chat/completions", said("harm")).await.status, 200);
    assert_eq!(process.post("/v1/chat/completions", said("peace")).await.status, 200);
    let after = children(process.child.id());
    assert!(after.len() == 1 && after != before, "{after:?} after {before:?}");
}
