//! Tools for models whose template knows none, or writes them in a way that is not known here: told in a system
//! message, called and answered in text.
//!
//! The form is Hermes', which most models have seen: NousResearch's Hermes-Function-Calling, with the answers of tools
//! in the user's turn as Qwen2.5's template has them, because every template has a user's turn.

use super::python_json::PythonJson;
use crate::conversation::{Message, Role, Tool, ToolCall};
use crate::tool_calls::ToolFormat;
use serde_json::{Value, json};

/// `messages` without anything but text in them, and with `tools` told. Where `takes_system` is false, the template
/// has no place for a system message of ours, and the first user's message begins with it.
pub(super) fn rewritten(messages: &[Message], tools: &[Tool], takes_system: bool) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::new();
    for message in messages {
        match message.role {
            Role::Tool => answer(&mut out, message),
            Role::Assistant => out.push(called(message)),
            _ => out.push(message.clone()),
        }
    }
    if !tools.is_empty() {
        tell(&mut out, &instructions(tools), takes_system);
    }
    out
}

/// `messages` with `tools` told as `format` has it, for a template that knows calls and their answers, but no tools.
pub(super) fn told(
    messages: &[Message],
    tools: &[Tool],
    format: ToolFormat,
    takes_system: bool,
) -> Vec<Message> {
    let mut out = messages.to_vec();
    if let Some(instructions) = format.instructions(&signatures(tools)).filter(|_| !tools.is_empty()) {
        tell(&mut out, &instructions, takes_system);
    }
    out
}

fn tell(messages: &mut Vec<Message>, instructions: &str, takes_system: bool) {
    let system = messages.first_mut().filter(|first| matches!(first.role, Role::System | Role::Developer));
    if let Some(system) = system {
        let before = system.content.take().unwrap_or_default();
        system.content = Some(format!("{before}\n\n{instructions}").trim_start().to_owned());
        return;
    }
    let user = messages.iter_mut().find(|message| message.role == Role::User);
    match user.filter(|_| !takes_system) {
        Some(user) => {
            user.content = Some(format!("{instructions}\n\n{}", user.content.as_deref().unwrap_or_default()));
        }
        None => messages.insert(0, Message::new(Role::System, instructions)),
    }
}

/// The tools' definitions, one a line.
fn signatures(tools: &[Tool]) -> String {
    tools.iter().map(|tool| line(&tool.definition())).collect::<Vec<_>>().join("\n")
}

fn instructions(tools: &[Tool]) -> String {
    format!(
        "# Tools\n\nYou may call one or more functions to help with the user's request. Their signatures are between \
        <tools></tools> tags:\n<tools>\n{}\n</tools>\n\nFor each call, write a JSON object with the function's name \
        and its arguments between <tool_call></tool_call> tags:\n<tool_call>\n\
        {{\"name\": <function-name>, \"arguments\": <arguments-object>}}\n</tool_call>",
        signatures(tools)
    )
}

/// The assistant's message with its calls written out.
fn called(message: &Message) -> Message {
    let mut parts: Vec<String> =
        message.content.clone().filter(|text| !text.is_empty()).into_iter().collect();
    parts.extend(message.tool_calls.iter().map(|ToolCall { function, .. }| {
        let call = json!({"name": function.name, "arguments": function.arguments});
        format!("<tool_call>\n{}\n</tool_call>", line(&call))
    }));
    Message { content: Some(parts.join("\n")), tool_calls: Vec::new(), ..message.clone() }
}

/// Answers that follow each other share one turn.
fn answer(messages: &mut Vec<Message>, message: &Message) {
    let text = message.content.as_deref().unwrap_or_default();
    let text = format!("<tool_response>\n{text}\n</tool_response>");
    match messages.last_mut() {
        Some(Message { role: Role::User, content: Some(before), .. })
            if before.ends_with("</tool_response>") =>
        {
            before.push('\n');
            before.push_str(&text);
        }
        _ => messages.push(Message::new(Role::User, text)),
    }
}

fn line(value: &Value) -> String {
    PythonJson { indent: None, ascii: false, sorted: false }.write(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::{CallKind, CalledFunction};

    fn weather() -> Tool {
        Tool {
            name: "weather".into(),
            description: Some("of a city".into()),
            parameters: Some(json!({"type": "object", "properties": {"city": {"type": "string"}}})),
            strict: false,
        }
    }

    fn call(city: &str) -> ToolCall {
        let function = CalledFunction { name: "weather".into(), arguments: json!({"city": city}) };
        ToolCall { id: city.into(), kind: CallKind::Function, function }
    }

    fn texts(messages: &[Message]) -> Vec<(Role, &str)> {
        messages.iter().map(|m| (m.role, m.content.as_deref().unwrap())).collect()
    }

    #[test]
    fn calls_and_answers_become_turns_of_text() {
        let calls = Message {
            content: None,
            tool_calls: vec![call("Köln"), call("Rom")],
            ..Message::new(Role::Assistant, "")
        };
        let messages = [
            Message::new(Role::User, "Where is it warmer?"),
            calls,
            Message { tool_call_id: Some("Köln".into()), ..Message::new(Role::Tool, "9") },
            Message { tool_call_id: Some("Rom".into()), ..Message::new(Role::Tool, "21") },
            Message::new(Role::Assistant, "In Rome."),
        ];
        let rewritten = rewritten(&messages, &[], true);
        let written = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>\n\
            <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rom\"}}\n</tool_call>";
        let answers = "<tool_response>\n9\n</tool_response>\n<tool_response>\n21\n</tool_response>";
        assert_eq!(
            texts(&rewritten),
            [
                (Role::User, "Where is it warmer?"),
                (Role::Assistant, written),
                (Role::User, answers),
                (Role::Assistant, "In Rome."),
            ]
        );
        assert!(rewritten.iter().all(|message| message.tool_calls.is_empty()));
    }

    #[test]
    fn tools_are_told_in_the_place_that_the_template_has() {
        let told = "{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"of a city\", \
            \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}}}}\n</tools>";
        let user = Message::new(Role::User, "Hi");
        let own = rewritten(std::slice::from_ref(&user), &[weather()], true);
        assert_eq!((own.len(), own[0].role), (2, Role::System));
        assert!(texts(&own)[0].1.contains(told), "{own:?}");

        let with_system = [Message::new(Role::System, "Be brief."), user.clone()];
        let appended = rewritten(&with_system, &[weather()], true);
        assert_eq!(appended.len(), 2);
        assert!(texts(&appended)[0].1.starts_with("Be brief.\n\n# Tools"), "{appended:?}");

        let in_user = rewritten(&[user], &[weather()], false);
        assert_eq!((in_user.len(), in_user[0].role), (1, Role::User));
        let text = texts(&in_user)[0].1;
        assert!(text.contains(told) && text.ends_with("\n\nHi"), "{text}");
    }
}
