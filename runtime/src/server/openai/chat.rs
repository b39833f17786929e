//! `/v1/chat/completions`.

mod answer;

use super::create::{Asked, Endpoint};
use super::error::ApiError;
use super::messages;
use super::parameters::{Neutral, Parameters};
use super::settings::{MOST_TOKENS, Settings, empty};
use crate::chat_template::Message;
use crate::served_model::ServedModel;
use crate::telemetry::Operation;
use answer::ChatAnswer;

/// `top_logprobs` at most.
const MOST_LOGPROBS: i64 = 20;

/// `/v1/chat/completions`.
pub(super) struct Chat;

/// A chat request that is valid in itself.
#[derive(Debug)]
struct ChatRequest {
    messages: Vec<Message>,
    max_tokens: Option<usize>,
    top_logprobs: Option<usize>,
    settings: Settings,
}

/// Accepted where they change nothing, because clients send them so.
const NEUTRAL: &[Neutral] = &[
    Neutral { name: "response_format", is_neutral: |v| v["type"] == "text" },
    Neutral { name: "tools", is_neutral: empty },
    Neutral { name: "tool_choice", is_neutral: |v| v == "none" || v == "auto" },
    Neutral { name: "parallel_tool_calls", is_neutral: serde_json::Value::is_boolean },
    Neutral { name: "functions", is_neutral: empty },
    Neutral { name: "function_call", is_neutral: |v| v == "none" || v == "auto" },
    Neutral { name: "modalities", is_neutral: |v| *v == serde_json::json!(["text"]) },
    Neutral { name: "service_tier", is_neutral: |v| v == "auto" || v == "default" },
    Neutral { name: "store", is_neutral: |v| v == false },
    Neutral { name: "metadata", is_neutral: empty },
    Neutral { name: "verbosity", is_neutral: |v| v == "medium" },
    Neutral { name: "audio", is_neutral: |_| false },
    Neutral { name: "prediction", is_neutral: |_| false },
    Neutral { name: "reasoning_effort", is_neutral: |_| false },
    Neutral { name: "web_search_options", is_neutral: |_| false },
];

impl ChatRequest {
    fn take(parameters: &mut Parameters) -> Result<ChatRequest, ApiError> {
        let messages = messages::take(parameters)?;
        let settings = Settings::take(parameters)?;
        let max_tokens = max_tokens(parameters)?;
        let wanted = parameters.boolean("logprobs")?.unwrap_or(false);
        let top = parameters.integer("top_logprobs", 0..=MOST_LOGPROBS)?;
        if top.is_some() && !wanted {
            let message = "'top_logprobs' is only allowed when 'logprobs' is true.";
            return Err(ApiError::invalid("top_logprobs", message));
        }
        let top_logprobs = wanted.then_some(top.unwrap_or(0) as usize);
        parameters.only_neutral(NEUTRAL)?;
        Ok(ChatRequest { messages, max_tokens, top_logprobs, settings })
    }
}

/// Under its old or its new name.
fn max_tokens(parameters: &mut Parameters) -> Result<Option<usize>, ApiError> {
    let old = parameters.integer("max_tokens", 1..=MOST_TOKENS)?;
    let new = parameters.integer("max_completion_tokens", 1..=MOST_TOKENS)?;
    if old.is_some() && new.is_some() {
        let message = "'max_tokens' and 'max_completion_tokens' mean the same; give only one of them.";
        return Err(ApiError::invalid("max_tokens", message));
    }
    Ok(new.or(old).map(|tokens| tokens as usize))
}

impl Endpoint for Chat {
    type Answer = ChatAnswer;
    const OPERATION: Operation = Operation::Chat;
    const PROMPT: &str = "messages";

    async fn understand(
        mut parameters: Parameters,
        model: &ServedModel,
        served_name: &str,
    ) -> Result<Asked<ChatAnswer>, ApiError> {
        let request = ChatRequest::take(&mut parameters)?;
        parameters.finish()?;

        let Some(prompt) = model.encode_chat(request.messages).await else {
            let message = "This model has no chat template; send its prompt as text to /v1/completions.";
            return Err(ApiError::invalid("messages", message));
        };
        let prompt = prompt.map_err(|refused| ApiError::invalid("messages", refused))?;
        let rest = model.engine.context_length().saturating_sub(prompt.len()).max(1);
        let prompt = coterie_engine::Request {
            stop_tokens: model.engine.stop_tokens().to_vec(),
            top_logprobs: request.top_logprobs,
            ..coterie_engine::Request::new(prompt, request.max_tokens.unwrap_or(rest))
        };

        let settings = request.settings;
        let with_logprobs = request.top_logprobs.is_some();
        let answer = ChatAnswer::new(served_name, model.text.clone(), with_logprobs, settings.n);
        Ok(Asked { wanted: settings.wanted(&[prompt]), answer, streamed: settings.streamed })
    }
}
