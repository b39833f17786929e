//! Which models there are and where they are served: a plain value, whoever found it out.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

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
    /// When it was made, seconds since 1970; none where nobody knows. Of several that are served under one name, the
    /// oldest has it: who comes later takes nothing away.
    pub made: Option<i64>,
    /// When a first token is to be there, if somebody said it.
    pub ttft: Option<Duration>,
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
    /// Several are served under this name, and none is known to be the oldest.
    Several(Vec<&'a ModelKey>),
}

/// How a model can be asked for.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// Its whole name.
    pub key: &'a ModelKey,
    /// What it is served as.
    pub served: &'a str,
    /// When it was made, if that is known.
    pub made: Option<i64>,
}

/// Finds what a client calls `asked`: `namespace/name`, or a served name. In a namespace that has models all such names are
/// whole names, also while there is no such ModelDeployment: nobody gets another's requests by a served name. `name` gives a
/// model's names.
pub fn find<'a, T>(models: &'a [T], asked: &str, name: impl Fn(&'a T) -> Name<'a>) -> Found<'a, T> {
    let whole = asked.split_once('/');
    let named = |model: &&'a T| whole == Some((&*name(model).key.namespace, &*name(model).key.name));
    if let Some(model) = models.iter().find(named) {
        return Found::One(model);
    }
    if whole.is_some_and(|(namespace, _)| models.iter().any(|model| name(model).key.namespace == namespace)) {
        return Found::None;
    }
    let served: Vec<&'a T> = models.iter().filter(|model| name(model).served == asked).collect();
    match served[..] {
        [] => Found::None,
        [one] => Found::One(one),
        _ => {
            let all = served.iter().map(|model| name(model));
            match all.clone().all(|name| name.made.is_some()) {
                true => {
                    let oldest = served.into_iter().min_by_key(|model| (name(model).made, name(model).key));
                    oldest.map_or(Found::None, Found::One)
                }
                false => Found::Several(all.map(|name| name.key).collect()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(namespace: &str, name: &str, served: &str) -> Model {
        let key = ModelKey { namespace: namespace.into(), name: name.into() };
        Model { key, served_name: served.into(), made: None, ttft: None, ranks: BTreeSet::new() }
    }

    fn found(models: &[Model], asked: &str) -> String {
        match find(models, asked, |model| Name {
            key: &model.key,
            served: &model.served_name,
            made: model.made,
        }) {
            Found::One(model) => model.key.to_string(),
            Found::None => "none".into(),
            Found::Several(keys) => keys.iter().map(|key| key.to_string()).collect::<Vec<_>>().join(" and "),
        }
    }

    #[test]
    fn a_model_is_found_by_its_served_name_and_by_its_whole_name() {
        let models = [model("a", "chat", "Org/Smol"), model("b", "chat", "chat"), model("c", "chat", "chat")];
        assert_eq!(found(&models, "Org/Smol"), "a/chat");
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
    fn who_comes_later_takes_no_name_away() {
        let mut models = [model("b", "x", "chat"), model("c", "y", "chat"), model("a", "z", "chat")];
        for (model, made) in models.iter_mut().zip([20, 10, 10]) {
            model.made = Some(made);
        }
        assert_eq!(found(&models, "chat"), "a/z", "of two of one second it is the first by name");
        models[2].made = Some(11);
        assert_eq!(found(&models, "chat"), "c/y");
        assert_eq!(found(&models, "b/x"), "b/x");
    }

    #[test]
    fn a_whole_name_is_its_owners_alone() {
        let models = [
            model("a", "thief", "nc6b/zero"),
            model("nc6b", "other", "nc6b/zero"),
            model("nc6b", "zero", "zero"),
            model("x", "own", "x/own"),
        ];
        assert_eq!(found(&models, "nc6b/zero"), "nc6b/zero");
        assert_eq!(found(&models, "a/thief"), "a/thief");
        assert_eq!(found(&models, "x/own"), "x/own");
        assert_eq!(found(&models[..2], "nc6b/zero"), "none", "also while its owner is not there");
        assert_eq!(found(&models[..1], "nc6b/zero"), "a/thief", "there is no such namespace here");
        // Names that no Kubernetes would take, as a file may have them.
        let models = [model("A", "Chat", "x"), model("b", "y", "A/Chat")];
        assert_eq!(found(&models, "A/Chat"), "A/Chat");
    }
}
