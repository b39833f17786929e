//! The keys of a config.json, each number within its limit.

use serde_json::{Map, Value};
use thiserror::Error;

/// Most of what any model may have; products of a few of them are far from overflow in 128 bits.
pub(super) const LAYERS: u64 = 1 << 12;
pub(super) const EXPERTS: u64 = 1 << 14;
pub(super) const HEADS: u64 = 1 << 12;
pub(super) const HEAD_WIDTH: u64 = 1 << 12;
pub(super) const HIDDEN: u64 = 1 << 18;
pub(super) const WIDTH: u64 = 1 << 20;
pub(super) const VOCABULARY: u64 = 1 << 24;
pub(super) const CONTEXT: u64 = 1 << 24;

/// Why sizes cannot be told.
#[derive(Debug, Error)]
pub enum NoSizes {
    /// Not JSON at all.
    #[error("it is no JSON: {0}")]
    NoJson(#[from] serde_json::Error),
    /// JSON, but something else.
    #[error("it is no JSON object: give the config.json of a HuggingFace model folder")]
    NoObject,
    /// A family whose tensors are not known here.
    #[error("architectures names {named:?}; sizes are known of {known}; nearest: {nearest}")]
    UnknownFamily {
        /// What the file says.
        named: String,
        /// What it could say.
        known: String,
        /// The one of them that is most like it.
        nearest: &'static str,
    },
    /// A key that the family has and the file does not.
    #[error("{key} is missing")]
    Missing {
        /// Its name.
        key: &'static str,
    },
    /// Something else than was expected.
    #[error("{key} is {found}; it must be {expected}")]
    Kind {
        /// Its name.
        key: &'static str,
        /// What the file says, cut short.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A number is absurd.
    #[error("{key} is {value}; it must be from {least} to {limit}")]
    OutOfRange {
        /// Its name.
        key: &'static str,
        /// What the file says.
        value: u64,
        /// The least that any model may have.
        least: u64,
        /// The most.
        limit: u64,
    },
    /// One number must divide another and does not.
    #[error("{key} ({value}) is not a multiple of {by_key} ({by})")]
    NotDivisible {
        /// Name of the larger.
        key: &'static str,
        /// The larger.
        value: u64,
        /// Name of the smaller.
        by_key: &'static str,
        /// The smaller.
        by: u64,
    },
    /// A list with an entry for each layer has another length.
    #[error("{key} has {found} entries, and there are {layers} layers")]
    ListLength {
        /// Its name.
        key: &'static str,
        /// Its entries.
        found: usize,
        /// Layers.
        layers: u64,
    },
    /// A token uses more experts than there are.
    #[error("a token uses {per_token} experts of {experts}; correct num_experts_per_tok")]
    ExpertsPerToken {
        /// Experts a token uses.
        per_token: u64,
        /// Experts there are.
        experts: u64,
    },
    /// Each number may be, all together may not.
    #[error("the numbers make a model of more than 16 EiB; look for one that has too many digits")]
    TooLarge,
}

/// The keys of a config. Several names of one key are tried in order; `null` is as good as nothing.
pub(super) struct Keys<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Keys<'a> {
    fn find(&self, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
        let there = names.iter().filter_map(|name| Some((*name, self.0.get(*name)?)));
        there.into_iter().find(|(_, value)| !value.is_null())
    }

    /// From 1 to `limit`.
    pub(super) fn number(&self, names: &[&'static str], limit: u64) -> Result<u64, NoSizes> {
        let key = names.first().copied().unwrap_or_default();
        self.ranged(names, 1, limit)?.ok_or(NoSizes::Missing { key })
    }

    /// From 0 to `limit`, if it is there.
    pub(super) fn count(&self, names: &[&'static str], limit: u64) -> Result<Option<u64>, NoSizes> {
        self.ranged(names, 0, limit)
    }

    fn ranged(&self, names: &[&'static str], least: u64, limit: u64) -> Result<Option<u64>, NoSizes> {
        let Some((key, written)) = self.find(names) else { return Ok(None) };
        let value = written.as_u64().ok_or_else(|| kind(key, written, "a whole number"))?;
        match (least..=limit).contains(&value) {
            true => Ok(Some(value)),
            false => Err(NoSizes::OutOfRange { key, value, least, limit }),
        }
    }

    /// False where it is not there.
    pub(super) fn flag(&self, key: &'static str) -> Result<bool, NoSizes> {
        self.flag_or(key, false)
    }

    pub(super) fn flag_or(&self, key: &'static str, default: bool) -> Result<bool, NoSizes> {
        match self.find(&[key]) {
            None => Ok(default),
            Some((_, value)) => value.as_bool().ok_or_else(|| kind(key, value, "true or false")),
        }
    }

    /// Of each head of `width` values those that are rotated: `rotary_dim`, or the share `partial_rotary_factor`, which
    /// newer files have in `rope_parameters`, or the share `default`.
    pub(super) fn rotary(&self, width: u64, default: f64) -> Result<u64, NoSizes> {
        if let Some(rotary) = self.count(&["rotary_dim"], HEAD_WIDTH)? {
            return Ok(rotary);
        }
        let key = "partial_rotary_factor";
        let within = self.find(&["rope_parameters"]).and_then(|(_, rope)| rope.get(key));
        let Some(written) = within.or(self.find(&[key]).map(|(_, value)| value)) else {
            return Ok((width as f64 * default) as u64);
        };
        match written.as_f64().filter(|share| (0.0..=1.0).contains(share)) {
            Some(share) => Ok((width as f64 * share) as u64),
            None => Err(kind(key, written, "a number from 0 to 1")),
        }
    }

    pub(super) fn text(&self, key: &'static str) -> Option<&'a str> {
        self.find(&[key])?.1.as_str()
    }

    /// A list of texts; empty where it is not there.
    pub(super) fn texts(&self, key: &'static str) -> Result<Vec<&'a str>, NoSizes> {
        let Some((_, value)) = self.find(&[key]) else { return Ok(Vec::new()) };
        let wrong = || kind(key, value, "a list of texts");
        value.as_array().ok_or_else(wrong)?.iter().map(|it| it.as_str().ok_or_else(wrong)).collect()
    }

    /// A list of numbers; empty where it is not there.
    pub(super) fn numbers(&self, key: &'static str) -> Result<Vec<u64>, NoSizes> {
        let Some((_, value)) = self.find(&[key]) else { return Ok(Vec::new()) };
        let wrong = || kind(key, value, "a list of whole numbers");
        value.as_array().ok_or_else(wrong)?.iter().map(|it| it.as_u64().ok_or_else(wrong)).collect()
    }

    /// What `quantization_config` says of the checkpoint, e.g. `fp8`.
    pub(super) fn quantization_method(&self) -> Option<String> {
        let method = self.find(&["quantization_config"])?.1.get("quant_method")?.as_str()?;
        Some(method.chars().filter(|c| c.is_ascii_graphic()).take(40).collect())
    }
}

fn kind(key: &'static str, found: &Value, expected: &'static str) -> NoSizes {
    NoSizes::Kind { key, found: found.to_string().chars().take(60).collect(), expected }
}

/// The quotient, if there is no remainder.
pub(super) fn quotient(
    (key, value): (&'static str, u64),
    (by_key, by): (&'static str, u64),
) -> Result<u64, NoSizes> {
    match value.checked_rem(by) {
        Some(0) => Ok(value / by),
        _ => Err(NoSizes::NotDivisible { key, value, by_key, by }),
    }
}

/// The list of a key that has an entry for each layer.
pub(super) fn for_each_layer<T>(key: &'static str, list: Vec<T>, layers: u64) -> Result<Vec<T>, NoSizes> {
    match list.len() as u64 == layers {
        true => Ok(list),
        false => Err(NoSizes::ListLength { key, found: list.len(), layers }),
    }
}
