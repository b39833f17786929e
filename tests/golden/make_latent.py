"""Makes tiny random checkpoints of the families with latent attention, and their golden log-probabilities: DeepSeek's
with HuggingFace transformers, Pangu Ultra MoE's with the equations in pangu.py.

    python make_latent.py            writes <family>/<case>/ beside this file
    python make_latent.py --check    makes them in a temporary folder and compares with the committed files
"""

import json

import numpy
import torch
import transformers
from safetensors.torch import load_file, save_file

from transformers.modeling_layers import MtpModel

import pangu
from reference import Family, fill, main

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


class DeepSeek(Family):
    """A family by its transformers classes; a case is its configuration, and how it is to be written."""

    def __init__(self, name, config, model, cases):
        self.name, self.config, self.model, self.cases = name, config, model, cases

    def make(self, folder, case, seed):
        shape = dict(self.cases[case])
        del shape["seed"]
        layout = {key: shape.pop(key, None) for key in ("old_config", "fused", "fp8")}
        rope = {"rope_type": "default"} | shape.pop("rope")
        config = self.config(
            **shape, num_key_value_heads=shape["num_attention_heads"], rope_parameters=rope, initializer_range=0.3,
            max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=None,
        )
        model = self.model(config).to(torch.bfloat16)
        fill(model, seed)
        model.save_pretrained(folder, save_original_format=not layout["fused"])
        (folder / "generation_config.json").unlink(missing_ok=True)
        if layout["fp8"]:
            fp8 = round_to_fp8(folder, *layout["fp8"])
        model = self.model.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
        )
        if layout["fp8"]:
            write_fp8(folder, fp8, layout["fp8"])
        if layout["old_config"]:
            write_old_config(folder / "config.json")
        return model.eval()

    def groups(self, config):
        return config.n_group or 1, config.topk_group or 1


class DeepSeekV2(DeepSeek):
    # By softmax as by logits: one rises with the other.
    def group_scores(self, grouped):
        return grouped.max(dim=-1).values


class DeepSeekV3(DeepSeek):
    def make(self, folder, case, seed):
        model = super().make(folder, case, seed)
        if model.config.num_mtp_layers:
            model.draft = make_draft(folder, model, seed)
        return model

    def gate_scores(self, gate, inputs, logits):
        return logits.sigmoid() + gate.e_score_correction_bias

    @torch.no_grad()
    def more(self, model, tokens):
        """What the draft module says to the token after the next, of all tokens but the last."""
        if len(tokens) == 1 or not model.config.num_mtp_layers:
            return {}
        tokens = torch.tensor([tokens])
        seen = model.model(tokens, use_cache=False).last_hidden_state[:, :-1]
        positions = torch.arange(1, tokens.shape[1])[None]
        drafted = model.draft[0].forward_layer(0, seen, positions, None, input_ids=tokens[:, 1:])
        return {"draft_logprobs": model.lm_head(drafted)[0].log_softmax(-1)}


def make_draft(folder, model, seed):
    """A random module that guesses ahead (multi-token prediction), its tensors as those of one layer more. In a list,
    so that the model does not take it for its own."""
    layer = model.config.num_hidden_layers
    draft = MtpModel(model, 1).eval()
    stream = numpy.random.Generator(numpy.random.PCG64([seed, 2]))
    tensors = {}
    for name, values in sorted(draft.layers[0].state_dict().items()):
        random = 0.3 * stream.standard_normal(tuple(values.shape)) + (1.0 if "norm" in name else 0.0)
        values.copy_(torch.from_numpy(random).to(torch.bfloat16))
        name = name.removeprefix("mtp_block.").replace("post_norm.", "shared_head.norm.")
        if name.endswith("experts.gate_up_proj"):
            for expert, both in enumerate(values):
                gate, up = both.chunk(2)
                tensors[f"mlp.experts.{expert}.gate_proj.weight"] = gate
                tensors[f"mlp.experts.{expert}.up_proj.weight"] = up
        elif name.endswith("experts.down_proj"):
            tensors |= {f"mlp.experts.{expert}.down_proj.weight": down for expert, down in enumerate(values)}
        else:
            tensors[name] = values
    tensors |= {"embed_tokens.weight": model.get_input_embeddings().weight, "shared_head.head.weight": model.lm_head.weight}
    tensors = {f"model.layers.{layer}.{name}": t.to(torch.bfloat16).clone() for name, t in tensors.items()}
    path = folder / "model.safetensors"
    save_file(load_file(path) | tensors, path, metadata={"format": "pt"})
    return [draft]


