//! `/v1/chat/completions`.

mod answer;
mod reading;
pub(super) mod tools;
pub(super) mod variables;
mod whole;

use super::create::{Asked, Endpoint};
use super::error::ApiError;
use super::messages;
use super::parameters::{Neutral, Parameters};
use super::response_format;
use super::settings::{MOST_TOKENS, Settings};
use crate::conversation::Conversation;
use crate::grammar::Format;
use crate::served_model::ServedModel;
use crate::telemetry::Operation;
use answer::{ChatAnswer, Form};
use reading::Reading;
use tools::ToolUse;

/// `top_logprobs` at most.
pub(super) const MOST_LOGPROBS: i64 = 20;

/// `/v1/chat/completions`.
pub(super) struct Chat;

/// A chat request that is valid in itself.
#[derive(Debug)]
struct ChatRequest {
    conversation: Conversation,
    tool_use: ToolUse,
    max_tokens: Option<usize>,
    top_logprobs: Option<usize>,
    settings: Settings,
}

/// Accepted where they change nothing, because clients send them so.
const NEUTRAL: &[Neutral] = &[
    Neutral { name: "modalities", is_neutral: |v| *v == serde_json::json!(["text"]) },
    Neutral { name: "verbosity", is_neutral: |v| v == "medium" },
    Neutral { name: "audio", is_neutral: |_| false },
    Neutral { name: "prediction", is_neutral: |_| false },
    Neutral { name: "web_search_options", is_neutral: |_| false },
];

impl ChatRequest {
    fn take(parameters: &mut Parameters, model: &ServedModel) -> Result<ChatRequest, ApiError> {
        let tool_use = ToolUse::take(parameters)?;
        let conversation = Conversation {
            messages: messages::take(parameters)?,
            tools: tool_use.shown().to_vec(),
            variables: variables::take(parameters)?,
        };
        let settings = Settings::take(parameters, model)?;
        let max_tokens = max_tokens(parameters)?;
        let wanted = parameters.boolean("logprobs")?.unwrap_or(false);
        let top = parameters.integer("top_logprobs", 0..=MOST_LOGPROBS)?;
        if top.is_some() && !wanted {
            let message = "'top_logprobs' is only allowed when 'logprobs' is true.";
            return Err(ApiError::invalid("top_logprobs", message));
        }
        let top_logprobs = wanted.then_some(top.unwrap_or(0) as usize);
        parameters.only_neutral(NEUTRAL)?;
        Ok(ChatRequest { conversation, tool_use, max_tokens, top_logprobs, settings })
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
        let mut request = ChatRequest::take(&mut parameters, model)?;
        parameters.finish()?;

        let no_template = || {
            let message = "This model has no chat template; send its prompt as text to /v1/completions.";
            ApiError::invalid("messages", message)
        };
        let tool_format = model.text.chat_template.as_ref().ok_or_else(no_template)?.tool_format();
        let prompt = model.encode_chat(request.conversation).await.ok_or_else(no_template)?;
        let prompt = prompt.map_err(|why| ApiError::not_encoded(why, Self::PROMPT))?;
        let reading =
            Reading { tool_use: &request.tool_use, tool_format, side: &model.text, prompt: &prompt.text };
        let rest = model.engine.context_length().saturating_sub(prompt.tokens.len()).max(1);
        let engine_request = coterie_engine::Request {
            top_logprobs: request.top_logprobs,
            ..coterie_engine::Request::new(prompt.tokens, request.max_tokens.unwrap_or(rest))
        };

        let Settings { n, streamed, seed, .. } = request.settings;
        let replay = request.settings.replay.take();
        let form = Form {
            with_logprobs: request.top_logprobs.is_some(),
            reasons: model.text.reasons,
            tool_format,
            call_is_required: request.tool_use.is_required(),
            call_is_named: request.tool_use.is_named(),
        };
        let choices = (0..n).map(|_| reading.output()).collect();
        let answer = ChatAnswer::new(served_name, model.text.clone(), form, choices);
        let mut wanted = request.settings.wanted(&[engine_request], Self::PROMPT, model)?;
        wanted.shown.marks = reading.shown();
        wanted.calls = reading.calls();
        let grammar = reading.grammar().map_err(|why| ApiError::invalid("tools", format!("{why}.")))?;
        let tool_form =
            grammar.map(|text| response_format::Form { param: "tools", format: Format::Lark(text) });
        Ok(Asked { wanted, answer, tool_form, streamed, seed, replay })
    }
}
