//! What cannot work ends with a sentence on stderr, the same in the termination message, and an exit code.

use crate::folder::{TerminationLog, coterie, run, whole};
use coterie_api::launch::TerminationReason::{self, DeviceUnusable, Failed, LaunchRejected, ModelRejected};
use std::path::Path;

fn refuses(args: &[&str], model: &Path, code: i32, reason: TerminationReason, says: &str) {
    let (output, log) = run(args, model);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?} {stderr}");
    let termination = log.termination();
    assert_eq!(termination.reason, reason, "{args:?} {termination:?}");
    assert!(termination.message.contains(says), "{args:?} {termination:?}");
    assert!(stderr.contains(&format!("coterie: {}", termination.message)), "{stderr}");
    assert!(output.stdout.is_empty(), "{args:?}");
}

#[test]
fn a_broken_folder_is_refused_by_every_command() {
    type Break = fn(&Path);
    let cases: [(&str, Break); 6] = [
        ("tokenizer.json is missing", |dir| std::fs::remove_file(dir.join("tokenizer.json")).unwrap()),
        ("tokenizer.json is not a usable tokenizer", |dir| {
            std::fs::write(dir.join("tokenizer.json"), "{}").unwrap()
        }),
        ("chat template", |dir| std::fs::write(dir.join("chat_template.jinja"), "{% if %}").unwrap()),
        ("tokenizer_config.json", |dir| std::fs::write(dir.join("tokenizer_config.json"), "[").unwrap()),
        ("LlamaForCausalLM", |dir| {
            let text = std::fs::read_to_string(dir.join("config.json")).unwrap();
            std::fs::write(dir.join("config.json"), text.replace("MixtralForCausalLM", "LlamaForCausalLM"))
                .unwrap();
        }),
        ("model.safetensors", |dir| {
            let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
            std::fs::write(dir.join("model.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
        }),
    ];
    for (says, break_it) in cases {
        let dir = whole();
        break_it(dir.path());
        refuses(&["inspect"], dir.path(), 2, ModelRejected, says);
        refuses(&["serve", "--port", "0", "--host", "127.0.0.1"], dir.path(), 2, ModelRejected, says);
    }
}

#[test]
fn a_folder_that_does_not_exist_is_said_to_be_so_by_every_command() {
    let dir = whole();
    for (model, says) in [("nope", "nope does not exist"), ("config.json", "config.json is not a folder")] {
        let model = dir.path().join(model);
        for command in [&["inspect"][..], &["bench"], &["serve", "--port", "0", "--host", "127.0.0.1"]] {
            refuses(command, &model, 2, ModelRejected, says);
        }
    }
}

#[test]
fn a_launch_that_cannot_be_is_refused() {
    let dir = whole();
    let serve = ["serve", "--port", "0", "--host", "127.0.0.1"];
    for (more, says) in [
        (["--context", "100000"], "100000"),
        (["--quantization", "int3"], "known: none, int8"),
        (["--no-such-flag", "1"], "--no-such-flag"),
        (["--otlp-traces-endpoint", "junk"], "--otlp-traces-endpoint"),
    ] {
        refuses(&[&serve[..], &more[..]].concat(), dir.path(), 2, LaunchRejected, says);
    }
}

/// Where there is a GPU, its machine code is not beside the program.
#[test]
fn a_gpu_that_cannot_be_used_is_told() {
    let (output, log) =
        run(&["serve", "--port", "0", "--host", "127.0.0.1", "--device", "gpu"], whole().path());
    let termination = log.termination();
    assert!(termination.message.starts_with("no GPU can be used: "), "{termination:?}");
    let code = match termination.reason {
        DeviceUnusable => 1,
        reason => {
            assert!(
                reason == LaunchRejected && termination.message.contains("COTERIE_CUBINS"),
                "{termination:?}"
            );
            2
        }
    };
    assert_eq!(output.status.code(), Some(code));
}

#[test]
fn a_port_that_is_taken_is_the_machines_failure() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refuses(&["serve", "--host", "127.0.0.1", "--port", &port], whole().path(), 1, Failed, "choose another");
}

#[test]
fn help_is_no_failure_and_no_command_is_one() {
    let help = coterie(&["--help"]).output().unwrap();
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("inspect"));
    let log = TerminationLog::new();
    let none = coterie(&["--termination-log", &log.path().to_string_lossy()]).output().unwrap();
    assert_eq!(none.status.code(), Some(2));
    assert_eq!(log.termination().reason, LaunchRejected);
}
