//! Who may use whom (docs/architecture.md): crate boundaries keep the core pure, so they are checked, not trusted.

use super::{
    Finding,
    lexer::{self, Token},
    source::SourceFile,
};
use serde_json::Value;

/// (crate, workspace crates that it may use). A crate that is not here is new.
const MAY_USE: &[(&str, &[&str])] = &[
    ("coterie-api", &[]),
    ("coterie-kernels", &[]),
    ("coterie-engine", &["coterie-api", "coterie-kernels"]),
    ("coterie-runtime", &["coterie-api", "coterie-engine"]),
    ("coterie-operator-core", &["coterie-api"]),
    ("coterie-operator", &["coterie-api", "coterie-operator-core"]),
    // A black box sees what a user sees.
    ("coterie-e2e", &["coterie-api"]),
    ("xtask", &["coterie-operator-core"]),
    (
        "coterie-tests",
        &[
            "coterie-api",
            "coterie-engine",
            "coterie-kernels",
            "coterie-operator",
            "coterie-operator-core",
            "coterie-runtime",
        ],
    ),
];

/// (crate, outside crates that it must not name, why).
const MUST_NOT_USE: &[(&str, &[&str], &str)] = &[
    ("coterie-api", &["tokio", "axum", "hyper", "kube-client", "kube-runtime"], "it is plain data, no IO"),
    (
        "coterie-operator-core",
        &["tokio", "futures", "axum", "hyper", "kube-client", "kube-runtime", "rand"],
        "it is pure: what it needs is an argument",
    ),
    (
        "coterie-engine",
        &["tokio", "futures", "axum", "hyper", "kube", "k8s-openapi"],
        "it is synchronous and serves any front",
    ),
    (
        "coterie-kernels",
        &["tokio", "serde", "serde_json", "safetensors"],
        "it knows slices, no model and no request",
    ),
];

/// (crate, dependency, feature that would open a door which the crate must not have).
const MUST_NOT_ENABLE: &[(&str, &str, &[&str])] = &[
    ("coterie-api", "kube", &["client", "runtime"]),
    ("coterie-operator-core", "kube", &["client", "runtime"]),
    ("coterie-engine", "coterie-api", &["crd"]),
    ("coterie-runtime", "coterie-api", &["crd"]),
];

/// (folder, but for what begins so, what code in it must not name).
const CLOSED: &[(&str, &str, &[&str])] = &[
    ("api/src/", "-", DOORS),
    ("operator/core/src/", "-", DOORS),
    // A rank never talks to the API server; the front door, which is the same binary, watches.
    ("runtime/src/", "runtime/src/route/cluster", &["kube", "k8s_openapi"]),
];
/// Doors to the world that need no dependency.
const DOORS: &[&str] = &[
    "fs::",
    "env::",
    "net::",
    "process::",
    "thread::",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "kube::runtime",
    "Client",
    "Api",
];

/// Reports dependencies between crates that the architecture does not allow. `metadata` is `cargo metadata`'s.
pub fn graph(metadata: &Value) -> Vec<Finding> {
    let members: Vec<&Value> = workspace(metadata).collect();
    let is_member = |name: &str| members.iter().any(|member| text(member, "name") == name);
    let mut findings = Vec::new();
    for member in &members {
        let name = text(member, "name");
        let Some((_, may_use)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
            findings.push(Finding::new(
                "Cargo.toml",
                format!("the crate {name} is new"),
                "write down why it must be a crate (docs/design/), then add it to MAY_USE in xtask/src/check/crates.rs",
            ));
            continue;
        };
        for used in list(member, "dependencies") {
            let dependency = text(used, "name");
            if is_member(dependency) && !may_use.contains(&dependency) {
                findings.push(Finding::new(
                    name,
                    format!("it may not use {dependency}"),
                    "move what both need into coterie-api, or turn the call around",
                ));
            }
            findings.extend(outside(name, used));
        }
    }
    findings
}

/// What `name` must not take from outside the workspace.
fn outside(name: &str, used: &Value) -> Vec<Finding> {
    let dependency = text(used, "name");
    let banned = MUST_NOT_USE
        .iter()
        .filter(|(known, banned, _)| *known == name && banned.contains(&dependency))
        .map(|(_, _, why)| {
            Finding::new(
                name,
                format!("it may not use {dependency}: {why}"),
                "do that work in the crate above it",
            )
        });
    let enabled = MUST_NOT_ENABLE
        .iter()
        .filter(|(known, of, _)| *known == name && *of == dependency)
        .flat_map(|(_, of, features)| features.iter().map(move |feature| (of, feature)))
        .filter(|(_, feature)| list(used, "features").any(|enabled| enabled == *feature))
        .map(|(of, feature)| {
            Finding::new(
                name,
                format!("it may not enable {of}'s feature {feature}"),
                "enable it in the crate that does the IO",
            )
        });
    banned.chain(enabled).collect()
}

