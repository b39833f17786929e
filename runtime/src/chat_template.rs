//! Chat templates: a conversation as the text that the model was trained on.
//!
//! Written in Jinja by whoever made the model, rendered here as HuggingFace renders them: the same options, the same
//! extra functions, and within the bounds of `bounds`.

mod bounds;
mod python_json;
mod source;
mod tools_as_text;

use crate::conversation::{Conversation, Message, Role, Tool};
use crate::termination::model_rejected;
use crate::tool_calls::ToolFormat;
use bounds::{Bounded, FUEL, LARGEST_TEMPLATE, RECURSION_LIMIT, on_a_deep_stack};
use coterie_api::launch::Termination;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, State};
use python_json::PythonJson;
use std::collections::BTreeMap;
use std::path::Path;

/// Largest JSON that `tojson` may write in compact form, bytes; parsed for its second form, it takes up to a hundred
/// times as much.
const LARGEST_JSON: usize = 2 << 20;
/// What a byte of it costs, in bytes of plain text.
const BYTES_PER_JSON_BYTE: usize = 32;
/// Spaces a level that `tojson` may be asked for.
const MOST_INDENT: usize = 16;
const NAME: &str = "chat_template";

/// What only a template that takes system messages prints.
const PROBE: &str = "a system message";

/// A model's chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` and the like.
    special_tokens: BTreeMap<String, String>,
    text: String,
    /// How the template writes tools; none if it knows none, or in a way that is not known here.
    tool_format: Option<ToolFormat>,
    knows_developer: bool,
    takes_system: bool,
}

impl ChatTemplate {
    /// Reads chat_template.jinja, or `chat_template` in tokenizer_config.json. `None` if the model has neither.
    pub fn load(dir: &Path) -> Result<Option<ChatTemplate>, Termination> {
        let Some(source) = source::read(dir)? else { return Ok(None) };
        let template = ChatTemplate::new(&source.text, source.special_tokens).map_err(|error| {
            model_rejected(format!(
                "the chat template in {} is not valid: {}; repair it or remove it",
                source.path.display(),
                sentence(&error)
            ))
        })?;
        Ok(Some(template))
    }

    /// Compiles a template.
    pub fn new(text: &str, special_tokens: BTreeMap<String, String>) -> Result<ChatTemplate, Error> {
        if text.len() > LARGEST_TEMPLATE {
            let message = format!("it has {} bytes, and {LARGEST_TEMPLATE} are allowed", text.len());
            return Err(Error::new(ErrorKind::SyntaxError, message));
        }
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
        let source = source::without_generation_marks(text);
        let environment = on_a_deep_stack(|| {
            environment.add_template_owned(NAME, source)?;
            Ok(environment)
        })?;
        let mut template = ChatTemplate {
            environment,
            special_tokens,
            text: text.to_owned(),
            tool_format: ToolFormat::of_template(text).filter(|_| text.contains("tools")),
            knows_developer: text.contains("developer"),
            takes_system: true,
        };
        let probe = [Message::new(Role::System, PROBE), Message::new(Role::User, "hello")];
        let probe = Conversation { messages: probe.into(), ..Conversation::default() };
        template.takes_system = template.render(&probe).is_ok_and(|text| text.contains(PROBE));
        Ok(template)
    }

    /// How an answer to a prompt of this template writes tool calls. A template that knows no form is given one.
    pub fn tool_format(&self) -> ToolFormat {
        self.tool_format.unwrap_or(ToolFormat::Hermes)
    }

    /// The template's text holds `word`.
    pub fn mentions(&self, word: &str) -> bool {
        self.text.contains(word)
    }

    /// The prompt for `conversation`, ready for the assistant's answer. The error is a sentence for the client.
    pub fn render(&self, conversation: &Conversation) -> Result<String, String> {
        let Conversation { messages, tools, variables: more } = conversation;
        let (messages, tools) = match self.tool_format {
            Some(_) => (messages.clone(), tools.iter().map(Tool::definition).collect::<Vec<_>>()),
            None => (tools_as_text::rewritten(messages, tools, self.takes_system), Vec::new()),
        };
        let messages: Vec<Message> =
            messages.into_iter().map(|message| self.with_known_role(message)).collect();
        let mut variables: BTreeMap<&str, Value> = BTreeMap::new();
        variables.extend(more.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value)))));
        variables.extend(self.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token))));
        variables.insert("messages", Value::from(Serde(&messages)));
        variables.insert("add_generation_prompt", Value::from(true));
        let told = if tools.is_empty() { Value::from(()) } else { Value::from(Serde(&tools)) };
        variables.insert("tools", told);
        variables.insert("documents", Value::from(()));
        let rendered = on_a_deep_stack(|| {
            let mut prompt = Bounded::prompt();
            self.environment
                .get_template(NAME)?
                .render_captured_to(Value::from_pairs(variables), &mut prompt)?;
            prompt.into_text()
        });
        rendered.map_err(|error| {
            format!("the model's chat template refuses these messages: {}", sentence(&error))
        })
    }

    fn with_known_role(&self, message: Message) -> Message {
        match message.role {
            Role::Developer if !self.knows_developer => Message { role: Role::System, ..message },
            _ => message,
        }
    }
}

/// An error without the position in the template, which a client cannot see.
fn sentence(error: &Error) -> String {
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

#[cfg(test)]
mod tests;
