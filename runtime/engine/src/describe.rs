//! What a model is and would take, from config.json and the index of its weights, before anybody downloads them.

use crate::inspect::inspection;
use crate::load_error::LoadError;
use crate::model;
use crate::model::config::plan::Mixer;
use crate::model::config::{Config, ConfigRule};
use crate::weights::listing::Listing;
use coterie_api::launch::Inspection;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Experts of all layers together that are looked at one by one; published models have under 100,000.
const EXPERTS_LIMIT: u64 = 1 << 20;

/// A model whose weights are not there.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// What [`inspect`](crate::inspect()) would find, if every tensor had the number format that config.json names. The
    /// digest is that of the files that are there.
    #[serde(flatten)]
    pub model: Inspection,
    /// How many layers there are of each kind, by how tokens see each other in them.
    pub layer_kinds: BTreeMap<&'static str, usize>,
    /// Tensors that the index names.
    pub tensors: usize,
    /// Files that hold them.
    pub files: usize,
    /// Bytes of all of them, as the index says.
    pub total_bytes: Option<u64>,
    /// Tensors that the model needs and the index does not name, in the order of their use.
    pub missing: Vec<String>,
    /// Tensors that the index names and the model does not need, by name.
    pub not_needed: Vec<String>,
}

/// Describes the model in `dir`, if of its weights nothing but the index is there.
pub fn describe(dir: &Path) -> Result<Option<Description>, LoadError> {
    let Some(listing) = Listing::read(dir)? else { return Ok(None) };
    let config = Config::read(dir)?;
    let [experts, _] = config.experts();
    let limit = EXPERTS_LIMIT / config.layers.len() as u64;
    if experts as u64 > limit {
        let rule = ConfigRule::OutOfRange { key: "num_local_experts", value: experts as u64, limit };
        return Err(LoadError::Config { path: dir.join("config.json"), rule });
    }
    let tally = model::weigh(&listing, &config)?;
    let draft = model::weigh_draft_module(&listing, &config);
    let mut layer_kinds = BTreeMap::new();
    for layer in &config.layers {
        *layer_kinds.entry(kind(&layer.mixer)).or_default() += 1;
    }
    Ok(Some(Description {
        model: inspection(dir, &config, &tally, draft.as_ref())?,
        layer_kinds,
        tensors: listing.tensors(),
        files: listing.files,
        total_bytes: listing.total_bytes,
        missing: listing.missing(),
        not_needed: listing.not_asked_for(),
    }))
}

fn kind(mixer: &Mixer) -> &'static str {
    match mixer {
        Mixer::Attention(attention) => match attention.shape.window {
            Some(_) => "attention to a window",
            None => "attention",
        },
        Mixer::Latent(_) => "latent attention",
        Mixer::Lightning(_) => "lightning attention",
    }
}
