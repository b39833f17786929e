//! Answers that must have a form: a JSON schema, a regular expression, a grammar. A form is compiled once per request,
//! off the network's threads, and then tells the engine token by token what may come. llguidance does the work
//! (<https://github.com/guidance-ai/llguidance>); this module holds what a client may ask of it.
//!
//! Grammars come from outside, so everything is bounded: what is too much is refused before it is compiled
//! ([`limits`]), what turns out to be too much is refused by counts and not by time, and what is too much only at
//! some later token ends that request alone.

mod aside;
mod follower;
pub(crate) mod limits;
mod nesting;
mod vocabulary;

#[cfg(test)]
mod tests;

use crate::served_model::TextSide;
use coterie_engine::Constraint;
use follower::Follower;
use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Logger, Matcher, ParserFactory};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use thiserror::Error;
use tokio::sync::Semaphore;

/// Between the parts of a JSON answer: nothing, a space, or a new line and its indentation. A model that may write
/// more of it sometimes never stops.
const JSON_WHITESPACE: &str = r" |\n[ \t]{0,32}";
/// Work that compiling may have cost, in llguidance's units; ordinary schemas take 3,000 to 80,000. What costs more
/// to compile is slow at each token, too.
const MOST_COST: u64 = 300_000;
/// Grammars that are compiled at the same time; others wait. The engine needs the cores.
const AT_ONCE: usize = 1;

/// The form that an answer must have.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// Any JSON object.
    JsonObject,
    /// JSON that this schema accepts. Keywords that cannot be enforced are refused, `oneOf` is followed as `anyOf`,
    /// and `$ref` stays inside the schema.
    JsonSchema(Value),
    /// Text that this expression matches from beginning to end, in the syntax of Rust's regex crate.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// Text of the rule `start` of this grammar, in llguidance's variant of Lark
    /// (<https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md>).
    Lark(String),
}

/// Compiles forms for one model.
pub struct Grammars {
    text: Arc<TextSide>,
    /// Tokens that the model has.
    vocabulary: usize,
    stop_tokens: Arc<[u32]>,
    /// Made at the first use: a large vocabulary takes a quarter of a second and 60 MB.
    factory: OnceLock<Result<ParserFactory, GrammarError>>,
    places: Arc<Semaphore>,
}

/// Why a form was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)] // each variant is its message
pub enum GrammarError {
    #[error("{what} has {bytes} bytes, and {limit} may be; make it shorter")]
    TooLong { what: &'static str, bytes: usize, limit: usize },
    #[error("there are {choices} choices, and {limit} may be; give fewer")]
    TooManyChoices { choices: usize, limit: usize },
    #[error("there is no choice; give at least one")]
    NoChoice,
    #[error("a choice is empty; leave it out")]
    EmptyChoice,
    #[error("{what} is nested more than {limit} deep; make it flatter")]
    TooDeep { what: &'static str, limit: usize },
    #[error(
        "'$ref' to {0:?} leaves the schema; put what it means under '$defs' and refer to that as '#/$defs/…'"
    )]
    RemoteRef(String),
    #[error(
        "the numbers in 'multipleOf' are too large, or too many together; their least common multiple may be {0}"
    )]
    LargeMultiple(u64),
    #[error("it cannot be used: {0}")]
    Malformed(String),
    #[error("it is too complex; make it smaller, with fewer alternatives and repetitions")]
    TooComplex,
    #[error("no answer can ever have this form")]
    AllowsNothing,
    #[error("it took longer than {0} s to compile; make it smaller")]
    TooSlow(u64),
    #[error("others were being compiled for {0} s; try again later")]
    Busy(u64),
    #[error("this model's answers cannot be given a form: {0}")]
    Unavailable(String),
}

impl Grammars {
    /// For a model with this text side, so many tokens, and these tokens that end an answer.
    pub fn new(text: Arc<TextSide>, vocabulary: usize, stop_tokens: &[u32]) -> Grammars {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Grammars { text, vocabulary, stop_tokens: stop_tokens.into(), factory: OnceLock::new(), places }
    }