def write_old_config(path):
    """The spelling before transformers 5, which the released models have."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    if rope.pop("rope_type") == "yarn":
        config["rope_scaling"] = rope | {"type": "yarn"}
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.57.0"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def round_to_fp8(folder, rows, columns):
    """Rounds the matrices of attention and networks to e4m3 with a scale for each block; the file has their values in
    bf16 then. Returns codes and scales by name."""
    path, fp8 = folder / "model.safetensors", {}
    tensors = load_file(path)
    for name, values in tensors.items():
        if not name.endswith("_proj.weight") and not name.endswith("_proj_with_mqa.weight"):
            continue
        scales = torch.stack([
            torch.stack([block.float().abs().max() / 448 for block in band.split(columns, dim=1)])
            for band in values.split(rows)
        ])
        every = scales.repeat_interleave(rows, 0)[: len(values)].repeat_interleave(columns, 1)[:, : values.shape[1]]
        codes = (values.float() / every).to(torch.float8_e4m3fn)
        tensors[name] = (codes.float() * every).to(torch.bfloat16)
        fp8[name], fp8[f"{name}_scale_inv"] = codes, scales
    save_file(tensors, path, metadata={"format": "pt"})
    return fp8


def write_fp8(folder, fp8, block):
    """Codes and scales in place of the matrices, and a correction bias in f32, as in the released models."""
    path = folder / "model.safetensors"
    tensors = load_file(path) | fp8
    tensors = {name: t.float() if name.endswith("e_score_correction_bias") else t for name, t in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": list(block)
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


V2 = DeepSeekV2(
    "deepseek_v2", transformers.DeepseekV2Config, transformers.DeepseekV2ForCausalLM,
    {
        # As V2-Lite: queries at once, no groups, weights as they come.
        "lite": dict(
            seed=7000, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, q_lora_rank=None, kv_lora_rank=16,
            qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=12, n_routed_experts=6, num_experts_per_tok=2,
            moe_intermediate_size=20, n_shared_experts=2, intermediate_size=40, first_k_dense_replace=1,
            routed_scaling_factor=1.0, vocab_size=80, rms_norm_eps=1e-6, tie_word_embeddings=False,
            rope=YARN | {"rope_theta": 1e4, "mscale": 0.707, "mscale_all_dim": 0.707, "beta_fast": 32, "beta_slow": 1},
        ),
        # As V2: two of four groups by their best expert. Nothing is a multiple of anything.
        "groups": dict(
            seed=7200, hidden_size=39, num_hidden_layers=3, num_attention_heads=3, q_lora_rank=22, kv_lora_rank=18,
            qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=14, n_routed_experts=12, num_experts_per_tok=3,
            moe_intermediate_size=14, n_shared_experts=1, intermediate_size=44, first_k_dense_replace=2, n_group=4,
            topk_group=2, topk_method="group_limited_greedy", routed_scaling_factor=2.3, vocab_size=67,
            rms_norm_eps=1e-2, tie_word_embeddings=True, old_config=True, rope={"rope_theta": 5e4},
        ),
    },
)

V3 = DeepSeekV3(
    "deepseek_v3", transformers.DeepseekV3Config, transformers.DeepseekV3ForCausalLM,
    {
        # As V3, but for the sizes.
        "plain": dict(
            seed=8000, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, q_lora_rank=24, kv_lora_rank=16,
            qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, n_routed_experts=8, num_experts_per_tok=3,
            moe_intermediate_size=20, n_shared_experts=1, intermediate_size=40, first_k_dense_replace=1, n_group=4,
            topk_group=2, routed_scaling_factor=2.5, num_mtp_layers=0, vocab_size=80, rms_norm_eps=1e-6,
            tie_word_embeddings=False, old_config=True,
            rope=YARN | {"rope_theta": 1e4, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1},
        ),
        # Values wider than keys, rotated by halves with a factor on cosines and sines; experts in one tensor.
        "odd-heads": dict(
            seed=8200, hidden_size=42, num_hidden_layers=4, num_attention_heads=5, q_lora_rank=26, kv_lora_rank=21,
            qk_nope_head_dim=7, qk_rope_head_dim=10, v_head_dim=19, n_routed_experts=9, num_experts_per_tok=2,
            moe_intermediate_size=18, n_shared_experts=2, intermediate_size=34, first_k_dense_replace=2, n_group=3,
            topk_group=1, routed_scaling_factor=1.3, num_mtp_layers=0, rope_interleave=False, vocab_size=67,
            rms_norm_eps=1e-2, tie_word_embeddings=True, fused=True,
            rope=YARN | {"rope_theta": 2e3, "factor": 8.0, "mscale": 1.0, "mscale_all_dim": 0.6},
        ),
        # Eight bits with blocks that divide nothing; queries at once, one group, weights not renormalised.
        "fp8": dict(
            seed=8400, hidden_size=52, num_hidden_layers=2, num_attention_heads=3, q_lora_rank=None, kv_lora_rank=24,
            qk_nope_head_dim=16, qk_rope_head_dim=4, v_head_dim=12, n_routed_experts=6, num_experts_per_tok=2,
            moe_intermediate_size=28, n_shared_experts=1, intermediate_size=36, first_k_dense_replace=0, n_group=1,
            topk_group=1, norm_topk_prob=False, routed_scaling_factor=0.8, num_mtp_layers=0, vocab_size=90,
            rms_norm_eps=1e-6, tie_word_embeddings=False, fp8=(20, 12), rope={"rope_theta": 1e5},
        ),
        # With a module that guesses ahead.
        "draft": dict(
            seed=8600, hidden_size=44, num_hidden_layers=2, num_attention_heads=3, q_lora_rank=20, kv_lora_rank=18,
            qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=8, n_routed_experts=6, num_experts_per_tok=2,
            moe_intermediate_size=16, n_shared_experts=1, intermediate_size=30, first_k_dense_replace=1, n_group=2,
            topk_group=1, routed_scaling_factor=1.5, num_mtp_layers=1, vocab_size=61, rms_norm_eps=1e-6,
            tie_word_embeddings=False, rope={"rope_theta": 1e4},
        ),
    },
)

if __name__ == "__main__":
    main(__doc__, V2, V3, pangu.PANGU)
