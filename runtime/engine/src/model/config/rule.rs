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
    /// A token uses more experts than there are.
    #[error("num_experts_per_tok ({per_token}) is more than num_local_experts ({experts})")]
    ExpertsPerToken {
        /// Experts a token uses.
        per_token: usize,
        /// Experts there are.
        experts: usize,
    },
    /// The rotary embedding turns pairs.
    #[error("head_dim is {head_dim}; it must be even")]
    OddHead {
        /// What the file says.
        head_dim: usize,
    },
    /// So does one that turns only a part of each head.
    #[error("rotary_dim is {rotary_dim}; it must be even")]
    OddRotary {
        /// What the file says.
        rotary_dim: usize,
    },
    /// A list has one entry for each layer.
    #[error("{key} has {entries} entries; it must have one for each of the {layers} layers")]
    Entries {
        /// Its key.
        key: &'static str,
        /// What it has.
        entries: usize,
        /// What it must have.
        layers: usize,
    },
    /// A kind of computation that this build does not do.
    #[error("{key} is {value:?}, which this build does not do; it does {known}")]
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
