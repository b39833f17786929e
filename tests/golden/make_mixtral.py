"""Makes tiny random Mixtral checkpoints and their golden log-probabilities with HuggingFace transformers.

    python make_mixtral.py            writes mixtral/<case>/ beside this file
    python make_mixtral.py --check    makes them in a temporary folder and compares with the committed files
"""

import json
import sys

import torch
import transformers

from reference import Family, fill, main

CASES = {
    # The plain shape: everything a power of two or nearly so.
    "plain": dict(
        seed=101, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, vocab_size=128, rope_theta=1e4,
        rms_norm_eps=1e-5, tie_word_embeddings=False,
    ),
    # 5 query heads share 1 KV head; head_dim is given and is not hidden/heads; nothing is a multiple of 16.
    "odd-heads": dict(
        seed=200, hidden_size=40, intermediate_size=52, num_hidden_layers=2, num_attention_heads=5,
        num_key_value_heads=1, head_dim=12, num_local_experts=8, num_experts_per_tok=2, vocab_size=101,
        rope_theta=1e5, rms_norm_eps=1e-6, tie_word_embeddings=True,
    ),
    # As many KV heads as query heads; 5 experts, top-3.
    "top-three": dict(
        seed=300, hidden_size=72, intermediate_size=36, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=3, num_local_experts=5, num_experts_per_tok=3, vocab_size=131, rope_theta=1e6,
        rms_norm_eps=1e-5, tie_word_embeddings=False,
    ),
    # Two shards, and a config.json of the older generation (rope_theta, torch_dtype).
    "sharded": dict(
        seed=400, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, head_dim=20, num_local_experts=8, num_experts_per_tok=2, vocab_size=150,
        rope_theta=5e5, rms_norm_eps=1e-5, tie_word_embeddings=True, old_config=True, shards=2,
    ),
    # Expert tensors fused as transformers 5 holds them in memory; an eps large enough to be seen when ignored.
    "fused": dict(
        seed=500, hidden_size=56, intermediate_size=44, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, num_local_experts=4, num_experts_per_tok=2, vocab_size=90, rope_theta=2e4,
        rms_norm_eps=5e-2, tie_word_embeddings=False, fused=True,
    ),
}


class Mixtral(Family):
    name = "mixtral"
    cases = CASES

    def make(self, folder, case, seed):
        shape = dict(CASES[case])
        del shape["seed"]
        layout = {
            key: shape.pop(key, default) for key, default in dict(old_config=False, shards=1, fused=False).items()
        }
        shape["rope_parameters"] = {"rope_type": "default", "rope_theta": shape.pop("rope_theta")}
        config = transformers.MixtralConfig(
            **shape, initializer_range=0.3, max_position_embeddings=256, bos_token_id=1, eos_token_id=2
        )
        write_checkpoint(folder, config, seed, **layout)
        return transformers.MixtralForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
        ).eval()


def write_checkpoint(folder, config, seed, old_config, shards, fused):
    """Random weights, rounded to bf16, saved by transformers."""
    model = transformers.MixtralForCausalLM(config).to(torch.bfloat16)
    fill(model, seed)
    total = sum(parameter.numel() * 2 for parameter in model.parameters())
    limit = total if shards == 1 else total * 3 // 5
    model.save_pretrained(folder, max_shard_size=limit + 1, save_original_format=not fused)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if len(list(folder.glob("model*.safetensors"))) != shards:
        sys.exit(f"{folder.name}: expected {shards} weight files")
    if old_config:
        write_old_config(folder / "config.json")


def write_old_config(path):
    """The spelling before transformers 5: rope_theta and torch_dtype at the top level."""
    config = json.loads(path.read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.57.0"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(__doc__, Mixtral())
