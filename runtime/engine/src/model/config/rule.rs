//! What a config.json may break: one variant a rule.

use thiserror::Error;

/// What config.json breaks.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ConfigRule {
    /// A number that every config has is not there.
    #[error("{key} is missing")]
    Missing {
        /// Its key.
        key: &'static str,
    },
    /// A number is absurd.
    #[error("{key} is {value}; it must be from 1 to {limit}")]
    OutOfRange {
        /// Its key.
        key: &'static str,
        /// What the file says.
        value: u64,
        /// The most that any model may have.
        limit: u64,
    },
    /// A float is absurd.
    #[error("{key} is {value}; it must be {expected}")]
    Float {
        /// Its key.
        key: &'static str,
        /// What the file says.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// One number must divide another and does not.
    #[error("{divided_key} ({divided}) is not a multiple of {by_key} ({by})")]
    NotDivisible {
        /// Key of the larger.
        divided_key: &'static str,
        /// The larger.
        divided: usize,
        /// Key of the smaller.
        by_key: &'static str,
        /// The smaller.
        by: usize,
    },
    /// A token uses more experts than it may.
    #[error("num_experts_per_tok ({per_token}) is more than the {experts} experts that a token may use")]
    ExpertsPerToken {
        /// Experts a token uses.
        per_token: usize,
        /// Experts there are, or those in the groups that a token may use.
        experts: usize,
    },
    /// No layer has experts.
    #[error("every layer is dense; this build serves models with experts")]
    NoExperts,
    /// The rotary embedding turns pairs.
    #[error("{rotary_dim} values of each head are to be rotated; their number must be even")]
    OddRotary {
        /// What follows from head_dim, and from rotary_dim or partial_rotary_factor.
        rotary_dim: usize,
    },
    /// A list with an entry for each layer has another length.
    #[error("{key} has {found} entries, and there are {layers} layers")]
    ListLength {
        /// Its key.
        key: &'static str,
        /// Its entries.
        found: usize,
        /// Layers.
        layers: usize,
    },
    /// A kind of computation that this build does not do.
    #[error("{key} is {value}, which this build does not do; it does {known}")]
    Unsupported {
        /// Its key.
        key: &'static str,
        /// What the file says.
        value: String,
        /// What would do.
        known: &'static str,
    },
    /// An end-of-sequence token that the model does not have.
    #[error("eos_token_id {token} is outside the vocabulary of {vocabulary} tokens")]
    StopToken {
        /// The id.
        token: u32,
        /// Ids below this exist.
        vocabulary: usize,
    },
}