    /// What lets only answers of this form through. Takes about a millisecond, and for hostile forms up to a second.
    pub fn compile(&self, format: &Format) -> Result<Box<dyn Constraint>, GrammarError> {
        limits::check(format)?;
        let factory = self.factory().as_ref().map_err(Clone::clone)?;
        let limits = parser_limits(format);
        let most_items = limits.max_items_in_row;
        let parser = factory.create_parser_from_init_ext(
            GrammarInit::Serialized(grammar(format)),
            Logger::new(0, 0),
            InferenceCapabilities::default(),
            limits,
        );
        let parser =
            parser.map_err(|error| GrammarError::Malformed(follower::sentence(&error.to_string())))?;
        let work = parser.parser_stats();
        if work.lexer_cost > MOST_COST || work.all_items > most_items {
            return Err(GrammarError::TooComplex);
        }
        let follower = Follower::begin(Matcher::new(Ok(parser)))?;
        Ok(Box::new(follower))
    }

    /// `text` as the grammar [`Format::Lark`] must spell it: a special token of the tokenizer is that token, which
    /// no quoted text ever matches.
    pub fn lark_literal(&self, text: &str) -> Result<String, GrammarError> {
        let factory = self.factory().as_ref().map_err(Clone::clone)?;
        let special = factory.tok_env().tok_trie().get_special_token(text);
        Ok(special.map_or_else(|| Value::from(text).to_string(), |token| format!("<[{token}]>")))
    }

    fn factory(&self) -> &Result<ParserFactory, GrammarError> {
        self.factory.get_or_init(|| {
            vocabulary::factory(&self.text.tokenizer, self.vocabulary, &self.stop_tokens)
                .map_err(GrammarError::Unavailable)
        })
    }
}

fn grammar(format: &Format) -> TopLevelGrammar {
    match format {
        Format::JsonObject => TopLevelGrammar::from_json_schema(with_json_options(json!({"type": "object"}))),
        Format::JsonSchema(schema) => TopLevelGrammar::from_json_schema(with_json_options(schema.clone())),
        Format::Regex(expression) => TopLevelGrammar::from_regex(expression),
        Format::Choice(choices) => {
            // As one terminal: a rule with a thousand alternatives would be slow at each token.
            let quoted: Vec<String> =
                choices.iter().map(|choice| Value::from(choice.as_str()).to_string()).collect();
            TopLevelGrammar::from_lark(format!("start: CHOICE\nCHOICE: {}", quoted.join(" | ")))
        }
        Format::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
    }
}

/// The schema with what llguidance is told about it beside; also for a schema inside a Lark grammar (`%json`).
pub fn with_json_options(schema: Value) -> Value {
    let options = json!({"whitespace_pattern": JSON_WHITESPACE, "coerce_one_of": true});
    match schema {
        Value::Object(mut fields) => {
            fields.insert("x-guidance".to_owned(), options);
            Value::Object(fields)
        }
        Value::Bool(true) => json!({"x-guidance": options}),
        other => other,
    }
}

/// What llguidance may spend. A step's limits hold for one token of one request, on the engine's thread: they keep it
/// to a few milliseconds (20,000 units of fuel take 1.5 ms, a thousand items 0.1 ms, more where a rule is ambiguous).
fn parser_limits(format: &Format) -> ParserLimits {
    // Only a grammar can be ambiguous, and then the work grows with the square of a row; a schema's rows are long
    // where an object has many optional properties (four items each), and cheap.
    let (max_items_in_row, step_max_items) = match format {
        Format::Lark(_) => (400, 5_000),
        _ => (2_000, 20_000),
    };
    ParserLimits {
        max_items_in_row,
        step_max_items,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 20_000,
        // About 2 kB each; a string with `maxLength` takes one for each of its characters.
        max_lexer_states: 20_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
    }
}
