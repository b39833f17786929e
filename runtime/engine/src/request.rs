//! What goes into the engine and what comes out: a [`Request`] of token ids, [`Event`]s of token ids.

use crate::constraint::Constraint;
use crate::sampler::NoToken;
use thiserror::Error;

/// Names one request for as long as the engine lives; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One sequence to continue.
#[derive(Clone, Debug)]
pub struct Request {
    /// The tokens to continue; at least one.
    pub prompt: Vec<u32>,
    /// Tokens to generate at most. 0 only together with `prompt_logprobs`: the prompt is scored, nothing generated.
    pub max_tokens: usize,
    /// How a token is chosen.
    pub sampling: Sampling,
    /// What the answer must be; none lets it be anything.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Tokens that end the answer ([`Finish::Stop`]); the model's end-of-sequence tokens, as a rule.
    pub stop_tokens: Vec<u32>,
    /// `Some(n)`: report each generated token's log probability and the `n` most probable tokens beside it.
    pub top_logprobs: Option<usize>,
    /// `Some(n)`: report the same for the prompt, once, before the first generated token.
    pub prompt_logprobs: Option<usize>,
    /// Lower goes first; within a class, first come, first served.
    pub priority: u8,
    /// Requests of one scope share what was computed for equal beginnings; other scopes cannot tell that it was.
    pub cache_scope: u64,
}

impl Request {
    /// Continues `prompt` by `max_tokens` of the most probable tokens, and nothing else asked for.
    pub fn new(prompt: Vec<u32>, max_tokens: usize) -> Request {
        Request {
            prompt,
            max_tokens,
            sampling: Sampling::greedy(),
            constraint: None,
            stop_tokens: Vec::new(),
            top_logprobs: None,
            prompt_logprobs: None,
            priority: 0,
            cache_scope: 0,
        }
    }
}

/// How a token is chosen from the distribution. In this order: `logit_bias`, the penalties, `temperature`, `min_p`,
/// `top_k`, `top_p`, as vLLM does.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most probable token (the lowest id on a tie).
    pub temperature: f32,
    /// The smallest set of most probable tokens whose probability reaches this is sampled from; 1 is all.
    pub top_p: f32,
    /// Only so many of the most probable tokens are sampled from; 0 is all.
    pub top_k: usize,
    /// Only tokens with at least this share of the most probable one's probability are sampled from; 0 is all.
    pub min_p: f32,
    /// Logits of tokens in prompt or answer are divided by this where positive, multiplied where negative; 1 is none
    /// (Keskar et al., "CTRL", 2019).
    pub repetition_penalty: f32,
    /// Taken from the logits of tokens that are in the answer.
    pub presence_penalty: f32,
    /// Taken from the logits of tokens in the answer, once for each time that they are.
    pub frequency_penalty: f32,
    /// (token, what is added to its logit); each token once.
    pub logit_bias: Vec<(u32, f32)>,
    /// With the same seed the same request gives the same tokens, whatever else runs beside it.
    pub seed: u64,
}

impl Sampling {
    /// Always the most probable token.
    pub fn greedy() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
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
    /// The request has its first place in a batch; its first event.
    Started {
        /// Whose.
        id: RequestId,
        /// Tokens of the prompt that others had computed before.
        cached_tokens: usize,
    },
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
        /// Whose fault it was; reads as a sentence for the client.
        why: NoToken,
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
    /// Too many tokens wait already.
    #[error("{waiting} prompt tokens are waiting already, and {limit} may; try again later")]
    TokensFull {
        /// Prompt tokens that wait.
        waiting: usize,
        /// Prompt tokens that may wait.
        limit: usize,
    },
}
