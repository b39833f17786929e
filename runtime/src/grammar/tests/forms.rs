//! What each form lets through.

use super::*;
use crate::grammar::with_json_options;

fn person() -> Format {
    Format::JsonSchema(json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
        "required": ["name", "age"],
        "additionalProperties": false
    }))
}

#[test]
fn a_schema_lets_only_its_json_through() {
    let grammars = grammars(LONGER_TOKENS);
    for good in [
        r#"{"name":"Ada","age":36}"#,
        r#"{"name": "Ada", "age": 36}"#,
        "{\n  \"name\": \"ü\\n\",\n  \"age\": 150\n}",
    ] {
        assert!(takes(&grammars, &person(), good), "{good}");
    }
    for bad in [
        "",
        r#"{"name":"Ada"}"#,
        r#"{"age":36,"name":"Ada"}"#,
        r#"{"name":"Ada","age":151}"#,
        r#"{"name":"Ada","age":-1}"#,
        r#"{"name":"Ada","age":36,"more":1}"#,
        r#" {"name":"Ada","age":36}"#,
        "{\"name\":\"A\nda\",\"age\":36}",
    ] {
        assert!(!takes(&grammars, &person(), bad), "{bad}");
    }
}

#[test]
fn a_json_object_is_an_object_and_not_endless_space() {
    let grammars = grammars(LONGER_TOKENS);
    let format = Format::JsonObject;
    assert!(takes(&grammars, &format, r#"{"a": [1, {"b": null}], "c": 1.5e3}"#));
    for bad in ["[]", "5", "null", "\"a\"", "{} {}", "{  }", "{\n\n}"] {
        assert!(!takes(&grammars, &format, bad), "{bad:?}");
    }
    assert!(takes(&grammars, &format, &format!("{{\n{}}}", " ".repeat(32))));
    assert!(!takes(&grammars, &format, &format!("{{\n{}}}", " ".repeat(33))));
}

#[test]
fn a_regular_expression_is_matched_from_beginning_to_end() {
    let grammars = grammars(LONGER_TOKENS);
    for expression in ["[a-c]{2,3}/\\d", "^[a-c]{2,3}/\\d$"] {
        let format = Format::Regex(expression.to_owned());
        assert!(takes(&grammars, &format, "abc/7"), "{expression}");
        for bad in ["a/7", "abcc/7", "abc/", "abc/77", "xabc/7"] {
            assert!(!takes(&grammars, &format, bad), "{expression} {bad}");
        }
    }
}

#[test]
fn a_choice_is_taken_as_it_is_written() {
    let grammars = grammars(LONGER_TOKENS);
    let choices = ["yes", "no", "a\"b\\c\n/漢", "yes, but"].map(str::to_owned).to_vec();
    let format = Format::Choice(choices.clone());
    for choice in &choices {
        assert!(takes(&grammars, &format, choice), "{choice}");
    }
    assert!(!takes(&grammars, &format, "ye"));
    assert!(!takes(&grammars, &format, "yes,"));
    assert!(!takes(&grammars, &format, "nono"));
}

#[test]
fn a_finished_answer_can_only_end() {
    let grammars = grammars(LONGER_TOKENS);
    let mut constraint = grammars.compile(&Format::Choice(vec!["no".to_owned()])).unwrap();
    feed(&mut *constraint, "no").unwrap();
    assert_eq!(allowed(&mut *constraint), Ok(vec![END, OTHER_END]));
    let mut constraint = grammars.compile(&Format::Regex("[a-z<>]*".to_owned())).unwrap();
    for text in ["", "x<", "eot>"] {
        feed(&mut *constraint, text).unwrap();
        let allowed = allowed(&mut *constraint).unwrap();
        assert!(allowed.contains(&END) && allowed.contains(&OTHER_END) && allowed.contains(&u32::from(b'<')));
        assert!(!allowed.contains(&CALL));
    }
}

#[test]
fn a_token_that_ends_answers_is_no_text_even_if_its_tokenizer_says_so() {
    let grammars = grammars(LONGER_TOKENS);
    let mut constraint = grammars.compile(&person()).unwrap();
    feed(&mut *constraint, r#"{"name":"x"#).unwrap();
    let allowed = allowed(&mut *constraint).unwrap();
    assert!(allowed.contains(&u32::from(b'<')));
    assert!([END, OTHER_END, CALL].iter().all(|token| !allowed.contains(token)), "{allowed:?}");
}

#[test]
fn a_grammar_holds_json_between_tags() {
    let grammars = grammars(LONGER_TOKENS);
    let schema =
        with_json_options(json!({"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}},
        "required": ["city"], "additionalProperties": false}));
    // Neither tag is a token that the tokenizer calls special; they are text, in one token or many.
    let text = format!("start: \"<call>\\n\" %json {schema} \"\\n</tool_call>\"");
    let format = Format::Lark(text);
    assert!(takes(&grammars, &format, "<call>\n{\"city\": \"Rome\"}\n</tool_call>"));
    assert!(!takes(&grammars, &format, "<call>\n{\"city\": \"Bonn\"}\n</tool_call>"));
    assert!(!takes(&grammars, &format, "{\"city\": \"Rome\"}"));

    // A special token is not its text.
    let open = grammars.lark_literal("<tool_call>").unwrap();
    assert_eq!(
        (open.as_str(), grammars.lark_literal("</tool_call>").unwrap().as_str()),
        ("<[258]>", "\"</tool_call>\"")
    );
    let text = format!("start: {open} \"\\n\" %json {schema} \"\\n</tool_call>\"");
    let mut constraint = grammars.compile(&Format::Lark(text)).unwrap();
    assert_eq!(allowed(&mut *constraint), Ok(vec![CALL]));
    constraint.accept(CALL).unwrap();
    feed(&mut *constraint, "\n{\"city\":\"Oslo\"}\n").unwrap();
    let closing = ["</", "tool", "_call"]
        .map(|text| LONGER + LONGER_TOKENS.iter().position(|t| *t == text).unwrap() as u32);
    for token in closing {
        assert!(allowed(&mut *constraint).unwrap().contains(&token));
        constraint.accept(token).unwrap();
    }
    feed(&mut *constraint, ">").unwrap();
    assert_eq!(allowed(&mut *constraint), Ok(vec![END, OTHER_END]));
}

#[test]
fn a_fork_goes_its_own_way() {
    let grammars = grammars(LONGER_TOKENS);
    let mut one = grammars.compile(&Format::Choice(vec!["ax".to_owned(), "bx".to_owned()])).unwrap();
    let mut other = one.fork();
    one.accept(b'a'.into()).unwrap();
    assert!(allowed(&mut *other).unwrap().contains(&u32::from(b'b')));
    other.accept(b'b'.into()).unwrap();
    let mut late = other.fork();
    assert_eq!(allowed(&mut *one), Ok(vec![b'x'.into()]));
    assert_eq!(allowed(&mut *late), Ok(vec![b'x'.into()]));
    assert!(one.accept(b'q'.into()).is_err());
    assert!(one.allow(&mut TokenMask::default()).is_err(), "an error is for good");
    assert_eq!(allowed(&mut *other), Ok(vec![b'x'.into()]));
}

#[test]
fn a_model_that_cannot_end_an_answer_has_no_forms() {
    let with_ends = grammars(&[]);
    let without = Grammars::new(with_ends.text.clone(), vocabulary(&[]), &[]);
    let refused = without.compile(&Format::JsonObject).unwrap_err();
    assert!(matches!(refused, GrammarError::Unavailable(_)), "{refused}");
}