/// Reports clocks, files, sockets and clients in the folders that are closed to them. Tests may use them.
pub fn purity(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (folder, open, doors) in CLOSED {
        let closed = |file: &&SourceFile| file.path.starts_with(folder) && !file.path.starts_with(open);
        for file in files.iter().filter(closed).filter(|file| file.is("rs")) {
            let tokens = lexer::tokens(file.text.as_deref().unwrap_or_default());
            let tests =
                tokens.windows(4).position(|w| w.iter().map(|t| t.text).eq(["cfg", "(", "test", ")"]));
            let tokens = &tokens[..tests.unwrap_or(tokens.len())];
            for door in *doors {
                let path = lexer::tokens(door);
                let names = |w: &&[Token<'_>]| w.iter().map(|t| t.text).eq(path.iter().map(|t| t.text));
                for found in tokens.windows(path.len()).filter(names) {
                    findings.push(Finding::new(
                        format!("{}:{}", file.path, found[0].line),
                        format!("{door} is a door to the world, and this folder has none"),
                        "take the value as an argument; the caller does the IO",
                    ));
                }
            }
        }
    }
    findings
}

/// The packages of the workspace.
pub fn workspace(metadata: &Value) -> impl Iterator<Item = &Value> {
    list(metadata, "packages").filter(|package| package["source"].is_null())
}

/// The string under `key`, or `""`.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The array under `key`, or nothing.
pub fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn uses(name: &str, dependency: &str, features: &[&str]) -> Vec<Finding> {
        let package = |name: &str, dependencies: Value| json!({"name": name, "source": null, "dependencies": dependencies});
        let mut packages = vec![package(name, json!([{"name": dependency, "features": features}]))];
        packages.extend(MAY_USE.iter().map(|(known, _)| package(known, json!([]))));
        graph(&json!({"packages": packages}))
    }

    #[test]
    fn the_graph_of_the_design_is_allowed() {
        for (name, dependency) in [("coterie-engine", "coterie-kernels"), ("coterie-operator", "tokio")] {
            assert_eq!(uses(name, dependency, &[]), []);
        }
        assert_eq!(uses("coterie-operator-core", "kube", &["derive"]), []);
    }

    #[test]
    fn a_forbidden_edge_is_found() {
        for (name, dependency) in [
            ("coterie-operator", "coterie-engine"),
            ("coterie-api", "coterie-engine"),
            ("coterie-e2e", "coterie-operator"),
            ("coterie-operator-core", "tokio"),
            ("coterie-engine", "axum"),
        ] {
            assert_eq!(uses(name, dependency, &[]).len(), 1, "{name} -> {dependency}");
        }
    }

    #[test]
    fn a_forbidden_feature_is_found() {
        assert_eq!(uses("coterie-operator-core", "kube", &["client"]).len(), 1);
        assert_eq!(uses("coterie-runtime", "coterie-api", &["crd"]).len(), 1);
    }

    #[test]
    fn a_new_crate_is_found() {
        let new = uses("coterie-extra", "anyhow", &[]);
        assert!(new.len() == 1 && new[0].to_string().contains("docs/design/"), "{new:?}");
    }

    #[test]
    fn doors_are_found_outside_tests() {
        let found = |text| purity(&[SourceFile::test("operator/core/src/plan.rs", text)]).len();
        assert_eq!(found("fn f() { std::fs::read(\"x\") }"), 1);
        assert_eq!(found("let now = jiff::Timestamp::now();"), 1);
        assert_eq!(found("// std::fs is not used\nfn f(now: jiff::Timestamp) {}"), 0);
        let at = |path| purity(&[SourceFile::test(path, "use kube::Client;")]).len();
        assert_eq!((at("runtime/src/serve.rs"), at("runtime/src/route/cluster.rs")), (1, 0));
        assert_eq!(found("use std::{fs, env};\nfn f() { fs::read(\"x\") }"), 1);
        assert_eq!(found("#[cfg(test)]\nmod tests { fn f() { std::fs::read(\"x\") } }"), 0);
    }
}
