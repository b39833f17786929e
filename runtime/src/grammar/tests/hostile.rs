//! What is made to hurt is refused, or works within its limits. Most of these were published as ways to stop other
//! servers.

use super::*;
use crate::grammar::limits;
use std::iter::repeat_n;

fn schema(value: Value) -> Format {
    Format::JsonSchema(value)
}

fn regex(expression: &str) -> Format {
    Format::Regex(expression.to_owned())
}

fn lark(text: &str) -> Format {
    Format::Lark(text.to_owned())
}

fn nested(depth: usize, wrap: impl Fn(Value) -> Value) -> Value {
    (0..depth).fold(json!({"type": "integer"}), |inner, _| wrap(inner))
}

/// Nested repetitions, each terminal in the one before.
fn terminals(count: usize) -> String {
    let each = (0..count).map(|index| format!("T{index}: (T{} | \"x\")* \"z\"\n", index + 1));
    format!("start: T0\n{}T{count}: \"y\"\n", each.collect::<String>())
}

fn refused(format: Format) -> GrammarError {
    let refused = grammars(LONGER_TOKENS).compile(&format).err();
    refused.unwrap_or_else(|| panic!("taken: {:.200}", format!("{format:?}")))
}

#[test]
fn what_is_too_much_is_refused_with_its_limit() {
    use GrammarError::*;
    let long = "x".repeat(70_000);
    assert!(matches!(refused(schema(json!({"title": long}))), TooLong { limit: 65_536, .. }));
    assert!(matches!(refused(lark(&format!("start: \"{long}\""))), TooLong { limit: 65_536, .. }));
    assert!(matches!(refused(Format::Choice(vec![long])), TooLong { limit: 65_536, .. }));
    assert!(matches!(refused(regex(&"a".repeat(4097))), TooLong { bytes: 4097, limit: 4096, .. }));
    assert!(matches!(refused(schema(json!({"pattern": "a".repeat(4097)}))), TooLong { .. }));
    let choices = (0..1025).map(|index| index.to_string()).collect();
    assert_eq!(refused(Format::Choice(choices)), TooManyChoices { choices: 1025, limit: 1024 });
    assert_eq!(refused(Format::Choice(Vec::new())), NoChoice);
    assert_eq!(refused(Format::Choice(vec!["a".to_owned(), String::new()])), EmptyChoice);
    let deep = nested(65, |inner| json!({"not": inner}));
    assert_eq!(refused(schema(deep.clone())), TooDeep { what: "the schema", limit: 64 });
    assert!(matches!(refused(lark(&format!("start: %json {deep}"))), TooDeep { what: "the schema", .. }));
    let groups = format!("{}a{}", "(".repeat(140), ")*".repeat(140));
    assert!(matches!(refused(regex(&groups)), TooDeep { limit: 128, .. }));
    assert!(matches!(refused(lark(&format!("start: /{groups}/"))), TooDeep { limit: 128, .. }));
    assert!(matches!(refused(schema(json!({"patternProperties": {groups: true}}))), TooDeep { .. }));
    assert!(matches!(
        refused(lark(&terminals(2400))),
        TooDeep { what: "a terminal of the grammar", limit: 64 }
    ));
    assert_eq!(
        refused(schema(json!({"$ref": "http://example.org/x"}))),
        RemoteRef("http://example.org/x".to_owned())
    );
    assert!(matches!(refused(schema(json!({"multipleOf": 99_991}))), LargeMultiple(10_000)));
    let together = json!({"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]});
    assert!(matches!(refused(schema(together)), LargeMultiple(10_000)));
    assert!(matches!(refused(schema(json!({"multipleOf": 0.000_000_123_456_7}))), LargeMultiple(10_000)));
    assert!(matches!(refused(schema(json!(false))), Malformed(_)));
    assert!(matches!(refused(schema(json!({"type": "nothing"}))), Malformed(_)));
    assert!(matches!(refused(schema(json!({"$ref": "#"}))), AllowsNothing));
    assert!(matches!(
        refused(schema(json!({"enum": (0..3000).map(|i| json!({"a": i})).collect::<Vec<_>>()}))),
        TooComplex
    ));
}

#[test]
fn deep_terminals_are_found_in_every_spelling() {
    let groups = |depth| format!("start: A\n\n?b: A\nA: {}\"x\"{}\n", "(".repeat(depth), ")".repeat(depth));
    assert!(limits::check(&lark(&groups(64))).is_ok());
    assert!(matches!(limits::check(&lark(&groups(65))), Err(GrammarError::TooDeep { .. })));
    let lines = groups(65).replace('(', "(\n | ");
    assert!(matches!(limits::check(&lark(&lines)), Err(GrammarError::TooDeep { .. })));
    let slash = format!("start: /{}a{}\\//", "(".repeat(140), ")*".repeat(140));
    assert!(matches!(limits::check(&lark(&slash)), Err(GrammarError::TooDeep { .. })));
    // In rules, strings, comments and other lines, brackets are no depth.
    let flat = "start[lazy]: \"((((\" | b // ((((\n  | A\nA: /[(]/ \"]\" # [[[\n!b: A\n".to_owned()
        + &repeat_n("B: (A) [A]\n", 100).collect::<String>();
    assert!(limits::check(&lark(&flat)).is_ok());
    // A diamond has many paths, and is looked at once.
    let diamond: String = (0..60).map(|i| format!("D{i}: D{0} D{0} | D{0}\n", i + 1)).collect();
    assert!(limits::check(&lark(&format!("start: D0\n{diamond}D60: \"x\""))).is_ok());
    let remote = "start: %json {\"$ref\": \"file:///etc/passwd\"}";
    assert!(matches!(limits::check(&lark(remote)), Err(GrammarError::RemoteRef(_))));
}

/// Each is refused or can be followed, and nothing panics, hangs or grows without bound.
#[tokio::test]
async fn attacks_are_refused_or_followed() {
    let mut attacks: Vec<Format> = [
        "(a{1,1000}){1,1000}",
        "((((a{0,99}){0,99}){0,99}){0,99}){0,99}",
        "(a*)*b",
        "(a|aa)+$",
        "(x+x+)+y",
        "(.*a){20}",
        "(.*){1,32000}[bc]",
        "(a|b)*a(a|b){200}",
        "\\p{L}{1,1000}",
        "(?i)(ſtraße|\\w){1,1000}",
        "a{4000000000}",
        "(?:a?){1000}a{1000}",
        "(.*[^a]){0,2000}",
        "(",
        "[z-a]",
        "(?=a)b",
        "",
    ]
    .map(regex)
    .to_vec();
    let patterns = ["^(a+)+$", "(a{1,1000}){1,1000}", "^((\\w+\\s?)*)+$", "^(([a-z])+.)+[A-Z]([a-z])+$"];
    attacks.extend(patterns.map(|pattern| schema(json!({"type": "string", "pattern": pattern}))));
    let huge = [10_000u64, 4_000_000_000, 1 << 62];
    attacks.extend(huge.map(|many| schema(json!({"type": "string", "maxLength": many}))));
    attacks.extend(huge.map(|many| schema(json!({"type": "string", "minLength": many}))));
    attacks.extend(
        huge.map(|many| schema(json!({"type": "array", "items": {"type": "integer"}, "minItems": many}))),
    );
    attacks.extend(huge.map(|many| schema(json!({"type": "array", "items": true, "maxItems": many}))));
    attacks.extend(huge.map(|many| schema(json!({"type": "object", "minProperties": many}))));
    let chain = |link: fn(String) -> Value, links: usize| {
        let defs: Map<String, Value> =
            (0..links).map(|i| (i.to_string(), link(format!("#/$defs/{}", i + 1)))).collect();
        let mut root = json!({"$ref": "#/$defs/0", "$defs": defs});
        root["$defs"][links.to_string()] = json!({"type": "null"});
        schema(root)
    };
    attacks.extend([
        schema(nested(30, |inner| json!({"type": "array", "items": inner}))),
        schema(nested(30, |inner| json!({"type": "object", "properties": {"a": inner}, "required": ["a"]}))),
        schema(nested(30, |inner| json!({"anyOf": [inner, {"type": "null"}]}))),
        schema(nested(30, |inner| json!({"properties": {"z": {"type": "string"}}, "anyOf": [inner, {"type": "null"}]}))),
        schema(nested(5, |inner| json!({"type": "array", "items": inner, "minItems": 50, "maxItems": 50}))),
        schema(json!({"allOf": (0..30).map(|i| json!({"anyOf": [{"properties": {format!("a{i}"): true}}, {"properties": {format!("b{i}"): true}}]})).collect::<Vec<_>>()})),
        schema(json!({"enum": (0..8_000).map(|i| format!("v{i}")).collect::<Vec<_>>()})),
        schema(json!({"properties": (0..1200).map(|i| (format!("property_{i}"), json!({"type": "integer"}))).collect::<Map<_, _>>()})),
        schema(json!({"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"l": {"$ref": "#/$defs/n"}, "r": {"$ref": "#/$defs/n"}}}}})),
        schema(json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})),
        schema(json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"type": "object"}]}}})),
        chain(|next| json!({"$ref": next}), 2000),
        chain(|next| json!({"anyOf": [{"$ref": next}]}), 1300),
        chain(|next| json!({"type": "array", "allOf": [{"$ref": next}]}), 1000),
        schema(json!({"patternProperties": {"^(a+)+$": true, "^(b|c)*d(b|c){40}$": true}})),
        schema(json!({"type": "number", "minimum": -1.2e300, "maximum": 1.7e308})),
        schema(json!({"allOf": [{"pattern": "^(a|b)*a(a|b){12}$"}, {"type": "string", "minLength": 100, "maxLength": 100_000}]})),
        schema(json!({"x-guidance": {"whitespace_pattern": ".*"}, "type": "object"})),
    ]);
    let rules: String = (0..5000).map(|i| format!("r{i}: r{} | \"x\"\n", i + 1)).collect();
    attacks.push(lark(&format!("start: r0\n{rules}r5000: \"y\"")));
    attacks.push(lark(&terminals(30)));
    attacks.extend(
        [
            "start: foo (",
            "start: foo",
            "start: start \"a\" | \"a\"",
            "start: start start | \"a\"",
            "start: a a a a a\na: b*\nb: a | \"x\"",
            "start: start start |",
            "start: a\na: b\nb: a |",
            "start: \"a\" start",
            "start: A\nA: B\nB: A",
            "start: (\"a\"{1,1000}){1,1000}",
            "start: a{1,100000}\na: b{1,100000}\nb: \"x\" | start",
            "start: <nope>",
            "start: <[*]>{0,10}",
            "start: A\nA: ~/(.*a.*){10}/",
            "start: A\nA: /(.*a.{9}b.*)+/ & ~/(.*b.{8}a.*)+/ & /(.*c.{7})+/",
            "start: p::0\np::_ : \"a\" p::incr(_) %if lt(_, 1000000) | \"b\"",
            "%llguidance {\"allow_invalid_utf8\": true}\nstart: /(?s-u:.)*/",
            "%import common.NOTHING\nstart: NOTHING",
            "\u{0}",
        ]
        .map(lark),
    );
    let grammars = grammars(LONGER_TOKENS);
    for attack in attacks {
        let name = format!("{attack:?}").chars().take(120).collect::<String>();
        let mut dice = Dice(5);
        match grammars.compile_aside(attack).await {
            Err(refused) => {
                let sentence = refused.to_string();
                assert!(!sentence.contains("backtrace") && sentence.len() < 1000, "{name}: {sentence}");
                assert!(!matches!(refused, GrammarError::Busy(_)), "{name}: {sentence}");
            }
            Ok(mut constraint) => drop(followed(&grammars, &mut *constraint, &mut dice, &name)),
        }
    }
    let after = grammars.compile_aside(Format::JsonObject).await;
    assert!(after.is_ok(), "{after:?}");
}

/// A grammar may ask for special tokens, so only that every step ends well is looked at.
fn followed(
    grammars: &Grammars,
    constraint: &mut dyn Constraint,
    dice: &mut Dice,
    name: &str,
) -> Result<(), String> {
    for _ in 0..60 {
        let allowed = allowed(constraint)
            .inspect_err(|why| assert!(why.contains("kept to its form"), "{name}: {why}"))?;
        assert!(!allowed.is_empty(), "{name}");
        let token = allowed[dice.below(allowed.len())];
        if is_end(token) || grammars.text.tokenizer.bytes(token).is_empty() {
            return Ok(());
        }
        constraint.accept(token)?;
    }
    Ok(())
}
