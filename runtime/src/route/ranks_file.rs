//! The table from a file, for a router without Kubernetes: YAML or JSON, looked at again every second.
//!
//! ```yaml
//! models:
//!   - name: smol-moe               # of a ModelDeployment, were there one
//!     namespace: chat              # default: default
//!     servedName: smol-moe         # default: the name
//!     ttftMilliseconds: 2000       # default: no one is served before who came first
//!     ranks: ["127.0.0.1:8081", "127.0.0.1:8082"]
//! ```

use super::fleet::Fleet;
use super::table::{Model, ModelKey, Table};
use crate::exchange::files::read_bounded;
use axum::http::uri::Authority;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::sleep;

/// Bytes of the file at most.
const FILE: u64 = 1 << 20;
const EVERY: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RanksFile {
    models: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Entry {
    name: String,
    #[serde(default = "default_namespace")]
    namespace: String,
    served_name: Option<String>,
    ttft_milliseconds: Option<NonZeroU32>,
    ranks: BTreeSet<String>,
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// What the file says now.
pub fn read(path: &Path) -> Result<Table, String> {
    let bytes = read_bounded(path, FILE)?;
    parse(&bytes).map_err(|error| format!("{} is of no use: {error}", path.display()))
}

fn parse(bytes: &[u8]) -> Result<Table, String> {
    let file: RanksFile = serde_saphyr::from_slice(bytes).map_err(|error| error.to_string())?;
    let model = |entry: Entry| {
        if entry.name.is_empty() || entry.namespace.is_empty() || entry.served_name.as_deref() == Some("") {
            return Err("a model has an empty name".to_owned());
        }
        if let Some(wrong) = entry.ranks.iter().find(|rank| !is_address(rank)) {
            return Err(format!("the rank {wrong:?} of {:?} is not of the form host:port", entry.name));
        }
        Ok(Model {
            served_name: entry.served_name.unwrap_or_else(|| entry.name.clone()),
            key: ModelKey { namespace: entry.namespace, name: entry.name },
            made: None,
            ttft: entry.ttft_milliseconds.map(|time| Duration::from_millis(time.get().into())),
            ranks: entry.ranks,
        })
    };
    let mut models = file.models.into_iter().map(model).collect::<Result<Vec<Model>, String>>()?;
    models.sort_by(|a, b| a.key.cmp(&b.key));
    match models.windows(2).find(|two| two[0].key == two[1].key) {
        Some(two) => Err(format!("{} is there twice", two[0].key)),
        None => Ok(Table { models }),
    }
}

fn is_address(rank: &str) -> bool {
    let Ok(authority) = rank.parse::<Authority>() else { return false };
    !authority.host().is_empty() && authority.port_u16().is_some() && !rank.contains('@')
}

/// Keeps `fleet` as the file says, until dropped. `table` is what it said first.
pub async fn follow(path: PathBuf, mut table: Table, fleet: &Fleet) {
    let mut trouble = None;
    loop {
        sleep(EVERY).await;
        match read(&path) {
            Ok(new) => {
                trouble = None;
                if new != table {
                    table = new;
                    fleet.update(&table);
                }
            }
            Err(error) => {
                if trouble.as_ref() != Some(&error) {
                    tracing::warn!(error, "the ranks stay as they were");
                }
                trouble = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_defaults() {
        let table = parse(b"models:\n- name: smol\n  ranks: ['b:1', 'a:1']\n").unwrap();
        let key = ModelKey { namespace: "default".into(), name: "smol".into() };
        let ranks = ["a:1".to_owned(), "b:1".to_owned()].into();
        assert_eq!(table.models, [Model { key, served_name: "smol".into(), made: None, ttft: None, ranks }]);
        let json = br#"{"models": [{"name": "x", "namespace": "n", "servedName": "org/x", "ttftMilliseconds": 700, "ranks": []}]}"#;
        let model = &parse(json).unwrap().models[0];
        assert_eq!((&*model.served_name, model.ttft), ("org/x", Some(Duration::from_millis(700))));
        assert!(parse(b"models: [{name: a, ttftMilliseconds: 0, ranks: []}]").is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        let twice = b"models: [{name: a, ranks: []}, {name: a, ranks: []}]";
        assert_eq!(parse(twice), Err("default/a is there twice".to_owned()));
        assert!(parse(b"models: [{name: a, rank: []}]").unwrap_err().contains("rank"));
        assert!(parse(b"{").is_err());
        for rank in ["http://127.0.0.1:1", "127.0.0.1", "127.0.0.1:99999", "", "a b:1", "u@h:1"] {
            let file = format!("models: [{{name: a, ranks: [{rank:?}]}}]");
            assert!(parse(file.as_bytes()).unwrap_err().contains("host:port"), "{rank}");
        }
        assert!(parse(b"models: [{name: a, ranks: ['[::1]:80', 'host.name:8000']}]").is_ok());
        assert!(parse(b"models: [{name: '', ranks: []}]").unwrap_err().contains("empty name"));
    }
}
