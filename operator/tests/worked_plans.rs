//! docs/plans.md is what `coterie-operator plan` prints: every command in it is run, and what follows it compared.
//! `COTERIE_WRITE_DOCS=1 cargo test --release -p coterie-operator --test worked_plans` writes what they print now.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

/// What stands before a command.
const PROMPT: &str = "$ coterie-operator plan ";
/// What ends a block of text.
const FENCE: &str = "```";

#[test]
fn the_worked_plans_are_what_is_printed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = folder.join("../docs/plans.md");
    let committed = fs::read_to_string(&path).unwrap();
    let (printed, plans) = with_answers(&committed, &folder.join("tests/plan"));
    assert!(plans >= 7, "{plans} plans");
    if std::env::var_os("COTERIE_WRITE_DOCS").is_some() {
        return fs::write(&path, &printed).unwrap();
    }
    for (number, (committed, printed)) in committed.lines().zip(printed.lines()).enumerate() {
        assert_eq!(
            committed,
            printed,
            "docs/plans.md, line {}; the head of this test tells how to write it anew",
            number + 1
        );
    }
    assert_eq!(committed.len(), printed.len(), "docs/plans.md ends otherwise");
}

/// The text with what each command prints now behind it, and how many commands there are.
fn with_answers(text: &str, folder: &Path) -> (String, usize) {
    let (mut out, mut plans) = (String::new(), 0);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out += line;
        out.push('\n');
        if let Some(arguments) = line.strip_prefix(PROMPT) {
            plans += 1;
            out += &answer(arguments, folder);
            lines.by_ref().find(|line| *line == FENCE).unwrap();
            out += "```\n";
        }
    }
    (out, plans)
}

/// What the command prints, but for the experts of each layer, of which there are too many for people.
fn answer(arguments: &str, folder: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coterie-operator"));
    let command = command.current_dir(folder).env_remove("RUNTIME_IMAGE").arg("plan");
    let output = command.args(arguments.split(' ')).output().unwrap();
    assert!(output.stderr.is_empty(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let (fits, code) = (printed.starts_with("it fits: "), output.status.code());
    assert_eq!(code, Some(if fits { 0 } else { 3 }), "{arguments}");
    let mut paragraphs: Vec<&str> = printed.split("\n\n").collect();
    paragraphs.retain(|paragraph| !paragraph.starts_with("EXPERTS OF THE FIRST REPLICA"));
    paragraphs.join("\n\n")
}
