//! Chat templates: a conversation as the text that the model was trained on.
//!
//! Written in Jinja by whoever made the model. What a template is shown is decided here; `interpreter` renders it, in a
//! process of its own (`aside`, `renderer`), because it is a program that came with a download. See docs/design/012.

mod aside;
mod bounds;
mod interpreter;
mod python_json;
mod renderer;
mod shape;
mod source;
mod tools_as_text;
mod wire;

use crate::conversation::{Conversation, Message, Role, Tool};
use crate::termination::{failed, model_rejected};
use crate::tool_calls::ToolFormat;
pub use aside::{Aside, SUBCOMMAND};
use coterie_api::launch::Termination;
pub use interpreter::{Interpreter, Variables};
pub use renderer::run as run_renderer;
use serde::Serialize;
use serde_json::Value;
use shape::Shape;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where templates are compiled and rendered.
#[derive(Clone, Debug)]
pub enum Rendering {
    /// In a process of this program, which is `coterie`.
    Aside(PathBuf),
    /// In this process, without a clock: for templates that are trusted.
    Within,
}

impl Rendering {
    /// Aside, by the program that runs.
    pub fn by_this_program() -> Rendering {
        // Also where the file was replaced since.
        Rendering::Aside("/proc/self/exe".into())
    }

    fn compile(&self, text: &str) -> Result<Box<dyn Render>, NotRendered> {
        Ok(match self {
            Rendering::Aside(program) => Box::new(Aside::new(program, text)?),
            Rendering::Within => Box::new(Interpreter::new(text).map_err(NotRendered::Refused)?),
        })
    }
}

/// A compiled template.
trait Render: Send + Sync {
    fn render(&self, variables: &Variables) -> Result<String, NotRendered>;
}

impl Render for Interpreter {
    fn render(&self, variables: &Variables) -> Result<String, NotRendered> {
        Interpreter::render(self, variables).map_err(NotRendered::Refused)
    }
}

/// Why a template did not compile, or wrote nothing: each a part of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRendered {
    /// The interpreter or the template itself says no.
    #[error("{0}")]
    Refused(String),
    /// It took more time or memory than it may.
    #[error("{0}")]
    Exceeded(String),
    /// The machine would not.
    #[error("{0}")]
    Failed(String),
}

/// A model's chat template.
pub struct ChatTemplate {
    compiled: Box<dyn Render>,
    /// `bos_token`, `eos_token` and the like.
    special_tokens: BTreeMap<String, String>,
    text: String,
    /// How the template writes tools; none if it knows none, or in a way that is not known here.
    tool_format: Option<ToolFormat>,
    /// The template shows the model its tools.
    tells_tools: bool,
    knows_developer: bool,
    shape: Shape,
}

impl ChatTemplate {
    /// Reads chat_template.jinja, or `chat_template` in tokenizer_config.json. `None` if the model has neither.
    pub fn load(dir: &Path, rendering: &Rendering) -> Result<Option<ChatTemplate>, Termination> {
        let Some(source) = source::read(dir)? else { return Ok(None) };
        let path = source.path.display();
        let template = ChatTemplate::new(&source.text, source.special_tokens, rendering);
        template.map(Some).map_err(|why| match why {
            NotRendered::Refused(_) => {
                model_rejected(format!("the chat template in {path} is not valid: {why}; repair it or remove it"))
            }
            NotRendered::Exceeded(_) => model_rejected(format!(
                "the chat template in {path} cannot be used, not even for a short conversation: {why}; repair it or remove it"
            )),
            NotRendered::Failed(_) => failed(format!("the chat template in {path} was not read: {why}")),
        })
    }

    /// Compiles a template, and tries it.
    pub fn new(
        text: &str,
        special_tokens: BTreeMap<String, String>,
        rendering: &Rendering,
    ) -> Result<ChatTemplate, NotRendered> {
        let mut template = ChatTemplate {
            compiled: rendering.compile(text)?,
            special_tokens,
            text: text.to_owned(),
            tool_format: ToolFormat::of_template(text)
                .filter(|format| text.contains("tools") || format.instructions("").is_some()),
            tells_tools: text.contains("tools"),
            knows_developer: text.contains("developer"),
            shape: Shape::default(),
        };
        template.shape = Shape::of(template.tool_format, |shape, messages| {
            let variables = template.variables(shape.messages(messages), Value::Null, Variables::new());
            template.compiled.render(&variables)
        })?;
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

    /// The prompt for `conversation`, ready for the assistant's answer.
    pub fn render(&self, conversation: &Conversation) -> Result<String, NotRendered> {
        let Conversation { messages, tools, variables: more } = conversation;
        let takes_system = self.shape.takes_system;
        let (messages, tools) = match self.tool_format {
            Some(_) if self.tells_tools => {
                (messages.clone(), tools.iter().map(Tool::definition).collect::<Vec<_>>())
            }
            Some(format) => (tools_as_text::told(messages, tools, format, takes_system), Vec::new()),
            None => (tools_as_text::rewritten(messages, tools, takes_system), Vec::new()),
        };
        let messages: Vec<Message> =
            messages.into_iter().map(|message| self.with_known_role(message)).collect();
        let tools = if tools.is_empty() { Value::Null } else { Value::from(tools) };
        let text =
            self.compiled.render(&self.variables(self.shape.messages(&messages), tools, more.clone()))?;
        if text.is_empty() {
            return Err(NotRendered::Refused("it writes nothing for them".to_owned()));
        }
        Ok(text)
    }

    /// All that the template is given; `more` cannot take the place of anything else.
    fn variables(&self, messages: Value, tools: Value, more: Variables) -> Variables {
        let mut variables = more;
        variables.extend(self.special_tokens.iter().map(|(name, token)| (name.clone(), json(token))));
        variables.extend([
            ("messages".to_owned(), messages),
            ("add_generation_prompt".to_owned(), Value::from(true)),
            ("tools".to_owned(), tools),
            ("documents".to_owned(), Value::Null),
        ]);
        variables
    }

    fn with_known_role(&self, message: Message) -> Message {
        match message.role {
            Role::Developer if !self.knows_developer => Message { role: Role::System, ..message },
            _ => message,
        }
    }
}

/// Texts and maps with keys of text can always be written.
fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
