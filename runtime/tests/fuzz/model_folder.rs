//! What the engine reads of a model folder.

use crate::fuzz::{Target, put, run};
use coterie_engine::model::config::Config;
use coterie_engine::model::config::plan::{AttentionPlan, LatentPlan, LightningPlan, Mixer};
use coterie_engine::weights::safetensors::Header;
use coterie_engine::weights::shard::Checkpoint;
use std::path::Path;

const HEADER_WORDS: &[&str] = &[
    "dtype",
    "shape",
    "data_offsets",
    "__metadata__",
    "BF16",
    "F32",
    "F4",
    "I64",
    "BOOL",
    "a",
    "b",
    "lm_head.weight",
];

#[test]
fn safetensors_header() {
    let target = Target {
        name: "safetensors",
        inputs: 80_000,
        json: false,
        words: HEADER_WORDS,
        repair: said_length,
        memory: |input| (16 << 20) + 200 * input,
    };
    run(&target, |file| match Header::parse(file) {
        Err(rule) => rule.to_string(),
        Ok(header) => {
            let mut bytes = header.bytes;
            for (name, entry) in &header.tensors {
                let values: usize = entry.shape.iter().product();
                assert_eq!(values as u64 * entry.dtype.bits(), 8 * entry.bytes.len() as u64, "{name}");
                assert!(entry.bytes.start >= header.bytes && entry.bytes.end <= file.len(), "{name}");
                bytes += entry.bytes.len();
            }
            assert_eq!(bytes, file.len(), "every byte belongs to one tensor");
            format!("{} tensors", header.tensors.len().min(3))
        }
    });
}

/// Lets the length that opens the file end behind the last brace, so that the header is parsed.
#[allow(clippy::ptr_arg)] // a repair may change the length
fn said_length(file: &mut Vec<u8>) {
    let end = file.iter().rposition(|byte| *byte == b'}').map_or(0, |at| at + 1);
    if end > 8 {
        file[..8].copy_from_slice(&(end as u64 - 8).to_le_bytes());
    }
}

#[test]
fn safetensors_index() {
    let dir = tempfile::tempdir().unwrap();
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#.as_bytes();
    let shard = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    let inside = dir.path().join("model");
    std::fs::create_dir(&inside).unwrap();
    for folder in [dir.path(), &inside] {
        std::fs::write(folder.join("x.safetensors"), &shard).unwrap();
    }
    let target = Target {
        name: "index",
        inputs: 20_000,
        json: true,
        words: &["weight_map", "a", "b", "x.safetensors", "../x.safetensors", "/", ".", "..", "x"],
        repair: |_| {},
        memory: |input| (16 << 20) + 200 * input,
    };
    run(&target, |index| {
        put(&inside.join("model.safetensors.index.json"), index);
        match Checkpoint::open(&inside) {
            Err(error) => error.to_string(),
            Ok(checkpoint) => {
                let within = |path: &Path| path.parent() == Some(&inside);
                assert!(checkpoint.shards().iter().all(|shard| within(shard.path())));
                "opened".to_owned()
            }
        }
    });
}

#[test]
fn config() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target {
        name: "config",
        inputs: 40_000,
        json: true,
        words: &[
            "architectures",
            "MixtralForCausalLM",
            "Qwen2MoeForCausalLM",
            "Qwen3MoeForCausalLM",
            "OlmoeForCausalLM",
            "Glm4MoeForCausalLM",
            "MiniMaxM2ForCausalLM",
            "MiniMaxText01ForCausalLM",
            "MiniMaxForCausalLM",
            "attn_type_list",
            "linear_attention",
            "postnorm",
            "layernorm_mlp_alpha",
            "GptOssForCausalLM",
            "vocab_size",
            "hidden_size",
            "num_attention_heads",
            "head_dim",
            "num_key_value_heads",
            "num_local_experts",
            "num_experts",
            "num_experts_per_tok",
            "rope_theta",
            "rope_parameters",
            "rope_scaling",
            "rope_type",
            "default",
            "yarn",
            "factor",
            "original_max_position_embeddings",
            "partial_rotary_factor",
            "rotary_dim",
            "moe_intermediate_size",
            "shared_expert_intermediate_size",
            "n_routed_experts",
            "n_shared_experts",
            "n_group",
            "topk_group",
            "first_k_dense_replace",
            "mlp_only_layers",
            "decoder_sparse_step",
            "layer_types",
            "sliding_attention",
            "full_attention",
            "sliding_window",
            "rms_norm_eps",
            "eos_token_id",
            "max_position_embeddings",
            "tie_word_embeddings",
            "hidden_act",
            "silu",
        ],
        repair: |_| {},
        memory: |input| (16 << 20) + 200 * input,
    };
    run(&target, |json| {
        put(&dir.path().join("config.json"), json);
        match Config::read(dir.path()) {
            Err(error) => error.to_string(),
            Ok(config) => {
                for layer in &config.layers {
                    match &layer.mixer {
                        Mixer::Attention(AttentionPlan { shape, rope, .. }) => {
                            assert!(shape.heads.is_multiple_of(shape.kv_heads) && rope.theta > 0.0);
                            assert!(rope.rotary_dim.is_multiple_of(2) && rope.rotary_dim <= shape.head_dim);
                        }
                        Mixer::Latent(LatentPlan { shape, rope, .. }) => {
                            assert!(shape.heads > 0 && shape.latent > 0 && rope.theta > 0.0);
                            assert!(rope.rotary_dim.is_multiple_of(2) && rope.rotary_dim <= shape.rope);
                        }
                        Mixer::Lightning(LightningPlan { slopes, head_dim }) => {
                            assert!(*head_dim > 0 && !slopes.is_empty());
                            assert!(slopes.iter().all(|slope| *slope > 0.0 && slope.is_finite()));
                        }
                    }
                }
                let [experts, per_token] = config.experts();
                assert!(per_token <= experts && per_token > 0);
                assert!(config.stop_tokens.iter().all(|token| (*token as usize) < config.vocabulary));
                assert!(config.context_length > 0);
                "read".to_owned()
            }
        }
    });
}
