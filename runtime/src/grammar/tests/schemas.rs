//! Random answers under random schemas are valid, and always end.

use super::*;
use proptest::prelude::*;

/// A pattern, and what it means.
type Pattern = (&'static str, fn(&str) -> bool);

const PATTERNS: [Pattern; 3] = [
    ("^[A-Z]{2}-[0-9]{3}$", |text| {
        let bytes = text.as_bytes();
        bytes.len() == 6
            && bytes[..2].iter().all(u8::is_ascii_uppercase)
            && bytes[2] == b'-'
            && bytes[3..].iter().all(u8::is_ascii_digit)
    }),
    ("^(foo|bar)+$", |text| !text.is_empty() && text.replace("foo", "").replace("bar", "").is_empty()),
    ("^a.b$", |text| {
        let chars: Vec<char> = text.chars().collect();
        matches!(chars[..], ['a', middle, 'b'] if middle != '\n')
    }),
];

fn schema() -> impl Strategy<Value = Value> {
    let range = |least: i32, span: i32| (least, least + span);
    let leaf = prop_oneof![
        Just(json!({"type": "null"})),
        Just(json!({"type": "boolean"})),
        (-300..300i32, 0..500i32).prop_map(move |(least, span)| {
            let (least, most) = range(least, span);
            json!({"type": "integer", "minimum": least, "maximum": most})
        }),
        (-300..300i32, 0..500i32).prop_map(move |(least, span)| {
            let (least, most) = range(least, span);
            json!({"type": "number", "minimum": f64::from(least) / 8.0, "maximum": f64::from(most) / 8.0})
        }),
        (0..4u32, 0..5u32).prop_map(|(least, span)| {
            json!({"type": "string", "minLength": least, "maxLength": least + span})
        }),
        (0..PATTERNS.len()).prop_map(|index| json!({"type": "string", "pattern": PATTERNS[index].0})),
        prop::collection::vec(
            prop_oneof![Just(json!("x\"y")), Just(json!(7)), Just(json!(null)), Just(json!("漢"))],
            1..4
        )
        .prop_map(|values| json!({"enum": values})),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            (prop::collection::vec((inner.clone(), any::<bool>()), 0..4)).prop_map(|properties| {
                let names = || (0..).map(|index| format!("p{index}"));
                let required: Vec<String> =
                    names().zip(&properties).filter(|(_, (_, must))| *must).map(|(name, _)| name).collect();
                let properties: Map<String, Value> =
                    names().zip(properties).map(|(name, (schema, _))| (name, schema)).collect();
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
            }),
            (inner.clone(), 0..3u32, 0..3u32).prop_map(|(items, least, span)| {
                json!({"type": "array", "items": items, "minItems": least, "maxItems": least + span})
            }),
            prop::collection::vec(inner, 1..3).prop_map(|options| json!({"anyOf": options})),
        ]
    })
}

/// For the keywords that [`schema`] makes.
fn is_valid(schema: &Value, value: &Value) -> bool {
    let within = |number: f64, least: &str, most: &str| {
        schema[least].as_f64().is_none_or(|least| number >= least)
            && schema[most].as_f64().is_none_or(|most| number <= most)
    };
    if let Some(options) = schema["anyOf"].as_array() {
        return options.iter().any(|option| is_valid(option, value));
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.contains(value);
    }
    match schema["type"].as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => {
            let whole = value.as_f64().filter(|number| number.fract() == 0.0);
            whole.is_some_and(|number| within(number, "minimum", "maximum"))
        }
        "number" => value.as_f64().is_some_and(|number| within(number, "minimum", "maximum")),
        "string" => value.as_str().is_some_and(|text| {
            let pattern = schema["pattern"].as_str();
            within(text.chars().count() as f64, "minLength", "maxLength")
                && PATTERNS.iter().all(|(name, matches)| pattern != Some(*name) || matches(text))
        }),
        "array" => value.as_array().is_some_and(|items| {
            within(items.len() as f64, "minItems", "maxItems")
                && items.iter().all(|item| is_valid(&schema["items"], item))
        }),
        "object" => value.as_object().is_some_and(|fields| {
            let required = schema["required"].as_array().unwrap();
            required.iter().all(|name| fields.contains_key(name.as_str().unwrap()))
                && fields.iter().all(|(name, field)| {
                    schema["properties"].get(name).is_some_and(|schema| is_valid(schema, field))
                })
        }),
        other => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_random_answer_is_valid_and_ends(schema in schema(), seed in any::<u64>()) {
        thread_local!(static BOTH: [Arc<Grammars>; 2] = [grammars(&[]), grammars(LONGER_TOKENS)]);
        for grammars in BOTH.with(Clone::clone) {
            let begun = grammars.compile(&Format::JsonSchema(schema.clone())).unwrap();
            let mut dice = Dice(seed);
            for _ in 0..3 {
                let answer = random_answer(&grammars, &mut *begun.fork(), &mut dice, 2000).unwrap();
                let answer = String::from_utf8(answer.expect("it never ends")).unwrap();
                let value: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
                prop_assert!(is_valid(&schema, &value), "{} under {}", answer, schema);
            }
        }
    }
}
