//! What goes into the engine and what comes out: a [`Request`] of token ids, [`Event`]s of token ids.

use crate::constraint::{Constraint, TokenMask};
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
    /// Tokens of the answer that were generated before, here or elsewhere: it goes on behind them like a request that
    /// was preempted there, and no event tells of them. [`Request::take`] adds one.
    pub generated: Vec<u32>,
    /// Tokens to generate at most, those in `generated` included. 0 only together with `prompt_logprobs`: the prompt is
    /// scored, nothing generated.
    pub max_tokens: usize,
    /// How a token is chosen.
    pub sampling: Sampling,
    /// What the answer must be, as far along as `generated`; none lets it be anything.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Tokens that end the answer ([`Finish::Stop`]); the model's end-of-sequence tokens, as a rule.
    pub stop_tokens: Vec<u32>,
    /// `Some(n)`: report each generated token's log probability and the `n` most probable tokens beside it.
    pub top_logprobs: Option<usize>,
    /// `Some(n)`: report the same for the prompt, once, before the first token of the answer; not again where `generated`
    /// holds that.
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
            generated: Vec::new(),
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

    /// Takes a token that was generated before, behind those that it has, and leads the constraint past it. Gives the
    /// reason if the answer ended with it: then there is nothing to go on with.
    pub fn take(&mut self, token: u32) -> Result<Option<Finish>, NotTaken> {
        let so_far = self.generated.len();
        let ended = self.generated.last().is_some_and(|last| self.finish(*last, so_far).is_some());
        if ended || so_far >= self.max_tokens {
            return Err(NotTaken::Over);
        }
        let finish = self.finish(token, so_far + 1);
        if let Some(constraint) = &mut self.constraint {
            match finish {
                None => constraint.accept(token).map_err(NotTaken::Format)?,
                // The last token is never accepted, only allowed.
                Some(_) => {
                    let mut mask = TokenMask::default();
                    mask.reset(token as usize + 1);
                    constraint.allow(&mut mask).map_err(NotTaken::Format)?;
                    if !mask.allows(token) {
                        return Err(NotTaken::Format("the answer cannot end with it".to_owned()));
                    }
                }
            }
        }
        self.generated.push(token);
        Ok(finish)
    }

    /// Why the answer ends with `token`, its `count`th, if it does.
    pub fn finish(&self, token: u32, count: usize) -> Option<Finish> {
        if self.stop_tokens.contains(&token) {
            return Some(Finish::Stop);
        }
        (count >= self.max_tokens).then_some(Finish::Length)
    }

    /// Tokens that it comes with: the prompt's, and those that were generated before.
    pub fn given(&self) -> usize {
        self.prompt.len() + self.generated.len()
    }

    /// What was generated before has ended the answer.
    pub(crate) fn is_over(&self) -> bool {
        let stopped = self.generated.iter().any(|token| self.stop_tokens.contains(token));
        stopped || (!self.generated.is_empty() && self.generated.len() >= self.max_tokens)
    }
}

/// Why a token that was generated before cannot be part of a request's answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotTaken {
    /// The answer is complete without it.
    #[error("the answer had ended before it")]
    Over,
    /// The constraint does not allow it; the constraint's sentence.
    #[error("the answer's form does not allow it: {0}")]
    Format(String),
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
        /// Tokens of the prompt that were in the cache.
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
    /// A token that was generated now. The stop token itself is emitted too, with `finish` set.
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
    /// What was generated before has ended the answer.
    #[error(
        "the answer ended with the {generated} tokens that were generated before; there is nothing to go on with"
    )]
    Over {
        /// Tokens generated before.
        generated: usize,
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
        /// Tokens that waiting requests came with.
        waiting: usize,
        /// Tokens that may wait.
        limit: usize,
    },
}
