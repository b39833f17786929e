//! Damage to JSON values: the result still parses, and is wrong further in.

use super::random::Random;
use serde_json::{Map, Value, json};

/// Bytes that repeating an item adds at most.
const MOST_BYTES: usize = 100_000;

/// `value` with one to four changes; `other` gives another seed to take parts from.
pub fn damaged(
    random: &mut Random,
    mut value: Value,
    words: &[&str],
    other: impl Fn(&mut Random) -> Option<Value>,
) -> Value {
    for _ in 0..=random.length(3) {
        let part = match random.below(4) {
            0 => other(random).map(|mut other| std::mem::take(place(random, &mut other))),
            _ => None,
        };
        let part = part.unwrap_or_else(|| edge(random, words));
        change(random, &mut value, part, words);
    }
    value
}

/// Changes one place in `value`, with `part` where something is put there.
fn change(random: &mut Random, value: &mut Value, part: Value, words: &[&str]) {
    let place = place(random, value);
    match (random.below(6), place) {
        (0, Value::Object(fields)) => {
            if let Some(key) = some_key(random, fields) {
                fields.shift_remove(&key);
            }
        }
        (1, Value::Object(fields)) => {
            if let Some(key) = some_key(random, fields)
                && let Some(value) = fields.shift_remove(&key)
            {
                fields.insert(word(random, words), value);
            }
        }
        (2, Value::Object(fields)) => drop(fields.insert(word(random, words), part)),
        (0, Value::Array(items)) if !items.is_empty() => drop(items.remove(random.below(items.len()))),
        (1, Value::Array(items)) => items.push(part),
        (2, Value::Array(items)) if !items.is_empty() => {
            let again = random.one_of(items).clone();
            let times = random.length(2000).min(MOST_BYTES / again.to_string().len());
            items.extend(std::iter::repeat_n(again, times));
        }
        (3, Value::String(text)) => {
            let at = text.floor_char_boundary(random.below(text.len() + 1));
            text.insert_str(at, &word(random, words));
        }
        (3, place) => {
            let inner = place.take();
            *place = if random.one_in(2) { json!([inner]) } else { json!({ word(random, words): inner }) };
        }
        (4, place) => *place = deep(random, part, words),
        (_, place) => *place = part,
    }
}

/// A random place in `value`, `value` itself included.
fn place<'a>(random: &mut Random, value: &'a mut Value) -> &'a mut Value {
    let inside = match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    };
    if inside == 0 || random.one_in(5) {
        return value;
    }
    let at = random.below(inside);
    match value {
        Value::Array(items) => place(random, &mut items[at]),
        Value::Object(fields) => match fields.iter_mut().nth(at) {
            Some((_, inner)) => place(random, inner),
            None => unreachable!("at is below the number of fields"),
        },
        _ => value,
    }
}

/// `inner` far down.
fn deep(random: &mut Random, inner: Value, words: &[&str]) -> Value {
    let key = word(random, words);
    (0..random.length(120))
        .fold(inner, |inner, _| if random.one_in(2) { json!([inner]) } else { json!({ key.clone(): inner }) })
}

fn some_key(random: &mut Random, fields: &Map<String, Value>) -> Option<String> {
    fields.keys().nth(random.below(fields.len())).cloned()
}

fn word(random: &mut Random, words: &[&str]) -> String {
    match random.below(8) {
        0 => String::new(),
        1 => "x".repeat(random.length(5000)),
        2 => "\u{0}\u{7f}\u{feff}𝄞".to_owned(),
        _ if words.is_empty() => "x".to_owned(),
        _ => (*random.one_of(words)).to_owned(),
    }
}

/// A value at which something may go wrong.
fn edge(random: &mut Random, words: &[&str]) -> Value {
    match random.below(9) {
        0 => Value::Null,
        1 => json!(random.one_in(2)),
        2 => json!(random.below(300)),
        3 => random
            .one_of(&[json!(-1), json!(i64::MIN), json!(i64::MAX), json!(u64::MAX), json!(4_294_967_296_u64)])
            .clone(),
        4 => random.one_of(&[json!(0.5), json!(-0.0), json!(1e308), json!(5e-324), json!(1e18)]).clone(),
        5 => json!([]),
        6 => json!({}),
        _ => json!(word(random, words)),
    }
}
