//! What we take from others: under which licence, from where, and how many versions of it. deny.toml has the lists,
//! and cargo-deny reads the same file where it is installed; this check needs nothing but `cargo metadata`.

use super::{
    Finding,
    crates::{list, text},
};
use serde_json::Value;
use std::collections::BTreeMap;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The parts of deny.toml that this check uses.
#[derive(Debug, Default, PartialEq)]
pub struct Lists {
    /// SPDX identifiers in `[licenses] allow`.
    pub licences: Vec<String>,
    /// (crate, start of its version) in `[bans] skip`: may be there twice.
    pub twice: Vec<(String, String)>,
}

impl Lists {
    /// Reads arrays of strings, and of tables with a `crate`, which is all that deny.toml has.
    pub fn parse(deny_toml: &str) -> Lists {
        let mut lists = Lists::default();
        let mut array = "";
        for line in deny_toml.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            let opened = line.split_once(" = [").map(|(key, _)| key);
            array = opened.unwrap_or(array);
            let mut quoted = line.split('"').skip(1).step_by(2);
            match array {
                "allow" => lists.licences.extend(quoted.map(str::to_owned)),
                "skip" if line.contains("crate = ") => {
                    if let Some((name, version)) = quoted.next().and_then(|spec| spec.split_once('@')) {
                        lists.twice.push((name.to_owned(), version.to_owned()));
                    }
                }
                _ => {}
            }
            if line.ends_with(']') {
                array = "";
            }
        }
        lists
    }
}

/// Reports licences that are not allowed, sources other than crates.io, and crates that come twice.
pub fn check(metadata: &Value, lists: &Lists) -> Vec<Finding> {
    let outside: Vec<&Value> = list(metadata, "packages").filter(|p| !p["source"].is_null()).collect();
    outside
        .iter()
        .filter_map(|package| licence(package, lists))
        .chain(outside.iter().filter_map(|p| source(p)))
        .chain(duplicates(&outside, lists))
        .collect()
}

fn named(package: &Value) -> String {
    format!("{} {}", text(package, "name"), text(package, "version"))
}

fn licence(package: &Value, lists: &Lists) -> Option<Finding> {
    let expression = text(package, "license");
    (!allowed(expression, &lists.licences)).then(|| {
        Finding::new(
            named(package),
            format!("its licence \"{expression}\" is not one that deny.toml allows"),
            "use another crate, or allow the licence there after reading it",
        )
    })
}

fn source(package: &Value) -> Option<Finding> {
    let source = text(package, "source");
    (source != CRATES_IO).then(|| {
        Finding::new(named(package), format!("it comes from {source}"), "use a release from crates.io")
    })
}

fn duplicates(packages: &[&Value], lists: &Lists) -> Vec<Finding> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(text(package, "name")).or_default().push(text(package, "version"));
    }
    let skipped = |name: &str, version: &str| {
        lists.twice.iter().any(|(n, v)| n == name && (version == v || version.starts_with(&format!("{v}."))))
    };
    versions
        .into_iter()
        .filter(|(name, versions)| versions.iter().filter(|version| !skipped(name, version)).count() > 1)
        .map(|(name, versions)| {
            Finding::new(
                name,
                format!("it is built in {} versions: {}", versions.len(), versions.join(", ")),
                "bring its users to one version, or skip the old one in deny.toml with the reason",
            )
        })
        .collect()
}

/// Whether an SPDX expression can be met with `licences` only. An empty one cannot.
fn allowed(expression: &str, licences: &[String]) -> bool {
    // Old crates write "MIT/Apache-2.0" and mean OR.
    let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut tokens = expression.split_whitespace().peekable();
    let met = any_of(&mut tokens, licences);
    met && tokens.next().is_none()
}

type Tokens<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(tokens: &mut Tokens<'_>, licences: &[String]) -> bool {
    let mut met = all_of(tokens, licences);
    while tokens.next_if_eq(&"OR").is_some() {
        met |= all_of(tokens, licences);
    }
    met
}

fn all_of(tokens: &mut Tokens<'_>, licences: &[String]) -> bool {
    let mut met = one(tokens, licences);
    while tokens.next_if_eq(&"AND").is_some() {
        met &= one(tokens, licences);
    }
    met
}

fn one(tokens: &mut Tokens<'_>, licences: &[String]) -> bool {
    match tokens.next() {
        Some("(") => {
            let met = any_of(tokens, licences);
            tokens.next_if_eq(&")").is_some() && met
        }
        Some(licence) => {
            let mut licence = licence.to_owned();
            if tokens.next_if_eq(&"WITH").is_some() {
                licence = format!("{licence} WITH {}", tokens.next().unwrap_or_default());
            }
            licences.contains(&licence)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DENY: &str = "[licenses]\nallow = [\n  \"MIT\",\n  # \"GPL-3.0\",\n  \"Apache-2.0\",\n]\nconfidence-threshold = 0.9\n\
        [bans]\nskip = [\n  { crate = \"syn@2\", reason = \"an old \\\"derive\\\"\" },\n]\n";

    fn found(packages: Value) -> Vec<String> {
        check(&json!({"packages": packages}), &Lists::parse(DENY)).iter().map(Finding::to_string).collect()
    }

    fn package(name: &str, version: &str, licence: &str) -> Value {
        json!({"name": name, "version": version, "license": licence, "source": CRATES_IO})
    }

    #[test]
    fn lists_are_read() {
        let lists = Lists::parse(DENY);
        assert_eq!(lists.licences, ["MIT", "Apache-2.0"]);
        assert_eq!(lists.twice, [("syn".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn licences() {
        for good in
            ["MIT", "MIT OR GPL-3.0", "MIT/GPL-3.0", "(MIT OR GPL-3.0) AND Apache-2.0", "MIT AND Apache-2.0"]
        {
            assert_eq!(found(json!([package("a", "1.0.0", good)])), [""; 0], "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "", "(MIT", "MIT) OR", "Apache-2.0 WITH X"] {
            assert_eq!(found(json!([package("a", "1.0.0", bad)])).len(), 1, "{bad}");
        }
    }

    #[test]
    fn other_sources_are_found() {
        let forked =
            json!({"name": "a", "version": "1.0.0", "license": "MIT", "source": "git+https://example.org/a"});
        assert!(found(json!([forked]))[0].contains("example.org"));
    }

    #[test]
    fn crates_that_come_twice_are_found() {
        let two = |name| json!([package(name, "2.0.1", "MIT"), package(name, "3.1.0", "MIT")]);
        assert!(found(two("rand"))[0].contains("2.0.1, 3.1.0"));
        assert_eq!(found(two("syn")), [""; 0]);
    }
}
