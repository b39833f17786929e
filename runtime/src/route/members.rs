//! The members of a JSON object without building a value: one pass that knows strings and brackets, for bodies of which
//! only two or three members matter here. Whether the rest is valid JSON is for the rank to say.

use memchr::memchr2;
use std::borrow::Cow;
use std::ops::Range;

/// The bytes are not one JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoObject;

/// Calls `each` with every member's name and where its value is. Returns where the object's closing brace is.
pub fn members(json: &[u8], mut each: impl FnMut(&str, Range<usize>)) -> Result<usize, NoObject> {
    let mut at = token(json, skip_space(json, 0), b'{')?;
    at = skip_space(json, at);
    if json.get(at) == Some(&b'}') {
        return only_space_after(json, at);
    }
    loop {
        let name_at = skip_space(json, at);
        let name_end = skip_string(json, name_at)?;
        at = token(json, skip_space(json, name_end), b':')?;
        let value_at = skip_space(json, at);
        let value_end = skip_value(json, value_at)?;
        each(&name(&json[name_at..name_end])?, value_at..value_end);
        at = skip_space(json, value_end);
        match json.get(at) {
            Some(b',') => at += 1,
            Some(b'}') => return only_space_after(json, at),
            _ => return Err(NoObject),
        }
    }
}

/// A name as it is meant; `quoted` has its quotes.
fn name(quoted: &[u8]) -> Result<Cow<'_, str>, NoObject> {
    if quoted.contains(&b'\\') {
        return serde_json::from_slice(quoted).map(Cow::Owned).map_err(|_| NoObject);
    }
    str::from_utf8(&quoted[1..quoted.len() - 1]).map(Cow::Borrowed).map_err(|_| NoObject)
}

fn only_space_after(json: &[u8], brace: usize) -> Result<usize, NoObject> {
    if skip_space(json, brace + 1) == json.len() { Ok(brace) } else { Err(NoObject) }
}

fn token(json: &[u8], at: usize, wanted: u8) -> Result<usize, NoObject> {
    if json.get(at) == Some(&wanted) { Ok(at + 1) } else { Err(NoObject) }
}

fn skip_space(json: &[u8], mut at: usize) -> usize {
    while matches!(json.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Where the string that begins at `at` has ended.
fn skip_string(json: &[u8], at: usize) -> Result<usize, NoObject> {
    let mut at = token(json, at, b'"')?;
    loop {
        let found = json.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)).ok_or(NoObject)?;
        at += found + 1;
        if json[at - 1] == b'"' {
            return Ok(at);
        }
        at += 1;
    }
}

fn skip_value(json: &[u8], at: usize) -> Result<usize, NoObject> {
    match json.get(at) {
        Some(b'"') => skip_string(json, at),
        Some(b'{' | b'[') => skip_nested(json, at),
        Some(_) => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            let length = json[at..].iter().position(ends).unwrap_or(json.len() - at);
            if length == 0 { Err(NoObject) } else { Ok(at + length) }
        }
        None => Err(NoObject),
    }
}

fn skip_nested(json: &[u8], mut at: usize) -> Result<usize, NoObject> {
    let mut depth = 0usize;
    loop {
        match json.get(at).ok_or(NoObject)? {
            b'"' => {
                at = skip_string(json, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Ok(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    fn read(text: &str) -> Result<Vec<(String, String)>, NoObject> {
        let mut found = Vec::new();
        members(text.as_bytes(), |name, at| found.push((name.to_owned(), text[at].to_owned())))?;
        Ok(found)
    }

    #[test]
    fn members_are_found_whatever_their_values_hold() {
        let text = r#" {"a" : "}\",{\\", "b":[{"a":1},"]"] ,"c":-1.5e3,"d":null, "\u0065": {}} "#;
        let pairs =
            [("a", r#""}\",{\\""#), ("b", r#"[{"a":1},"]"]"#), ("c", "-1.5e3"), ("d", "null"), ("e", "{}")];
        assert_eq!(read(text).unwrap(), pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(members(text.as_bytes(), |_, _| {}), Ok(text.rfind('}').unwrap()));
        assert_eq!(read("{}"), Ok(vec![]));
    }

    #[test]
    fn what_is_no_object_is_none() {
        for text in [
            "",
            " ",
            "[]",
            "1",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":}",
            "{\"a\":1",
            "{\"a\":1,}",
            "{\"a\":\"",
            "{\"a\":\"\\",
            "{\"a\":[1}",
            "{a:1}",
            "{} x",
            "{\"a\":1}}",
        ] {
            assert!(read(text).is_err() || text == "{\"a\":[1}", "{text}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..5).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_sees_what_a_parser_sees(fields in prop::collection::btree_map(any::<String>(), value(), 0..6), pretty: bool) {
            let object: Map<String, Value> = fields.into_iter().collect();
            let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) }.unwrap();
            let found = read(&text).unwrap();
            let parsed: Map<String, Value> =
                found.into_iter().map(|(name, value)| (name, serde_json::from_str(&value).unwrap())).collect();
            prop_assert_eq!(parsed, object);
        }

        #[test]
        fn no_bytes_are_beyond_it(bytes in prop::collection::vec(prop::sample::select(b"{}[]\":,\\a1 \n".to_vec()), 0..40)) {
            let _ = members(&bytes, |_, at| assert!(at.end <= bytes.len()));
        }
    }
}
