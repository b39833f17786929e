//! A conversation as a client gives it: what was said, which tools there are, what the template is told beside.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// All that a chat template is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// What was said, oldest first.
    pub messages: Vec<Message>,
    /// The tools that the model is shown.
    pub tools: Vec<Tool>,
    /// More variables for the template.
    pub variables: Map<String, Value>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Whoever runs the service.
    System,
    /// OpenAI's newer name of the same.
    Developer,
    /// Who asks.
    User,
    /// The model.
    Assistant,
    /// What a called tool gave.
    Tool,
}

/// One message, with the field names that templates know.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text; only the assistant's may be absent.
    pub content: Option<String>,
    /// The speaker's name, where the client said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the assistant thought before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// What the assistant called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool's message answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message of nothing but text.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        Message {
            role,
            content: Some(content.into()),
            name: None,
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }
}

/// A call in an assistant's message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ToolCall {
    /// Its name in this conversation.
    pub id: String,
    /// Always a function.
    #[serde(rename = "type")]
    pub kind: CallKind,
    /// What is called.
    pub function: CalledFunction,
}

/// What can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CallKind {
    /// A function of the client's.
    Function,
}

/// A function and what it is called with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CalledFunction {
    /// The function.
    pub name: String,
    /// The arguments' object, as templates expect it; the text that the client gave where that is none.
    pub arguments: Value,
}

/// A tool that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// The function's name: letters, digits, `_` and `-`.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The JSON schema of its arguments' object; absent for a function without arguments.
    pub parameters: Option<Value>,
    /// The arguments must follow the schema.
    pub strict: bool,
}

impl Tool {
    /// As transformers shows tools to templates.
    pub fn definition(&self) -> Value {
        let mut function = Map::from_iter([("name".to_owned(), json!(self.name))]);
        function.extend(self.description.as_ref().map(|text| ("description".to_owned(), json!(text))));
        function.extend(self.parameters.clone().map(|schema| ("parameters".to_owned(), schema)));
        json!({"type": "function", "function": function})
    }

    /// What the arguments must be.
    pub fn schema(&self) -> Value {
        let none = || json!({"type": "object", "properties": {}, "additionalProperties": false});
        self.parameters.clone().unwrap_or_else(none)
    }
}
