//! A kind's objects as last seen, each reduced to what is needed of it.

use kube::Resource;
use kube::runtime::watcher::Event;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Namespace and name; the namespace of a cluster's own object is empty.
pub type Key = (String, String);

/// The objects of one watch, reduced to `T`.
#[derive(Debug)]
pub struct Book<T> {
    pages: RwLock<Pages<T>>,
}

#[derive(Debug)]
struct Pages<T> {
    current: HashMap<Key, T>,
    /// Replaces `current` when a list is complete.
    listing: HashMap<Key, T>,
}

/// What an event changed.
pub enum Change<T> {
    /// Nothing yet.
    None,
    /// One object: what was known of it, and what is now.
    One {
        /// Its namespace and name.
        key: Key,
        /// `None`: it is new.
        before: Option<T>,
        /// `None`: it is gone.
        after: Option<T>,
    },
    /// Perhaps everything: it was listed anew.
    All,
}

impl<T> Default for Book<T> {
    fn default() -> Self {
        Self { pages: RwLock::new(Pages { current: HashMap::new(), listing: HashMap::new() }) }
    }
}

impl<T: Clone> Book<T> {
    /// Takes one event of the watch; `reduce` keeps what is needed.
    pub fn take<K: Resource>(&self, event: Event<K>, reduce: impl Fn(K) -> T) -> Change<T> {
        let mut pages = self.write();
        match event {
            Event::Init => pages.listing = HashMap::new(),
            Event::InitApply(object) => {
                pages.listing.insert(key(&object), reduce(object));
            }
            Event::InitDone => {
                pages.current = std::mem::take(&mut pages.listing);
                return Change::All;
            }
            Event::Apply(object) => {
                let key = key(&object);
                let after = reduce(object);
                let before = pages.current.insert(key.clone(), after.clone());
                return Change::One { key, before, after: Some(after) };
            }
            Event::Delete(object) => {
                let key = key(&object);
                let before = pages.current.remove(&key);
                return Change::One { key, before, after: None };
            }
        }
        Change::None
    }

    /// What is known of one object.
    pub fn get(&self, key: &Key) -> Option<T> {
        self.read().current.get(key).cloned()
    }

    /// Calls `see` with every object, in no order.
    pub fn each<'a, R>(&self, see: impl FnOnce(&mut dyn Iterator<Item = (&Key, &T)>) -> R) -> R
    where
        T: 'a,
    {
        see(&mut self.read().current.iter())
    }

    fn read(&self) -> RwLockReadGuard<'_, Pages<T>> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages<T>> {
        self.pages.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key<K: Resource>(object: &K) -> Key {
    let metadata = object.meta();
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Node;
    use kube::api::ObjectMeta;

    fn node(name: &str) -> Node {
        Node {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            ..Node::default()
        }
    }

    fn names(book: &Book<String>) -> Vec<String> {
        let mut names: Vec<String> = book.each(|nodes| nodes.map(|(_, name)| name.clone()).collect());
        names.sort();
        names
    }

    #[test]
    fn a_list_replaces_everything_at_once() {
        let book = Book::default();
        let take = |event: Event<Node>| book.take(event, |node| node.metadata.name.unwrap_or_default());
        take(Event::Apply(node("old")));
        take(Event::Init);
        take(Event::InitApply(node("a")));
        assert_eq!(names(&book), ["old"], "an unfinished list shows nothing");
        assert!(matches!(take(Event::InitDone), Change::All));
        assert_eq!(names(&book), ["a"]);
    }

    #[test]
    fn a_change_tells_what_was_before() {
        let book = Book::default();
        let take = |event: Event<Node>| book.take(event, |node| node.metadata.name.unwrap_or_default());
        assert!(matches!(take(Event::Apply(node("a"))), Change::One { before: None, after: Some(_), .. }));
        assert!(matches!(take(Event::Apply(node("a"))), Change::One { before: Some(_), after: Some(_), .. }));
        assert!(matches!(take(Event::Delete(node("a"))), Change::One { before: Some(_), after: None, .. }));
        assert!(names(&book).is_empty());
    }
}
