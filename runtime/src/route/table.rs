//! Which models there are and where they are served: a plain value, whoever found it out.

use std::collections::BTreeSet;
use std::fmt;

/// A ModelDeployment's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelKey {
    /// Its namespace.
    pub namespace: String,
    /// Its own name.
    pub name: String,
}

impl fmt::Display for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One ModelDeployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Which.
    pub key: ModelKey,
    /// What its ranks call the model.
    pub served_name: String,
    /// `host:port` of the ranks that may get new requests.
    pub ranks: BTreeSet<String>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Sorted by their keys, each once.
    pub models: Vec<Model>,
}

/// Which model a client means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a, T> {
    /// This one.
    One(&'a T),
    /// There is none of this name.
    None,
    /// Several are served under this name.
    Several(Vec<&'a ModelKey>),
}

/// Finds what a client calls `asked`: a served name, or `namespace/name`. `name` gives a model's key and its served
/// name.
pub fn find<'a, T>(
    models: &'a [T],
    asked: &str,
    name: impl Fn(&'a T) -> (&'a ModelKey, &'a str),
) -> Found<'a, T> {
    let mut served = models.iter().filter(|model| name(model).1 == asked);
    match (served.next(), served.next()) {
        (Some(one), None) => Found::One(one),
        (Some(_), Some(_)) => {
            let all = models.iter().map(&name).filter(|(_, served)| *served == asked);
            Found::Several(all.map(|(key, _)| key).collect())
        }
        (None, _) => {
            let named = |model: &&'a T| {
                let key = name(model).0;
                asked.split_once('/').is_some_and(|whole| whole == (&key.namespace, &key.name))
            };
            models.iter().find(named).map_or(Found::None, Found::One)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(namespace: &str, name: &str, served: &str) -> Model {
        let key = ModelKey { namespace: namespace.into(), name: name.into() };
        Model { key, served_name: served.into(), ranks: BTreeSet::new() }
    }

    fn found(models: &[Model], asked: &str) -> String {
        match find(models, asked, |model| (&model.key, &model.served_name)) {
            Found::One(model) => model.key.to_string(),
            Found::None => "none".into(),
            Found::Several(keys) => keys.iter().map(|key| key.to_string()).collect::<Vec<_>>().join(" and "),
        }
    }

    #[test]
    fn a_model_is_found_by_its_served_name_and_by_its_whole_name() {
        let models = [model("a", "chat", "org/smol"), model("b", "chat", "chat"), model("c", "chat", "chat")];
        assert_eq!(found(&models, "org/smol"), "a/chat");
        assert_eq!(found(&models, "a/chat"), "a/chat");
        assert_eq!(found(&models, "b/chat"), "b/chat");
        assert_eq!(found(&models, "smol"), "none");
        assert_eq!(found(&models, "d/chat"), "none");
    }

    #[test]
    fn a_served_name_of_two_names_both() {
        let models = [model("b", "x", "chat"), model("c", "y", "chat")];
        assert_eq!(found(&models, "chat"), "b/x and c/y");
    }

    #[test]
    fn a_served_name_that_looks_like_a_whole_one_comes_first() {
        let models = [model("a", "chat", "x"), model("b", "y", "a/chat")];
        assert_eq!(found(&models, "a/chat"), "b/y");
    }
}
