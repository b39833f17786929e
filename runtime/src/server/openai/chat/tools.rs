//! `tools`, `tool_choice` and `parallel_tool_calls` of a chat request.

use crate::conversation::Tool;
use crate::server::openai::error::ApiError;
use crate::server::openai::parameters::{Parameters, wrong_type};
use crate::tool_calls::{CallGrammar, NotEnforced, Reasons, ToolFormat};
use serde_json::Value;

/// Tools of one request at most, as OpenAI has it.
pub(in crate::server::openai) const MOST: usize = 128;
/// Longest name of a function.
pub(in crate::server::openai) const LONGEST_NAME: usize = 64;
/// Largest definition of a tool, and of all together, bytes of JSON.
const LARGEST: usize = 64 << 10;
const LARGEST_TOGETHER: usize = 512 << 10;

/// What a request says about tools.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ToolUse {
    tools: Vec<Tool>,
    choice: ToolChoice,
    /// More than one call may come.
    pub parallel: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ToolChoice {
    /// No call.
    None,
    /// As the model likes.
    Auto,
    /// At least one call.
    Required,
    /// One call of this function.
    Named(String),
}

impl ToolUse {
    pub fn take(parameters: &mut Parameters) -> Result<ToolUse, ApiError> {
        let functions = parameters.any("functions").is_some_and(|value| value != serde_json::json!([]));
        let call = parameters.any("function_call").is_some_and(|value| value != "none" && value != "auto");
        for (is_used, old, new) in [(functions, "functions", "tools"), (call, "function_call", "tool_choice")]
        {
            if is_used {
                let message = format!("'{old}' is deprecated and not supported; use '{new}'.");
                return Err(ApiError::unsupported(old, message));
            }
        }
        let tools = tools(parameters)?;
        let choice = choice(parameters, &tools)?;
        let parallel = parameters.boolean("parallel_tool_calls")?.unwrap_or(true);
        Ok(ToolUse { tools, choice, parallel })
    }

    /// The tools that the model is shown; none where it may not call any.
    pub fn shown(&self) -> &[Tool] {
        if self.may_call() { &self.tools } else { &[] }
    }

    /// The answer may hold calls.
    pub fn may_call(&self) -> bool {
        !self.tools.is_empty() && self.choice != ToolChoice::None
    }

    /// At least one call must come.
    pub fn is_required(&self) -> bool {
        matches!(self.choice, ToolChoice::Required | ToolChoice::Named(_))
    }

    /// The function was chosen by the client. OpenAI then says that the answer ended by `stop`, not by `tool_calls`.
    pub fn is_named(&self) -> bool {
        matches!(self.choice, ToolChoice::Named(_))
    }

    /// The grammar that the answer must follow, if it may not be anything: where a call is required, or where a tool
    /// wants its arguments strict.
    pub fn grammar(
        &self,
        format: ToolFormat,
        reasons: Reasons,
        special: impl Fn(&str) -> Option<u32>,
    ) -> Result<Option<String>, NotEnforced> {
        let required = match &self.choice {
            ToolChoice::None => return Ok(None),
            ToolChoice::Auto if !self.tools.iter().any(|tool| tool.strict) => return Ok(None),
            ToolChoice::Auto => false,
            ToolChoice::Required | ToolChoice::Named(_) => true,
        };
        let callable = |tool: &&Tool| !matches!(&self.choice, ToolChoice::Named(name) if *name != tool.name);
        let tools: Vec<&Tool> = self.tools.iter().filter(callable).collect();
        let parallel = self.parallel && !self.is_named();
        CallGrammar { format, tools: &tools, parallel, required, reasons }.lark(special).map(Some)
    }
}

