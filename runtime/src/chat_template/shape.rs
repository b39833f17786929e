//! What a template wants of messages beside what all agree on. Where only trying tells, it is tried when the template is
//! loaded.

use super::python_json::PythonJson;
use super::{NotRendered, json};
use crate::conversation::{CallKind, CalledFunction, Message, Role, ToolCall};
use crate::tool_calls::ToolFormat;
use serde_json::{Value, json};
use std::collections::HashMap;

/// What only a template that takes system messages prints.
const PROBE: &str = "a system message";
/// What only a template that knows calls prints.
const FUNCTION: &str = "probed_function";

/// A template's way with messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// The template has a place for system messages.
    pub takes_system: bool,
    /// Texts are lists of parts: MiniMax-M1.
    content_as_parts: bool,
    /// A call's arguments are JSON text, and no object: DeepSeek.
    arguments_as_text: bool,
    /// Calls are not printed, and have to stand in the text in this format: MiniMax-M1.
    calls_in_text: Option<ToolFormat>,
    /// An answer of calls alone has an empty text: of none, as the OpenAI protocol has it, Qwen3's can make nothing.
    text_beside_calls: bool,
    /// Reasoning is `thinking`, and there is always a text: GPT-OSS.
    thinking: bool,
}

impl Shape {
    /// Of a template that writes calls in `format`. `render` renders it.
    pub fn of(
        format: Option<ToolFormat>,
        render: impl Fn(&Shape, &[Message]) -> Result<String, NotRendered>,
    ) -> Result<Shape, NotRendered> {
        let system = [Message::new(Role::System, PROBE), Message::new(Role::User, "hello")];
        let prints = |shape: &Shape, messages: &[Message], word: &str| match render(shape, messages) {
            Ok(text) => Ok(Some(text.contains(word))),
            Err(NotRendered::Refused(_)) => Ok(None),
            Err(broken) => Err(broken),
        };
        let mut shape = Shape { thinking: format == Some(ToolFormat::Harmony), ..Shape::default() };
        match prints(&shape, &system, PROBE)? {
            Some(printed) => shape.takes_system = printed,
            None => {
                let in_parts = Shape { content_as_parts: true, takes_system: true, ..shape };
                if prints(&in_parts, &system, PROBE)? == Some(true) {
                    shape = in_parts;
                }
            }
        }
        let Some(format) = format else { return Ok(shape) };
        let function = CalledFunction { name: FUNCTION.to_owned(), arguments: json!({"a": 1}) };
        let call = ToolCall { id: format.call_id(0), kind: CallKind::Function, function };
        let called = Message { content: None, tool_calls: vec![call], ..Message::new(Role::Assistant, "") };
        let thought = Message { reasoning_content: Some("a thought".to_owned()), ..called.clone() };
        let [called, thought] = [called, thought].map(|answer| [Message::new(Role::User, "hello"), answer]);
        if prints(&shape, &called, FUNCTION)? == Some(false) {
            shape.calls_in_text = format.in_text(&[]).map(|_| format);
            return Ok(shape);
        }
        for (text_beside_calls, arguments_as_text) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let tried = Shape { text_beside_calls, arguments_as_text, ..shape };
            if prints(&tried, &called, FUNCTION)? == Some(true)
                && prints(&tried, &thought, FUNCTION)?.is_some()
            {
                return Ok(tried);
            }
        }
        Ok(shape)
    }

    /// `messages` as the template wants them.
    pub fn messages(&self, messages: &[Message]) -> Value {
        let mut names = HashMap::new();
        let shaped = messages.iter().map(|message| {
            names.extend(message.tool_calls.iter().map(|call| (&call.id, &call.function.name)));
            let answers = message.tool_call_id.as_ref().and_then(|id| names.get(id));
            self.message(message, answers.map(|name| name.as_str()))
        });
        shaped.collect()
    }

    /// One of them, which answers a call of the function `answers` where it is a tool's.
    fn message(&self, message: &Message, answers: Option<&str>) -> Value {
        let mut message = message.clone();
        let calls = self.calls_in_text.filter(|_| !message.tool_calls.is_empty());
        if let Some(calls) = calls.and_then(|format| format.in_text(&message.tool_calls)) {
            let before = message.content.take().unwrap_or_default();
            message.content = Some(format!("{before}\n{calls}").trim_start().to_owned());
            message.tool_calls.clear();
        }
        if self.thinking {
            self.think(&mut message);
        }
        if self.text_beside_calls && message.role == Role::Assistant {
            message.content.get_or_insert_default();
        }
        let mut shaped = json(&message);
        if self.thinking
            && let Some(thought) =
                shaped.as_object_mut().and_then(|fields| fields.remove("reasoning_content"))
        {
            shaped["thinking"] = thought;
        }
        if self.content_as_parts {
            let name = answers.or(message.name.as_deref()).unwrap_or_default();
            let part = |text: &String| json!({"type": "text", "text": text, "name": name});
            shaped["content"] = message.content.iter().map(part).collect();
        }
        if self.arguments_as_text {
            let calls = shaped.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten();
            calls.for_each(|call| as_text(&mut call["function"]["arguments"]));
        }
        shaped
    }

    /// Beside a call GPT-OSS's template takes either a text or thoughts, as what the model thought.
    fn think(&self, message: &mut Message) {
        let content = message.content.get_or_insert_default();
        if let Some(thought) = message.reasoning_content.as_mut().filter(|_| !message.tool_calls.is_empty())
            && !content.is_empty()
        {
            *thought = format!("{thought}\n{content}").trim_start().to_owned();
            content.clear();
        }
    }
}

fn as_text(arguments: &mut Value) {
    if !arguments.is_string() {
        let text = PythonJson { indent: None, ascii: false, sorted: false }.write(arguments);
        *arguments = text.into();
    }
}
