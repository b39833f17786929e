//! Jinja as HuggingFace renders it: the same options, the same extra functions, and within the bounds of `bounds`.

use super::bounds::{self, Bounded, FUEL, LARGEST_TEMPLATE, RECURSION_LIMIT, on_a_deep_stack};
use super::python_json::PythonJson;
use super::source;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, State};

/// Largest JSON that `tojson` may write in compact form, bytes; parsed for its second form, it takes up to a hundred
/// times as much.
const LARGEST_JSON: usize = 2 << 20;
/// What a byte of it costs, in bytes of plain text.
const BYTES_PER_JSON_BYTE: usize = 32;
/// Spaces a level that `tojson` may be asked for.
const MOST_INDENT: usize = 16;
/// Characters of what a template says when it refuses a conversation.
const LONGEST_SENTENCE: usize = 1000;
const NAME: &str = "chat_template";

/// A template's variables, by name.
pub type Variables = serde_json::Map<String, serde_json::Value>;

/// A compiled template.
pub struct Interpreter {
    environment: Environment<'static>,
}

impl Interpreter {
    /// Compiles a template. The error is a sentence without a full stop.
    pub fn new(text: &str) -> Result<Interpreter, String> {
        if text.len() > LARGEST_TEMPLATE {
            return Err(format!("it has {} bytes, and {LARGEST_TEMPLATE} are allowed", text.len()));
        }
        compiled(source::without_generation_marks(text))
            .map(|environment| Interpreter { environment })
            .map_err(|error| sentence(&error))
    }

    /// What the template writes.
    pub fn render(&self, variables: &Variables) -> Result<String, String> {
        let rendered = on_a_deep_stack(|| {
            let mut prompt = Bounded::prompt();
            self.environment
                .get_template(NAME)?
                .render_captured_to(Value::from(Serde(variables)), &mut prompt)?;
            prompt.into_text()
        });
        rendered.map_err(|error| sentence(&error))
    }
}

fn compiled(source: String) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION_LIMIT);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(bounds::method);
    environment.remove_global("debug"); // writes everything that it sees, unpaid
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", to_json);
    environment.add_test("iterable", is_iterable);
    on_a_deep_stack(|| {
        environment.add_template_owned(NAME, source)?;
        Ok(environment)
    })
}

/// An error without the position in the template, which a client cannot see; the template may have written it.
fn sentence(error: &Error) -> String {
    let mut said = whole_sentence(error);
    if let Some((end, _)) = said.char_indices().nth(LONGEST_SENTENCE) {
        said.truncate(end);
        said.push('…');
    }
    said
}

fn whole_sentence(error: &Error) -> String {
    // Of output that could not be written, only the source says why.
    let source = std::error::Error::source(error).filter(|_| error.kind() == ErrorKind::WriteFailure);
    match (source, error.detail()) {
        (Some(source), _) => source.to_string(),
        (None, Some(detail)) => detail.to_owned(),
        (None, None) => error.kind().to_string(),
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}")))
}

/// As in Jinja, where `none` is not; templates ask it of tools that are not there.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// Python's `json.dumps`, as HuggingFace gives it to templates: not escaped for HTML, `", "` and `": "` between.
fn to_json(state: &State, value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let wrong = |why: String| Error::new(ErrorKind::BadSerialization, format!("tojson: {why}"));
    if indent.is_some_and(|spaces| spaces > MOST_INDENT) {
        return Err(wrong(format!("indent must be {MOST_INDENT} at most")));
    }
    // First into a bounded text: a value that holds itself twice, thirty times over, is small only until it is written.
    let mut compact = Bounded::new(LARGEST_JSON);
    serde_json::to_writer(&mut compact, &value).map_err(|error| wrong(error.to_string()))?;
    bounds::pay(state, compact.bytes().len().saturating_mul(BYTES_PER_JSON_BYTE))?;
    let json: serde_json::Value =
        serde_json::from_slice(compact.bytes()).map_err(|error| wrong(error.to_string()))?;
    let style = PythonJson { indent, ascii: ascii.unwrap_or(false), sorted: sorted.unwrap_or(false) };
    Ok(Value::from_safe_string(style.write(&json)))
}
