//! Chat templates: a conversation as the text that the model was trained on.
//!
//! Written in Jinja by whoever made the model, rendered here as HuggingFace renders them: the same options, the same
//! extra functions, and a budget, because a template is a program that came with a download.

mod python_json;
mod source;
mod tools_as_text;

use crate::conversation::{Conversation, Message, Role, Tool};
use crate::termination::model_rejected;
use crate::tool_calls::ToolFormat;
use coterie_api::launch::Termination;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind};
use python_json::PythonJson;
use std::collections::BTreeMap;
use std::path::Path;

/// Steps that one rendering may take: enough for thousands of messages, and bounded in time and memory.
const FUEL: u64 = 20_000_000;
/// How deep templates may nest.
const RECURSION_LIMIT: usize = 100;
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
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_LIMIT);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", to_json);
        environment.add_template_owned(NAME, source::without_generation_marks(text))?;
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
        let rendered = self
            .environment
            .get_template(NAME)
            .and_then(|template| template.render(Value::from_pairs(variables)));
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
    match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
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
fn to_json(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let json = serde_json::to_value(&value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, format!("tojson: {error}")))?;
    let style = PythonJson { indent, ascii: ascii.unwrap_or(false), sorted: sorted.unwrap_or(false) };
    Ok(Value::from_safe_string(style.write(&json)))
}

#[cfg(test)]
mod tests;
