//! What a chat request tells the chat template beside messages and tools.

use crate::server::openai::error::ApiError;
use crate::server::openai::parameters::{Parameters, wrong_type};
use serde_json::{Map, Value};

/// Variables that are not the client's to set; neither are special tokens.
const RESERVED: [&str; 7] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
    "tokenize",
];
pub(in crate::server::openai) const EFFORTS: [&str; 6] =
    ["none", "minimal", "low", "medium", "high", "xhigh"];

/// Takes `chat_template_kwargs`, which is vLLM's, and `reasoning_effort`. As with vLLM, a variable that the template
/// does not know changes nothing.
pub(super) fn take(parameters: &mut Parameters) -> Result<Map<String, Value>, ApiError> {
    let mut variables = match parameters.any("chat_template_kwargs") {
        None => Map::new(),
        Some(Value::Object(variables)) => variables,
        Some(other) => return Err(wrong_type("chat_template_kwargs", "an object", &other)),
    };
    let reserved = |name: &&String| RESERVED.contains(&name.as_str()) || name.ends_with("_token");
    if let Some(name) = variables.keys().find(reserved) {
        let path = format!("chat_template_kwargs.{name}");
        return Err(ApiError::invalid(&path, format!("'{path}' is set by the server; leave it out.")));
    }
    if let Some(effort) = parameters.string("reasoning_effort")? {
        if !EFFORTS.contains(&effort.as_str()) {
            let message =
                format!("'reasoning_effort' is '{effort}'; it must be one of {}.", EFFORTS.join(", "));
            return Err(ApiError::invalid("reasoning_effort", message));
        }
        if variables.insert("reasoning_effort".to_owned(), effort.into()).is_some() {
            let message = "'reasoning_effort' is also in 'chat_template_kwargs'; give only one of them.";
            return Err(ApiError::invalid("reasoning_effort", message));
        }
    }
    Ok(variables)
}