fn tools(parameters: &mut Parameters) -> Result<Vec<Tool>, ApiError> {
    let given = parameters.array("tools")?.unwrap_or_default();
    if given.len() > MOST {
        let message = format!("'tools' may hold {MOST} tools at most, not {}.", given.len());
        return Err(ApiError::invalid("tools", message));
    }
    let (mut tools, mut together) = (Vec::<Tool>::new(), 0);
    for (at, value) in given.into_iter().enumerate() {
        let path = format!("tools[{at}]");
        let size = value.to_string().len();
        together += size;
        if size > LARGEST {
            let message = format!("'{path}' may have {LARGEST} bytes at most, not {size}.");
            return Err(ApiError::invalid(&path, message));
        }
        let tool = tool(value, &path)?;
        if tools.iter().any(|other| other.name == tool.name) {
            let message = format!("'{path}.function.name' is '{}', as another tool's.", tool.name);
            return Err(ApiError::invalid(&format!("{path}.function.name"), message));
        }
        tools.push(tool);
    }
    if together > LARGEST_TOGETHER {
        let message = format!("'tools' may have {LARGEST_TOGETHER} bytes at most, not {together}.");
        return Err(ApiError::invalid("tools", message));
    }
    Ok(tools)
}

fn tool(value: Value, path: &str) -> Result<Tool, ApiError> {
    let mut fields = Parameters::of(value, path)?;
    let mut function = function_of(&mut fields)?;
    fields.finish()?;
    let name = name_of(&mut function)?;
    let description = function.string("description")?;
    let parameters_path = function.path("parameters");
    let parameters = function.any("parameters");
    if let Some(other) = parameters.as_ref().filter(|schema| !schema.is_object()) {
        return Err(wrong_type(&parameters_path, "a JSON schema object", other));
    }
    let strict = function.boolean("strict")?.unwrap_or(false);
    function.finish()?;
    Ok(Tool { name, description, parameters, strict })
}

/// `{"type": "function", "function": {…}}`, in a tool and in a choice.
fn function_of(fields: &mut Parameters) -> Result<Parameters, ApiError> {
    let (kind_path, function_path) = (fields.path("type"), fields.path("function"));
    match fields.string("type")?.as_deref() {
        Some("function") => {}
        None => return Err(ApiError::missing(&kind_path)),
        Some(kind) => {
            let message = format!("'{kind_path}' is '{kind}'; only 'function' is supported.");
            return Err(ApiError::unsupported(&kind_path, message));
        }
    }
    fields.object("function")?.ok_or_else(|| ApiError::missing(&function_path))
}

fn name_of(function: &mut Parameters) -> Result<String, ApiError> {
    let path = function.path("name");
    let name = function.string("name")?.ok_or_else(|| ApiError::missing(&path))?;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if name.is_empty() || name.len() > LONGEST_NAME || !plain {
        let message = format!("'{path}' must be 1 to {LONGEST_NAME} letters, digits, '_' or '-'.");
        return Err(ApiError::invalid(&path, message));
    }
    Ok(name)
}

fn choice(parameters: &mut Parameters, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    let refused = |message: String| Err(ApiError::invalid("tool_choice", message));
    let choice = match parameters.any("tool_choice") {
        None => ToolChoice::Auto,
        Some(Value::String(word)) => match word.as_str() {
            "none" => ToolChoice::None,
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            _ => {
                return refused(format!(
                    "'tool_choice' is '{word}'; it must be 'none', 'auto', 'required' or a function."
                ));
            }
        },
        Some(value @ Value::Object(_)) => {
            let mut fields = Parameters::of(value, "tool_choice")?;
            let mut function = function_of(&mut fields)?;
            fields.finish()?;
            let name = name_of(&mut function)?;
            function.finish()?;
            ToolChoice::Named(name)
        }
        Some(other) => return Err(wrong_type("tool_choice", "a string or an object", &other)),
    };
    match &choice {
        ToolChoice::Named(name) if !tools.iter().any(|tool| tool.name == *name) => {
            refused(format!("'tool_choice' names '{name}', which is not among the 'tools'."))
        }
        ToolChoice::Required if tools.is_empty() => {
            refused("'tool_choice' is 'required', but there are no 'tools'.".to_owned())
        }
        _ => Ok(choice),
    }
}
