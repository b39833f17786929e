//! config.json and generation_config.json, read into a description of the model: what each layer computes, in checked
//! numbers. [`keys`] reads what is written, a [`family`] says what it means, [`plan`] is what comes of it.

pub mod keys;
pub mod plan;
pub mod rope;
mod rule;

pub use rule::ConfigRule;

use crate::load_error::LoadError;
use crate::model::config::keys::{Keys, StopTokens};
use crate::model::config::plan::{LayerPlan, Mlp, MoePlan, Names};
use crate::model::family::{self, Family};
use crate::weights::json::read_json;
use serde::Deserialize;
use std::path::Path;

/// A model, described: every number checked, products of any two of them far from overflow.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Its class name in config.json.
    pub architecture: &'static str,
    /// Token ids below this exist.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Decoder layers. Those with experts have equally many of equal form.
    pub layers: Vec<LayerPlan>,
    /// What its tensors are called.
    pub names: Names,
    /// Longest context that the model was made for.
    pub context_length: usize,
    /// Added to the mean square in a norm.
    pub rms_norm_eps: f32,
    /// The output matrix is the embedding.
    pub tied_embeddings: bool,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<StopTokens>,
}

impl Config {
    /// Reads `dir/config.json` and, where there is one, `dir/generation_config.json`.
    pub fn read(dir: &Path) -> Result<Config, LoadError> {
        check_folder(dir).map_err(|source| LoadError::Folder { path: dir.to_owned(), source })?;
        let path = dir.join("config.json");
        let mut keys: Keys = read_json(&path)?;
        let family = family::find(&keys.architectures, &path)?;
        let own_stop_tokens = keys.eos_token_id.take();
        let mut config =
            describe(&keys, family).map_err(|rule| LoadError::Config { path: path.clone(), rule })?;

        let generation = dir.join("generation_config.json");
        let theirs = match generation.exists() {
            true => read_json::<GenerationConfig>(&generation)?.eos_token_id,
            false => None,
        };
        let from = if theirs.is_some() { generation } else { path };
        config.stop_tokens = theirs.or(own_stop_tokens).map_or(Vec::new(), StopTokens::into_vec);
        if let Some(&token) = config.stop_tokens.iter().find(|&&t| t as usize >= config.vocabulary) {
            let rule = ConfigRule::StopToken { token, vocabulary: config.vocabulary };
            return Err(LoadError::Config { path: from, rule });
        }
        Ok(config)
    }

    /// The layers with experts, each with its number among all layers. Expert maps count these only.
    pub fn expert_layers(&self) -> impl Iterator<Item = (usize, &MoePlan)> {
        self.layers.iter().enumerate().filter_map(|(l, layer)| match &layer.mlp {
            Mlp::Moe(moe) => Some((l, moe)),
            Mlp::Dense { .. } => None,
        })
    }

    /// Experts of one layer, and those that a token uses.
    pub fn experts(&self) -> [usize; 2] {
        self.expert_layers().next().map_or([0; 2], |(_, moe)| [moe.experts, moe.rule.per_token])
    }
}

fn describe(keys: &Keys, family: &Family) -> Result<Config, ConfigRule> {
    let config = Config {
        architecture: family.architecture,
        vocabulary: keys.vocabulary()?,
        hidden: keys.hidden()?,
        layers: (family.layers)(keys)?,
        names: family.names,
        context_length: keys.context_length()?,
        rms_norm_eps: keys.rms_norm_eps()?,
        tied_embeddings: keys.tie_word_embeddings,
        stop_tokens: Vec::new(),
    };
    match config.experts() {
        [0, _] => Err(ConfigRule::NoExperts),
        _ => Ok(config),
    }
}

/// A file in place of the folder is whoever named it to mend, not the machine's failure to read.
fn check_folder(dir: &Path) -> std::io::Result<()> {
    match std::fs::metadata(dir)?.is_dir() {
        true => Ok(()),
        false => Err(std::io::ErrorKind::NotADirectory.into()),
    }
}

#[cfg(test)]
mod tests;
