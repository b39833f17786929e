//! What goes into the engine and what comes out: a [`Request`] of token ids, [`Event`]s of token ids.

use thiserror::Error;

/// Names one request for as long as the engine lives; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One sequence to continue.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The tokens to continue; at least one.
    pub prompt: Vec<u32>,
    /// Tokens to generate at most. 0 only together with `prompt_logprobs`: the prompt is scored, nothing generated.
    pub max_tokens: usize,
    /// How a token is chosen.
    pub sampling: Sampling,
    /// Tokens that end the answer ([`Finish::Stop`]); the model's end-of-sequence tokens, as a rule.
    pub stop_tokens: Vec<u32>,
    /// `Some(n)`: report each generated token's log probability and the `n` most probable tokens beside it.
    pub top_logprobs: Option<usize>,
    /// `Some(n)`: report the same for the prompt, once, before the first generated token.
    pub prompt_logprobs: Option<usize>,
}

/// How a token is chosen from the distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most probable token (the lowest id on a tie).
    pub temperature: f32,
    /// The smallest set of most probable tokens whose probability reaches this is sampled from; 1 is all.
    pub top_p: f32,
    /// With the same seed the same request gives the same tokens, whatever else runs beside it.
    pub seed: u64,
}

/// A token with its log probability (natural logarithm, of the softmax of the raw logits: temperature and top_p do
/// not enter) and the most probable tokens at its position, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The token.
    pub token: u32,
    /// Its log probability.
    pub logprob: f32,
    /// (token, log probability), best first; as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// Why a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token was generated.
    Stop,
    /// `max_tokens` or the context length was reached.
    Length,
}

/// What one [`step`](crate::Engine::step) tells about one request. Cancelled requests emit nothing more.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The prompt's log probabilities: one entry a prompt token; the first token has none.
    Prompt {
        /// Whose.
        id: RequestId,
        /// `None` for the first token, which nothing predicts.
        logprobs: Vec<Option<TokenLogprobs>>,
        /// Set where nothing is to be generated (`max_tokens` 0).
        finish: Option<Finish>,
    },
    /// A generated token. The stop token itself is emitted too, with `finish` set.
    Token {
        /// Whose.
        id: RequestId,
        /// The token.
        token: u32,
        /// Present if the request asked for it.
        logprobs: Option<TokenLogprobs>,
        /// Set on the request's last event.
        finish: Option<Finish>,
    },
    /// The request could not go on; the engine and the other requests do.
    Failed {
        /// Whose.
        id: RequestId,
        /// One sentence for the client.
        message: String,
    },
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejected {
    /// There is nothing to continue.
    #[error("the prompt is empty; it needs at least one token")]
    EmptyPrompt,
    /// Nothing was asked for.
    #[error("max_tokens is 0; ask for at least one token")]
    NothingToDo,
    /// Prompt and answer do not fit the context.
    #[error(
        "the prompt has {prompt} tokens and {max_tokens} more were asked for, but this model's context is {context} tokens; shorten the prompt or lower max_tokens"
    )]
    TooLong {
        /// Tokens in the prompt.
        prompt: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// Tokens that fit.
        context: usize,
    },
    /// A token id that the model does not have.
    #[error("token {token} is outside the vocabulary of {vocabulary} tokens")]
    UnknownToken {
        /// The id.
        token: u32,
        /// Ids below this exist.
        vocabulary: usize,
    },
    /// Too many requests wait already.
    #[error("{waiting} requests are waiting already, and {limit} may; try again later")]
    QueueFull {
        /// Requests that wait.
        waiting: usize,
        /// Requests that may wait.
        limit: usize,
    },
}
